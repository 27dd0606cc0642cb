//! `cargo xtask results`: docs/results.md, measured.

mod reconstruction;
mod sequential;
mod tables;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use moeprune::{
    Calibration, CalibrationTexts, Evaluation, Execution, Job, PlanInputs, Progress, Recipe,
    Registry, Silent, Study,
    checkpoint::Checkpoint,
    compare::{Cut, Measures, Variant},
    core::Sparsity,
    recipe::{Budget, ExpertStatistics},
    search::{Search, SearchReport},
};
use moeprune_cli::Terminal;
use serde::{Deserialize, Serialize};

use crate::embedded;

/// Measure every criterion on the embedded model and write docs/results.md
///
/// What is measured is kept in target/results.json after each step; run again, the command resumes.
#[derive(Debug, Args)]
pub(crate) struct ResultsArgs {
    /// Ask only the first N questions; docs/results.md is then left alone
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Calibration seeds, each with its own observation
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', default_value = "0,1,2")]
    seeds: Vec<u64>,
    /// Measure only this section, and put it into docs/results.md
    #[arg(long, value_enum)]
    only: Option<Section>,
}

/// A section that can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Choosing experts by what a layer loses.
    Reconstruction,
    /// Choosing them by statistics of the model as it loses experts.
    Sequential,
}

/// Name in the tables, and the criterion or recipe it is.
const CRITERIA: [&str; 9] = [
    "stun",
    "hc-smoe",
    "reap",
    "ean:over=sum",
    "ean:over=mean",
    "gate",
    "frequency",
    "peak",
    RANDOM,
];

/// The criterion that draws, by the calibration's seed.
const RANDOM: &str = "random";

/// The criterion that has a section of its own, for its cost.
const RECONSTRUCTION: &str = "reconstruction";

const CUTS: [f64; 4] = [0.125, 0.25, 0.375, 0.5];
const TOTALS: [f64; 4] = [0.4, 0.5, 0.6, 0.7];

/// Everything measured so far.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Results {
    /// Calibration tokens of each seed.
    calibration_tokens: u64,
    unpruned: Option<Cut>,
    runs: Vec<Run>,
    searches: Vec<Searched>,
}

/// One pruning by the calibration of one seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Run {
    table: String,
    name: String,
    seed: u64,
    cut: Cut,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Searched {
    seed: u64,
    total: f64,
    report: SearchReport,
}

struct Lab<'a> {
    source: Checkpoint,
    registry: Registry,
    args: &'a ResultsArgs,
    kept: PathBuf,
    results: Results,
    terminal: Terminal,
}

pub(crate) fn run(args: &ResultsArgs) -> Result<()> {
    let target = embedded::root().join("target");
    let kept = match args.limit {
        None => target.join("results.json"),
        Some(limit) => target.join(format!("results-{limit}.json")),
    };
    let results = match fs::read(&kept) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is of another version; remove it", kept.display()))?,
        Err(_) => Results::default(),
    };
    let mut lab = Lab {
        source: Checkpoint::open(&embedded::model())?,
        registry: Registry::built_in(),
        args,
        kept,
        results,
        terminal: Terminal::new(false),
    };
    let began = Instant::now();
    for &seed in &args.seeds {
        lab.one_seed(seed)?;
    }
    let reconstruction = reconstruction::render(&lab.results, lab.source.spec());
    let sequential = sequential::render(&lab.results);
    let page = embedded::root().join("docs/results.md");
    let (shown, text) = match args.only {
        None => {
            let sections = format!("{reconstruction}\n{sequential}");
            let text = tables::render(&lab.results, &args.seeds, &sections);
            (text.clone(), text)
        }
        Some(section) => {
            let (marks, section) = match section {
                Section::Reconstruction => {
                    ([reconstruction::BEGIN, reconstruction::END], reconstruction)
                }
                Section::Sequential => ([sequential::BEGIN, sequential::END], sequential),
            };
            let text = with_section(&fs::read_to_string(&page)?, marks, &section)?;
            (section, text)
        }
    };
    line!("{shown}")?;
    eprintln!("{:.0} s in this process", began.elapsed().as_secs_f64());
    if args.limit.is_none() {
        fs::write(page, text)?;
    }
    Ok(())
}

