//! `moeprune eval`

use std::path::{Path, PathBuf};

use clap::Args;
use moeprune_core::plural;
use moeprune_eval::{EvalReport, Part, choice_task};
use moeprune_files::{OutputKind, RunFiles};
use serde_json::{Value, json};

use crate::{
    against::{AgainstArgs, Held, print_divergence},
    degradation::print_degradation,
    endpoint::{EndpointArgs, JournalPlace, KeptJournal},
    options::{DeviceArgs, FamilyArgs, positive},
    streaming::StreamingArgs,
    table::table,
    terminal::Terminal,
    texts::reads_texts,
};
use moeprune::{
    AskOptions, Error, Evaluation, Execution, Progress as _, check_is_run,
    checkpoint::Checkpoint,
    engine::{ExpertPlace, StreamingEstimate, TOOL},
    evaluate_all_by,
    evaluation::{
        KeptAnswers, PERPLEXITY, Score, ServedModel, evaluate_served, known_tasks, named_tasks,
        native_run_key, task_file,
    },
};

/// Options of `eval`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  moeprune eval pruned --task gsm8k --data test.jsonl --fewshot-data train.jsonl
  moeprune eval pruned --task gsm8k_cot --data test.jsonl --limit 100 --json out.json
  moeprune eval pruned --task arc_challenge --data ai2_arc/ARC-Challenge/test-00000-of-00001.parquet
  moeprune eval pruned --task arc_easy,hellaswag,boolq --data datasets --limit 500
  moeprune eval pruned --task mmlu --data mmlu --fewshot 5
  moeprune eval pruned --task mine.toml --data mine.jsonl
  moeprune eval pruned --task tasks_of_mine,arc_easy --data datasets         every task of a folder, and a built-in one
  moeprune eval pruned --task perplexity --data wikitext.txt --seq-len 2048
  moeprune eval pruned --against mixtral-8x7b --data wikitext.txt --limit 32
  moeprune eval qwen3-235b --task gsm8k_cot --data test.jsonl --limit 50 --max-memory 48G     larger than memory: slow
  moeprune eval --endpoint http://localhost:8000/v1 --task gsm8k --data test.jsonl --fewshot-data train.jsonl \\
      --json out.json                                       of a model in vLLM; the same command again resumes it
  moeprune eval pruned --endpoint http://gpu7:8000/v1 --concurrency 32 --task arc_easy,boolq --data datasets
  moeprune eval --list-tasks

Multiple choice is scored as lm-evaluation-harness does: by the log-likelihood of each choice. --data
takes data sets as the Hugging Face Hub has them (Parquet, JSON lines, JSON, CSV), a file or a folder.")]
#[non_exhaustive]
pub struct EvalArgs {
    /// Directory of the model; with --endpoint only its tokenizer is read
    #[arg(required_unless_present_any = ["endpoint", "list_tasks"])]
    pub model: Option<PathBuf>,
    /// What to measure: names (see --list-tasks), files that describe a task (FILE.toml, or FILE.toml:SUBJECT for a group or
    /// subject of it), or folders of such files; gsm8k has 5 shots, gsm8k_cot 8, multiple choice none
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        required_unless_present_any = ["list_tasks", "against"]
    )]
    pub task: Vec<String>,
    /// Questions as the task's data set has them, or text for perplexity: JSON lines, an array, CSV, Parquet or plain
    /// text, packed or not; one for each task, or a folder in which each task finds its own
    #[arg(long, value_name = "FILE", required_unless_present = "list_tasks")]
    pub data: Vec<PathBuf>,
    /// Only the first N questions (of each subject), or blocks of text
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,
    /// Solved examples before each question, if not as the task defines
    #[arg(long, value_name = "N")]
    pub fewshot: Option<usize>,
    /// Questions that examples are drawn from; one for each task, or for all. Folders given as --data may hold them too
    #[arg(long, value_name = "FILE")]
    pub fewshot_data: Vec<PathBuf>,
    /// Questions answered together [default: 32; 1024 where experts are read when they are needed, of which as many
    /// run at once as their keys and values have room]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch: Option<usize>,
    /// Tokens in a block of perplexity [default: 2048, or the model's maximum if that is less]
    #[arg(long, value_name = "T", value_parser = positive)]
    pub seq_len: Option<usize>,
    /// Write all answers and scores here
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// List the tasks that are built in, and stop
    #[arg(long, exclusive = true)]
    pub list_tasks: bool,
    /// What the model is held against.
    #[command(flatten)]
    pub against: AgainstArgs,
    /// A server that is asked in place of running the model.
    #[command(flatten)]
    pub endpoint: EndpointArgs,
    /// Where the model runs.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Where its experts are.
    #[command(flatten)]
    pub streaming: StreamingArgs,
    /// How the model is read.
    #[command(flatten)]
    pub family: FamilyArgs,
}

