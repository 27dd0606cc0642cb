//! One pruning, carried out and measured.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use moeprune::{
    CalibrationTexts, Evaluation, Execution, FromRecipe, Job, OtherText, OutputPlace, Pipeline,
    Resume, Silent,
    checkpoint::Checkpoint,
    evaluate,
    evaluation::{PERPLEXITY, Score},
    prune,
    report::RepairSummary,
};
use serde::{Deserialize, Serialize};

use super::cells::{Cell, Text};
use crate::embedded;

/// What is left of a model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Measured {
    /// Share of the questions answered right, strict match.
    pub(super) accuracy: f64,
    /// Its standard error over the questions.
    pub(super) stderr: f64,
    /// Nats per token of held-out text, by what the text is about.
    pub(super) nats: BTreeMap<String, f64>,
    /// Share of the decoder Linears' weights that went or is zero.
    pub(super) achieved: f64,
    /// What the repair did, if there was one.
    pub(super) repair: Option<RepairSummary>,
    /// Of pruning and measuring.
    pub(super) seconds: f64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ± {:.1} %", 100.0 * self.accuracy, 100.0 * self.stderr)?;
        self.nats.iter().try_for_each(|(text, nats)| write!(f, ", {nats:.4} nats ({text})"))
    }
}

/// A model, and what to measure its prunings with.
pub(super) struct Bench<'a> {
    pub(super) source: Checkpoint,
    /// Texts of one kind of problems.
    pub(super) kinds: &'a Path,
    /// Questions.
    pub(super) limit: usize,
    /// Where a pruned model lies while it is measured.
    pub(super) scratch: PathBuf,
}

impl Bench<'_> {
    pub(super) fn measure(&self, cell: &Cell) -> Result<Measured> {
        let began = Instant::now();
        if cell.is_unpruned() {
            let texts = [Text::All, Text::Earning, Text::Having];
            return self.score(&self.source, &texts, began);
        }
        self.clear()?;
        let recipe = cell.recipe()?;
        let pipeline = Pipeline::from_recipe(&recipe)?;
        let to = OutputPlace { origin: &self.source, path: &self.scratch, resume: Resume::No };
        let mut job = Job {
            model: &self.source,
            pipeline: &pipeline,
            execution: &Execution::cpu(),
            progress: &mut Silent,
        };
        let (text, other) = (self.calibration(cell.text), self.calibration(Text::Having));
        let fitted = cell.blocks / 8;
        let others = match cell.text {
            Text::EarningWithHaving => &[OtherText { path: &other, fitted }][..],
            _ => &[],
        };
        let report =
            prune(&mut job, to, CalibrationTexts { text: (&text).into(), others }, &recipe)?;
        let texts = match cell.text {
            Text::All => vec![Text::All],
            _ => vec![Text::Earning, Text::Having],
        };
        let pruned = Checkpoint::open(&self.scratch)?;
        let measured = self.score(&pruned, &texts, began)?;
        self.clear()?;
        let repair = report.repair.map(|repair| repair.summary);
        Ok(Measured { achieved: report.sparsity.achieved.linears, repair, ..measured })
    }

    fn clear(&self) -> Result<()> {
        let there = self.scratch.exists();
        let what = || format!("cannot remove {}", self.scratch.display());
        if there { fs::remove_dir_all(&self.scratch).with_context(what) } else { Ok(()) }
    }

    fn calibration(&self, text: Text) -> PathBuf {
        match text {
            Text::All => embedded::calibration(),
            Text::Earning | Text::EarningWithHaving => self.kinds.join("earning.jsonl"),
            Text::Having => self.kinds.join("having.jsonl"),
        }
    }

    fn held_out(&self, text: Text) -> PathBuf {
        match text {
            Text::All => embedded::held_out(),
            kind => self.kinds.join(format!("{}-heldout.txt", kind.name())),
        }
    }

    fn score(&self, model: &Checkpoint, texts: &[Text], began: Instant) -> Result<Measured> {
        let answers = self.evaluate(model, "gsm8k_zeroshot", &embedded::test_set())?;
        let Score::Answers(answers) = answers else { bail!("questions have no answers") };
        let strict = answers.metrics["strict-match"];
        let mut nats = BTreeMap::new();
        for &text in texts {
            let surprise = self.evaluate(model, PERPLEXITY, &self.held_out(text))?;
            let Score::Perplexity(surprise) = surprise else { bail!("text has no perplexity") };
            nats.insert(text.name().to_owned(), surprise.nll);
        }
        Ok(Measured {
            accuracy: strict.mean,
            stderr: strict.stderr.unwrap_or(0.0),
            nats,
            achieved: 0.0,
            repair: None,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    fn evaluate(&self, model: &Checkpoint, task: &str, data: &Path) -> Result<Score> {
        let what = Evaluation {
            task,
            data,
            limit: (task != PERPLEXITY).then_some(self.limit),
            fewshot: None,
            fewshot_data: None,
            batch: 64,
            sequence_len: None,
        };
        Ok(evaluate(model, &what, &Execution::cpu(), &mut Silent)?)
    }
}