/// The page with this section in the place of the one between the marks.
fn with_section(page: &str, [begin, end]: [&str; 2], section: &str) -> Result<String> {
    let parts = page.split_once(begin);
    let parts = parts.and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.context("docs/results.md has no marks around the section")?;
    Ok(format!("{before}{section}{after}"))
}

impl Lab<'_> {
    fn one_seed(&mut self, seed: u64) -> Result<()> {
        let mut recipe = Recipe::arctic();
        recipe.calibration.seed = seed;
        let calibration = Calibration::read(&embedded::calibration(), &self.source, &recipe)?;
        let pipeline = self.registry.pipeline(&recipe)?;
        let observation = Job::new(&self.source, &pipeline, &Execution::cpu(), &mut Silent)
            .observe(&calibration)?;
        self.results.calibration_tokens = calibration.blocks.tokens();
        let both = PlanInputs { observation: Some(&observation), calibration: Some(&calibration) };
        if self.args.only != Some(Section::Reconstruction) {
            self.sequential(seed, &recipe, both)?;
        }
        if self.args.only == Some(Section::Sequential) {
            return Ok(());
        }
        for budget in [Budget::Uniform, Budget::Global] {
            let table = format!("{budget:?}").to_lowercase();
            for cut in CUTS {
                let variant = experts_only(&recipe, RECONSTRUCTION, cut, budget, seed)?;
                self.measure(&table, RECONSTRUCTION, seed, variant, both)?;
            }
        }
        if self.args.only.is_some() {
            return Ok(());
        }
        let observation = PlanInputs { calibration: None, ..both };
        for budget in [Budget::Uniform, Budget::Global] {
            let table = format!("{budget:?}").to_lowercase();
            for name in CRITERIA {
                for cut in CUTS {
                    let variant = experts_only(&recipe, name, cut, budget, seed)?;
                    self.measure(&table, name, seed, variant, observation)?;
                }
            }
        }
        for total in TOTALS {
            for (name, experts) in [("STUN", 0.2), ("weights only", 0.0)] {
                for allocation in ["owl", "uniform"] {
                    let mut recipe = recipe.clone();
                    recipe.sparsity = Sparsity::new(total)?;
                    recipe.experts.sparsity = Sparsity::new(experts)?;
                    recipe.weights.allocation = allocation.into();
                    let name = format!("{name}, {allocation}");
                    self.measure("split", &name, seed, recipe, observation)?;
                }
            }
            self.search(seed, total, &recipe, observation)?;
        }
        Ok(())
    }

    /// REAP by statistics of the model as it loses experts, and beside it of the model as it is.
    fn sequential(&mut self, seed: u64, recipe: &Recipe, inputs: PlanInputs<'_>) -> Result<()> {
        for cut in sequential::SHARES {
            let variant = experts_only(recipe, sequential::REAP, cut, Budget::Uniform, seed)?;
            let mut in_turn = variant.clone();
            in_turn.experts.statistics = ExpertStatistics::Sequential;
            self.measure("uniform", sequential::REAP, seed, variant, inputs)?;
            self.measure("uniform", sequential::IN_TURN, seed, in_turn, inputs)?;
        }
        Ok(())
    }

    fn search(
        &mut self,
        seed: u64,
        total: f64,
        recipe: &Recipe,
        inputs: PlanInputs<'_>,
    ) -> Result<()> {
        let mut recipe = recipe.clone();
        recipe.sparsity = Sparsity::new(total)?;
        let known = self.results.searches.iter().find(|s| s.seed == seed && s.total == total);
        let (chosen, report) = match known {
            Some(known) => (None, known.report.clone()),
            None => {
                let what = Search { experts: true, allocation: true };
                let path = embedded::calibration();
                let texts = CalibrationTexts::from(&path);
                let texts = texts.read_for_search(&self.source, &recipe, &mut Silent)?;
                let mut study = Study {
                    checkpoint: &self.source,
                    registry: &self.registry,
                    execution: &Execution::cpu(),
                    progress: &mut Silent,
                };
                let (chosen, report) = study.search(&texts, &recipe, what)?;
                (Some(chosen), report)
            }
        };
        if let Some(chosen) = chosen {
            self.measure("split", "searched", seed, chosen, inputs)?;
            self.results.searches.push(Searched { seed, total, report });
            self.save()?;
        }
        Ok(())
    }

    /// Measures one recipe, unless that was done.
    fn measure(
        &mut self,
        table: &str,
        name: &str,
        seed: u64,
        mut recipe: Recipe,
        inputs: PlanInputs<'_>,
    ) -> Result<()> {
        recipe.weights.statistics = moeprune::recipe::Statistics::Stored;
        let (share, total) = (recipe.experts.sparsity.value(), recipe.sparsity.value());
        let same = |run: &&Run| {
            let asked = if table == "split" {
                run.cut.total_share.max(run.cut.expert_share)
            } else {
                run.cut.expert_share
            };
            let wanted = if table == "split" { total } else { share };
            (run.table.as_str(), run.name.as_str(), run.seed) == (table, name, seed)
                && asked == wanted
        };
        if self.results.runs.iter().find(same).is_some() {
            return Ok(());
        }
        self.terminal
            .note(&format!("seed {seed}, {table}, {name}: {share} of the experts, {total} in all"));
        // The unpruned model is measured with the first one only.
        let known = self.results.unpruned.is_some();
        let mut cuts = self.cuts(Variant { name: name.to_owned(), recipe }, inputs)?.into_iter();
        if !known {
            self.results.unpruned = cuts.next();
        }
        let cut = cuts.next().context("a variant has a cut")?;
        let (table, name) = (table.to_owned(), name.to_owned());
        self.results.runs.push(Run { table, name, seed, cut });
        self.save()
    }

    /// The unpruned model, unless it is known, and the pruned one.
    fn cuts(&mut self, variant: Variant, inputs: PlanInputs<'_>) -> Result<Vec<Cut>> {
        let task = Evaluation {
            task: "gsm8k_zeroshot",
            data: &embedded::test_set(),
            limit: self.args.limit,
            fewshot: None,
            fewshot_data: None,
            batch: 64,
            sequence_len: None,
        };
        let text = embedded::held_out();
        let measures = Measures {
            task: Some(task),
            metric: Some("strict-match"),
            text: Some(&text),
            skip_unpruned: self.results.unpruned.is_some(),
            ..Measures::default()
        };
        let mut study = Study {
            checkpoint: &self.source,
            registry: &self.registry,
            execution: &Execution::cpu(),
            progress: &mut self.terminal,
        };
        let found = study.compare(inputs, &[variant], &measures)?;
        Ok(found.cuts)
    }

    fn save(&self) -> Result<()> {
        let partial = self.kept.with_extension("partial");
        fs::write(&partial, serde_json::to_vec_pretty(&self.results)?)?;
        Ok(fs::rename(partial, &self.kept)?)
    }
}

/// A recipe that removes this share of the experts and nothing else.
fn experts_only(
    recipe: &Recipe,
    name: &str,
    cut: f64,
    budget: Budget,
    seed: u64,
) -> Result<Recipe> {
    let mut recipe = recipe.clone();
    recipe.sparsity = Sparsity::new(cut)?;
    recipe.experts.sparsity = recipe.sparsity;
    recipe.experts.budget = budget;
    let seeded = if name == RANDOM { &format!("{name}:seed={seed}") } else { name };
    Registry::built_in().choose_experts_by(&mut recipe, seeded)?;
    Ok(recipe)
}