/// Evaluates and prints the scores, one for each task.
///
/// # Errors
/// As [`evaluate_all`](moeprune::evaluate_all); if a task is not known, tasks and data do not go together, or `--json` must not or cannot be written, before any work.
pub fn eval(args: &EvalArgs, terminal: &mut Terminal) -> Result<Vec<Score>, Error> {
    if args.list_tasks {
        return list_tasks().map(|()| Vec::new());
    }
    let tasks = named(&args.task)?;
    let evaluations = match args.against.against {
        None => evaluations(args, &tasks)?,
        Some(_) => Vec::new(),
    };
    let mut files =
        args.model.as_deref().map_or_else(RunFiles::new, |model| args.family.files(model));
    args.against.declare(&mut files);
    reads_texts(&mut files, args.data.iter().chain(&args.fewshot_data));
    files.reads_all(tasks.iter().filter_map(|task| task_file(task)));
    let journal = JournalPlace::find(&args.endpoint, args.json.as_deref(), &mut files);
    let json = files.claim_if_asked("--json", args.json.as_deref(), OutputKind::Evaluation)?;
    crate::interrupt::listen();
    let model = args.model.as_deref();
    let Found { scores, estimates, kept } = match (&args.endpoint.endpoint, model) {
        (Some(url), _) => ask(args, url, journal, &evaluations, terminal)?,
        (None, Some(model)) => match &args.against.against {
            Some(reference) => {
                let scores = vec![held(args, model).against(reference, terminal)?];
                Found { scores, ..Found::default() }
            }
            None => run(args, model, journal, &evaluations, terminal)?,
        },
        (None, None) => {
            return Err(Error::Request("no model: name its directory, or pass --endpoint".into()));
        }
    };
    let printed = scores.iter().try_for_each(print_score);
    if let Some(json) = json {
        let text = crate::print::json(&in_json(&scores, &estimates)?)?;
        crate::interrupt::deliver(&json, |file| file.write_all(text.as_bytes()))?;
    }
    kept.into_iter().for_each(|kept| kept.finish(terminal));
    printed?;
    Ok(scores)
}

/// What `--against` is given.
fn held<'a>(args: &'a EvalArgs, model: &'a Path) -> Held<'a> {
    Held {
        model,
        tasks: &args.task,
        shots: args.fewshot.is_some() || !args.fewshot_data.is_empty(),
        data: &args.data,
        limit: args.limit,
        sequence_len: args.seq_len,
        device: &args.device,
        family: &args.family,
    }
}

/// Questions answered together, if it is not said.
const BATCH: usize = 32;

/// The same where experts are read when they are needed: each is read once for all sequences that run at once.
const STREAMED_BATCH: usize = 1024;

/// What was found.
#[derive(Default)]
struct Found {
    scores: Vec<Score>,
    /// What it was expected to take, of each task, if experts were read when they were needed.
    estimates: Vec<StreamingEstimate>,
    /// What kept the answers meanwhile.
    kept: Option<KeptJournal>,
}

