//! `moeprune eval --against`

use std::path::{Path, PathBuf};

use clap::Args;
use moeprune::{
    Error, check_is_run,
    eval::DivergenceReport,
    evaluation::{
        PERPLEXITY, Score,
        against::{Against, evaluate_against},
    },
};
use moeprune_core::plural;
use moeprune_files::RunFiles;

use crate::{
    options::{DeviceArgs, FamilyArgs},
    table::table,
    terminal::Terminal,
};

/// What a model is held against.
#[derive(Debug, Clone, Default, Args)]
#[non_exhaustive]
pub struct AgainstArgs {
    /// The unpruned model: compare what both predict after each token of a text (--data). Gives the KL divergence, how
    /// often both find the same token the likeliest, and the perplexities of both. Runs layer by layer, so neither
    /// model has to fit into memory
    #[arg(long, value_name = "MODEL")]
    pub against: Option<PathBuf>,
}

impl AgainstArgs {
    /// Declares what the run reads.
    pub(crate) fn declare(&self, files: &mut RunFiles) {
        self.against.iter().for_each(|model| files.reads_model(model));
    }
}

/// What is held against a reference, on which text, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held<'a> {
    pub(crate) model: &'a Path,
    /// What was asked for; a text has a perplexity.
    pub(crate) tasks: &'a [String],
    /// Whether shots were asked for.
    pub(crate) shots: bool,
    pub(crate) data: &'a [PathBuf],
    pub(crate) limit: Option<usize>,
    pub(crate) sequence_len: Option<usize>,
    pub(crate) device: &'a DeviceArgs,
    pub(crate) family: &'a FamilyArgs,
}

impl Held<'_> {
    /// Holds the model against `reference`.
    ///
    /// # Errors
    /// As [`evaluate_against`]; if questions were asked for.
    pub(crate) fn against(
        &self,
        reference: &Path,
        terminal: &mut Terminal,
    ) -> Result<Score, Error> {
        if let Some(task) = self.tasks.iter().find(|task| *task != PERPLEXITY) {
            return Err(Error::Request(format!(
                "--against compares predictions of a text, and {task} asks questions: leave --task out, or evaluate \
                 each model by itself"
            )));
        }
        let [data] = self.data else {
            return Err(Error::Request(format!(
                "--against reads one text, and --data names {}: give one, or a folder of them",
                self.data.len()
            )));
        };
        if self.shots {
            return Err(Error::Request("a text has no shots; leave --fewshot out".into()));
        }
        let execution = self.device.open()?;
        let model = self.family.open_to_stream(self.model)?;
        let reference = self.family.open_to_stream(reference)?;
        check_is_run(&model, "eval")?;
        check_is_run(&reference, "eval")?;
        let (limit, sequence_len) = (self.limit, self.sequence_len);
        let what = Against { reference: &reference, data, limit, sequence_len };
        Ok(Score::Divergence(evaluate_against(&model, what, &execution, terminal)?))
    }
}

/// Prints how far a model's predictions are from the reference's.
pub(crate) fn print_divergence(found: &DivergenceReport) -> Result<(), Error> {
    let error = |stderr: Option<f64>| stderr.map_or_else(String::new, |e| format!(" ± {e:.5}"));
    let row = |name: &str, figure: String| vec![name.to_owned(), figure];
    let rows = [
        row(
            "KL(reference || model), nats per token",
            format!("{:.5}{}", found.kl, error(found.kl_stderr)),
        ),
        row("  half of the tokens at most", format!("{:.5}", found.kl_p50)),
        row("  90 % of the tokens at most", format!("{:.5}", found.kl_p90)),
        row("  99 % of the tokens at most", format!("{:.5}", found.kl_p99)),
        row("  all of the tokens at most", format!("{:.5}", found.kl_max)),
        row(
            "same likeliest token",
            format!("{:.5}{}", found.agreement, error(found.agreement_stderr)),
        ),
        row("perplexity of the model", format!("{:.4}", found.perplexity)),
        row("perplexity of the reference", format!("{:.4}", found.reference_perplexity)),
        row(
            "nats per token more than the reference",
            format!("{:.5}{}", found.nll - found.reference_nll, error(found.nll_difference_stderr)),
        ),
    ];
    let (tokens, blocks) = (plural(found.tokens, "token"), plural(found.blocks, "block"));
    line!("{tokens} predicted in {blocks}\n\n{}", table(&["", "found"], &rows).trim_end())
}
