//! Models that an engine serves, beside prunings that are measured here.

use std::time::Instant;

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{
    ModelSpec, ParameterCounts, REPORT_FILE,
    comparison::{Cut, UNPRUNED},
};

use super::{Measures, accuracy, file_name, in_words, texts};
use crate::{
    Error, Report, Study,
    evaluation::{ServedModel, evaluate_served},
};

/// A model that is served.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ServedVariant<'a> {
    /// The checkpoint that the engine loaded; none for the model of the study.
    pub checkpoint: Option<&'a Checkpoint>,
    /// The server.
    pub model: &'a mut ServedModel,
}

impl Study<'_> {
    /// Asks a served model the questions. What it has lost is read off its checkpoint and, if `prune` or `apply` wrote
    /// it, the report beside it; perplexity is not measured.
    ///
    /// # Errors
    /// If there are no questions, the checkpoint is not of the study's model, or the server cannot be asked.
    pub fn measure_served(
        &mut self,
        served: ServedVariant<'_>,
        measures: &Measures<'_>,
    ) -> Result<Cut, Error> {
        let started = Instant::now();
        let Some(task) = &measures.task else {
            return Err(Error::Request(
                "a served model is asked questions: give --task with --data".into(),
            ));
        };
        let mut cut = match served.checkpoint {
            None => unpruned(self.checkpoint),
            Some(checkpoint) => of_checkpoint(self.checkpoint, checkpoint)?,
        };
        let score = evaluate_served(served.model, task, self.progress)?;
        (cut.accuracy, cut.texts) = (accuracy(&score, measures.metric)?, texts(&score));
        cut.seconds = started.elapsed().as_secs_f64();
        self.progress.note(&format!("{}: {}", cut.criterion, in_words(&cut)));
        Ok(cut)
    }
}

fn experts(spec: &ModelSpec) -> Vec<usize> {
    spec.layers.iter().filter_map(|layer| layer.moe()).map(|moe| moe.experts).collect()
}

fn unpruned(model: &Checkpoint) -> Cut {
    let experts = experts(model.spec());
    let count = experts.iter().sum::<usize>() as u64;
    Cut {
        criterion: UNPRUNED.to_owned(),
        expert_share: 0.0,
        total_share: 0.0,
        experts_kept: count,
        experts: count,
        parameters: ParameterCounts::of(model.spec()).all,
        bytes: model.tensors().map(|tensor| tensor.bytes).sum(),
        accuracy: None,
        perplexity: None,
        divergence: None,
        texts: None,
        seconds: 0.0,
        layer_sparsity: Vec::new(),
        kept: experts.into_iter().map(|experts| (0..experts).collect()).collect(),
    }
}

/// What a checkpoint has lost of the study's model.
fn of_checkpoint(model: &Checkpoint, pruned: &Checkpoint) -> Result<Cut, Error> {
    let (before, after) = (experts(model.spec()), experts(pruned.spec()));
    let fewer = before.len() == after.len() && before.iter().zip(&after).all(|(b, a)| a <= b);
    if !fewer || model.spec().layers.len() != pruned.spec().layers.len() {
        return Err(Error::Request(format!(
            "{} was not cut from {}: it has other layers, or more experts",
            pruned.dir().display(),
            model.dir().display()
        )));
    }
    let whole = unpruned(model);
    let kept = after.iter().sum::<usize>() as u64;
    let mut cut = Cut {
        criterion: file_name(pruned.dir()),
        expert_share: 1.0 - kept as f64 / whole.experts.max(1) as f64,
        experts_kept: kept,
        experts: whole.experts,
        parameters: ParameterCounts::of(pruned.spec()).all,
        kept: Vec::new(),
        ..unpruned(pruned)
    };
    let report = std::fs::read(pruned.dir().join(REPORT_FILE)).ok();
    let report = report.and_then(|json| serde_json::from_slice::<Report>(&json).ok());
    if let Some(report) = report {
        let achieved = report.sparsity.achieved;
        cut.parameters = (whole.parameters as f64 * (1.0 - achieved.all)).round() as u64;
        if report.recipe.prunes_weights() {
            cut.total_share = achieved.linears;
        }
        let decoder = |layer: &&crate::report::LayerReport| layer.index < model.spec().layers.len();
        let layers = || report.layers.iter().filter(decoder);
        cut.layer_sparsity = layers().map(|layer| layer.achieved).collect();
        cut.kept = layers().filter(|l| l.experts_before > 0).map(|l| l.kept.clone()).collect();
    }
    Ok(cut)
}