/// Asks the model that is served.
fn ask(
    args: &EvalArgs,
    url: &str,
    journal: Option<JournalPlace>,
    tasks: &[Evaluation<'_>],
    terminal: &mut Terminal,
) -> Result<Found, Error> {
    let checkpoint = args.model.as_deref().map(|model| args.family.open(model)).transpose()?;
    let mut served = ServedModel::new(args.endpoint.calls.connect(url, terminal)?);
    if let Some(checkpoint) = &checkpoint {
        served = served.read_by(checkpoint)?;
    }
    let (name, at) = (served.endpoint().shown_model(), served.endpoint().url());
    terminal.note(&format!("asking the model `{name}` at {at}"));
    let run = || served.run_key(tasks);
    let mut kept = journal.map(|place| place.open(&run()?, terminal)).transpose()?;
    let scores = tasks.iter().map(|what| match &mut kept {
        None => evaluate_served(&mut served, what, terminal),
        Some(kept) => {
            let mut answering = KeptAnswers::new(&mut served, kept.journal());
            evaluate_served(&mut answering, what, terminal)
        }
    });
    match scores.collect::<Result<Vec<_>, _>>() {
        Ok(scores) => Ok(Found { scores, kept, ..Found::default() }),
        Err(error) => {
            kept.into_iter().for_each(|kept| kept.leave(terminal));
            Err(error)
        }
    }
}

/// Runs the model.
fn run(
    args: &EvalArgs,
    model: &Path,
    journal: Option<JournalPlace>,
    tasks: &[Evaluation<'_>],
    terminal: &mut Terminal,
) -> Result<Found, Error> {
    args.endpoint.calls.check_unused()?;
    let execution = args.streaming.on(args.device.open()?);
    // Mapped pages would count against the memory that is promised.
    let checkpoint = args.family.open_to_stream(model)?;
    check_is_run(&checkpoint, "eval")?;
    let mut tasks = tasks.to_vec();
    if args.batch.is_none() && is_streamed(&checkpoint, &execution)? {
        tasks.iter_mut().for_each(|task| task.batch = STREAMED_BATCH);
    }
    let run_key = || native_run_key(&checkpoint, &execution, &tasks);
    let mut kept = journal.map(|place| place.open(&run_key()?, terminal)).transpose()?;
    let mut estimates = Vec::new();
    let mut estimated = |estimate: &StreamingEstimate| estimates.push(*estimate);
    let options = AskOptions {
        journal: kept.as_mut().map(KeptJournal::journal),
        estimated: Some(&mut estimated),
    };
    match evaluate_all_by(&checkpoint, &tasks, &execution, options, terminal) {
        Ok(scores) => Ok(Found { scores, estimates, kept }),
        Err(error) => {
            kept.into_iter().for_each(|kept| kept.leave(terminal));
            Err(error)
        }
    }
}

/// Whether experts are read when they are needed.
fn is_streamed(checkpoint: &Checkpoint, execution: &Execution) -> Result<bool, Error> {
    let (_, place) = execution.place_experts(checkpoint, checkpoint.spec())?;
    Ok(place != ExpertPlace::Memory)
}

/// The tasks that the names stand for; a folder stands for all it has.
pub(crate) fn named(names: &[String]) -> Result<Vec<String>, Error> {
    let tasks = names.iter().map(|name| named_tasks(name.trim()));
    let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
    Ok(tasks.into_iter().flatten().collect())
}

/// Each task with its data.
fn evaluations<'a>(args: &'a EvalArgs, tasks: &'a [String]) -> Result<Vec<Evaluation<'a>>, Error> {
    let paired = |option: &str, paths: &'a [PathBuf], index: usize| match paths {
        [] => Ok(None),
        [one] => Ok(Some(one.as_path())),
        several if several.len() == tasks.len() => Ok(Some(several[index].as_path())),
        several => Err(Error::Request(format!(
            "{option} is given {} times for {}; give one for each task, in their order, or a folder for all",
            several.len(),
            plural(tasks.len(), "task")
        ))),
    };
    let evaluation = |(index, task): (usize, &'a String)| {
        let data = paired("--data", &args.data, index)?;
        Ok(Evaluation {
            task,
            data: data.ok_or_else(|| Error::Request("give the questions (--data)".into()))?,
            limit: args.limit,
            fewshot: args.fewshot,
            fewshot_data: paired("--fewshot-data", &args.fewshot_data, index)?,
            batch: args.batch.unwrap_or(BATCH),
            sequence_len: args.seq_len,
        })
    };
    tasks.iter().enumerate().map(evaluation).collect()
}

/// One score as it stands, several as a list; each with what it was expected to take, if that was said.
fn in_json(scores: &[Score], estimates: &[StreamingEstimate]) -> Result<Value, Error> {
    let mut estimates = estimates.iter();
    let one = |score: &Score| {
        let mut value = score.to_json()?;
        if let (Some(estimate), Value::Object(fields)) = (estimates.next(), &mut value) {
            fields.insert("estimate".into(), json!(estimate));
        }
        Ok(value)
    };
    let mut values = scores.iter().map(one).collect::<Result<Vec<_>, Error>>()?;
    match values.len() {
        1 => Ok(values.swap_remove(0)),
        _ => Ok(json!({ "tool": TOOL, "evaluations": values })),
    }
}

fn list_tasks() -> Result<(), Error> {
    let row = |name: &&str| {
        let task = choice_task(name).ok().flatten();
        let (metrics, data, about) = match &task {
            Some(task) => (
                task.metrics().iter().map(|metric| metric.name()).collect::<Vec<_>>().join(", "),
                format!("{} {}", task.published(), task.config()).trim_end().to_owned(),
                task.about().to_owned(),
            ),
            None if *name == PERPLEXITY => (
                "perplexity".to_owned(),
                "any text".to_owned(),
                "how well each token of a text is predicted".to_owned(),
            ),
            None => (
                "flexible-extract, strict-match".to_owned(),
                "openai/gsm8k main".to_owned(),
                about_gsm8k(name).to_owned(),
            ),
        };
        vec![(*name).to_owned(), metrics, data, about]
    };
    let header = ["task", "metrics", "data on the Hub", ""].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> =
        [header].into_iter().chain(known_tasks().iter().map(row)).collect();
    let widest =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [widest(0), widest(1), widest(2)];
    for row in &rows {
        let [name, metrics, data, about] = row.as_slice() else { continue };
        let text = format!(
            "{name:<a$}  {metrics:<b$}  {data:<c$}  {about}",
            a = widths[0],
            b = widths[1],
            c = widths[2]
        );
        line!("{}", text.trim_end())?;
    }
    Ok(())
}

fn about_gsm8k(name: &str) -> &'static str {
    match name {
        "gsm8k" => "grade-school word problems (Cobbe et al., 2021), 5 solved ones before each",
        "gsm8k_zeroshot" => "the same without solved ones",
        "gsm8k_cot" => "the same after 8 fixed chains of thought",
        "gsm8k_cot_zeroshot" => "the same after words that set a model thinking",
        _ => "the same as Llama 3 was evaluated",
    }
}

