//! About how much memory, disk and time a run will take, from headers alone.

use moeprune_core::{ModelSpec, Part, Sparsity, StatisticsSource};
use serde::Serialize;

use crate::{
    ExpertStage, MemoryNeed, Model, Pipeline, PruneRequest, Rates, RunKind, TextSize, WeightTarget,
};

/// What a run reads, writes and computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Work {
    /// How often the calibration tokens go through the model.
    pub passes: u64,
    /// How often hidden states are kept on disk between all layers.
    pub walks: u64,
    /// Bytes of weights that are read.
    pub read: u64,
    /// Bytes of weights that are written.
    pub written: u64,
}

/// About what a run takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Estimate {
    /// At most so many bytes of memory on the CPU ([`MemoryNeed::total`]).
    pub memory_bytes: u64,
    /// About so many bytes on disk: the result, and hidden states between layers, twice for a moment.
    pub disk_bytes: u64,
    /// About so many seconds.
    pub seconds: f64,
    /// Floating-point operations of products.
    pub operations: f64,
    /// What that is for.
    pub work: Work,
}

impl Work {
    /// Of observing a model.
    #[must_use]
    pub fn observing(model: &dyn Model) -> Self {
        Self { passes: 1, walks: 1, read: model.weight_bytes(), written: 0 }
    }

    /// Of pruning a model in one go; `None` where the number of passes depends on what is found, as in a
    /// search over subsets of experts. `calibrated`: whether there is calibration text.
    #[must_use]
    pub fn pruning(
        model: &dyn Model,
        pipeline: &Pipeline,
        request: &PruneRequest,
        calibrated: bool,
    ) -> Option<Self> {
        let share = request.experts.share;
        let stored = request.promises.statistics == StatisticsSource::Stored;
        let listed = match &pipeline.experts {
            ExpertStage::Searched { .. } if share > Sparsity::ZERO => return None,
            stage => matches!(stage, ExpertStage::Listed(_)),
        };
        let mut work = Self::default();
        if calibrated && (share > Sparsity::ZERO && !listed || stored) {
            work = Self::observing(model);
        }
        if matches!(pipeline.experts, ExpertStage::Greedy { .. }) && share > Sparsity::ZERO {
            // Its own pass. What all experts make of a few tokens is left out.
            work.passes += 1;
            work.read += model.weight_bytes();
        }
        let kept = bytes_left(model, share);
        if matches!(pipeline.experts, ExpertStage::InTurn(_)) && share > Sparsity::ZERO {
            // Each layer once more, without what it lost.
            work.passes += 1;
            work.read += kept;
        }
        work.read += kept;
        work.written = kept;
        if request.weights != WeightTarget::Nothing {
            let runs = pipeline.weights.needs().inputs && !stored;
            if pipeline.allocator.outlier_threshold().is_some() {
                // Scores are summed, and then counted.
                work.read += 2 * kept;
                work.passes += u64::from(runs);
                work.walks += u64::from(runs);
            }
            // With the weights as they are, and zeroed.
            work.passes += 2 * u64::from(runs);
            work.walks += u64::from(runs);
        }
        Some(work)
    }
}

impl Estimate {
    /// Of `work` with so much calibration text at these rates.
    ///
    /// ```text
    /// seconds = (read + written + walks · layers · tokens · hidden · 4 B) / disk + passes · tokens · 2 · active / compute
    /// ```
    ///
    /// where `active` counts the weights that a token is multiplied by in all layers
    /// ([`active_parameters`]). The terms overlap in part, which makes a run faster; scores of attention
    /// and what is done to each number in turn are left out, which makes it slower.
    #[must_use]
    pub fn of(model: &dyn Model, work: Work, text: TextSize, rates: Rates) -> Self {
        let spec = model.spec();
        let tokens = if work.passes == 0 { 0 } else { text.tokens };
        let text = TextSize { tokens, ..text };
        let kind = if work.written > 0 { RunKind::Prune } else { RunKind::Observe };
        let hidden = tokens * spec.hidden as u64 * 4;
        let kept_between = work.walks as f64 * spec.layers.len() as f64 * hidden as f64;
        let moved = work.read as f64 + work.written as f64 + kept_between;
        let operations = work.passes as f64 * tokens as f64 * 2.0 * active_parameters(spec);
        Self {
            memory_bytes: MemoryNeed::of(model, text, kind).total(),
            disk_bytes: work.written + 2 * hidden,
            seconds: moved / rates.disk + operations / rates.compute,
            operations,
            work,
        }
    }

    /// The time in words, to few figures.
    #[must_use]
    pub fn time(&self) -> String {
        duration(self.seconds)
    }
}

/// Weights that a token is multiplied by in the decoder's layers: all but those of the experts that it is
/// not routed to.
#[must_use]
pub fn active_parameters(spec: &ModelSpec) -> f64 {
    let mut active = 0.0;
    for layer in 0..spec.layers.len() {
        let moe = spec.moe_of(layer);
        let routed = moe.map_or(1.0, |moe| moe.top_k as f64 / moe.experts.max(1) as f64);
        for shape in spec.layer_parts(layer).iter().filter_map(Part::linear_shape) {
            let share = if shape.id.expert().is_some() { routed } else { 1.0 };
            active += share * shape.parameters() as f64;
        }
    }
    active
}

/// About the bytes of weights that are left without a share of the experts.
pub(crate) fn bytes_left(model: &dyn Model, share: Sparsity) -> u64 {
    let parts = model.spec().parts();
    let experts = parts.iter().filter(|part| part.id.expert().is_some());
    let bytes: u64 = experts.map(|part| model.stored_bytes(part.id)).sum();
    model.weight_bytes().saturating_sub((bytes as f64 * share.value()) as u64)
}

/// To few figures: it is an estimate.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "1 s".into(),
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 36_000.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |seconds, expected: &str| assert_eq!(duration(seconds), expected);
        check(0.0, "1 s");
        check(12.4, "12 s");
        check(89.0, "89 s");
        check(600.0, "10 min");
        check(9000.0, "2.5 h");
        check(400_000.0, "111 h");
    }
}