fn print_score(score: &Score) -> Result<(), Error> {
    match score {
        Score::Answers(report) => print_report(report),
        Score::Perplexity(report) => line!(
            "perplexity {:.4} (mean negative log-likelihood {} over {})",
            report.perplexity,
            report.nll,
            plural(report.tokens, "token")
        ),
        Score::Divergence(report) => print_divergence(report),
    }
}

fn print_report(report: &EvalReport) -> Result<(), Error> {
    let (questions, shots) = (plural(report.n, "question"), plural(report.fewshot, "shot"));
    line!("{} on {questions}, {shots}", report.task)?;
    for (metric, estimate) in &report.metrics {
        let error = estimate.stderr.map_or_else(String::new, |e| format!(" ± {e:.4}"));
        line!("  {metric:<18} {:.4}{error}", estimate.mean)?;
    }
    print_degradation(report)?;
    if report.subjects.len() > 1 {
        line!("\n{}", by_subject(report).trim_end())?;
    }
    Ok(())
}

/// Groups, then subjects, a row each.
fn by_subject(report: &EvalReport) -> String {
    let row = |part: &Part| {
        let mut row = vec![part.name.clone(), part.n.to_string()];
        for estimate in part.metrics.values() {
            let error = estimate.stderr.map_or_else(String::new, |e| format!(" ± {e:.4}"));
            row.push(format!("{:.4}{error}", estimate.mean));
        }
        row
    };
    let groups = if report.groups.len() > 1 { report.groups.as_slice() } else { &[] };
    let rows: Vec<Vec<String>> = groups.iter().chain(&report.subjects).map(row).collect();
    let header: Vec<&str> = ["subject", "questions"]
        .into_iter()
        .chain(report.metrics.keys().map(String::as_str))
        .collect();
    table(&header, &rows)
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn spaces_after_commas_are_no_part_of_names() {
        let names = ["arc_easy", " boolq ", "\tmmlu_stem"].map(str::to_owned);
        assert_eq!(named(&names).unwrap(), ["arc_easy", "boolq", "mmlu_stem"]);
    }
}
