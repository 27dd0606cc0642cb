//! What a repair of the experts that stay did, as part of a report.

mod text;

pub use text::Repairing;
pub(super) use text::write;

use moeprune_core::repair::{
    ExpertOutcome, HeldOutError, ModelRepair, RepairText, RepairedExpert, RepairedLayer,
};
use serde::{Deserialize, Serialize};

/// From so many fitted tokens per column of the down projections on, more hardly help.
const PLENTY: f64 = 16.0;
/// Below so many fitted tokens per column there is a warning.
const FEW: f64 = 4.0;

/// What a repair did, and how far the calibration text went.
///
/// Errors are shares: the weighted square of what is missing over that of what the layer's experts
/// wrote before some were dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct RepairReport {
    /// Of all layers together.
    pub summary: RepairSummary,
    /// The texts that it was fitted to, or measured on.
    pub texts: Vec<RepairText>,
    /// One entry per layer that lost experts.
    pub layers: Vec<RepairedLayer>,
}

/// What a repair did, over all layers that lost experts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct RepairSummary {
    /// Mean over layers of the error on the tokens that weights were fitted to.
    pub fitted: HeldOutError,
    /// The same on the held-out tokens of each text; `None` of a text without any.
    pub held_out: Vec<Option<HeldOutError>>,
    /// Experts that stay, in layers that lost experts.
    pub experts: usize,
    /// Those with new weights: of layers that lacked something, and neither of the next two.
    pub changed: usize,
    /// Those that no fitted token reached: they keep their weights.
    pub without_tokens: usize,
    /// Those that made held-out tokens worse, alone or with their layer, and keep their weights.
    pub reverted: usize,
    /// Layers that would have got worse as a whole, and keep their weights.
    pub reverted_layers: Vec<usize>,
    /// The smallest and the largest ridge of an expert; `None` if none was refitted.
    pub ridge: Option<[f64; 2]>,
    /// The largest weight of an expert now over its largest before, in the expert where that grew most.
    pub growth: f64,
    /// By which share rounding new weights to codes makes more missing on held-out tokens, or fitted ones where
    /// none are held out, than there would be without, mean over layers; `None` if no new weights are in codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<f64>,
    /// Fitted tokens per column of the down projections, in the layer with the fewest.
    pub tokens_per_column: f64,
    /// The same of the expert with the fewest.
    pub least_tokens_per_column: f64,
    /// Experts with fewer than 4 fitted tokens per column.
    pub few_tokens: usize,
    /// What more text would do.
    pub samples: SamplesNeeded,
}

/// Calibration blocks that bring the layer with the fewest tokens so far; `None` if no token reaches its
/// experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct SamplesNeeded {
    /// To 4 tokens per column, below which a repair can be poor.
    pub least: Option<u64>,
    /// To 16 tokens per column, which give nearly the full effect.
    pub plenty: Option<u64>,
}

impl RepairReport {
    pub(super) fn new(repair: ModelRepair) -> Self {
        let ModelRepair { texts, layers } = repair;
        Self { summary: RepairSummary::of(&texts, &layers), texts, layers }
    }

    /// What is to be known about how far to trust the repair.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let RepairSummary { tokens_per_column, few_tokens, experts, samples, .. } = self.summary;
        let mut warnings = Vec::new();
        if few_tokens > 0 {
            let enough = match (samples.least, samples.plenty) {
                (Some(least), Some(plenty)) if tokens_per_column < PLENTY => format!(
                    "; {} give {FEW} there, and {} give {PLENTY}, from which on more hardly help",
                    self.in_blocks(least),
                    self.in_blocks(plenty)
                ),
                _ => String::new(),
            };
            warnings.push(format!(
                "Few calibration tokens for a repair: {few_tokens} of {experts} experts receive less than \
                 {FEW} per column of their down projections, which can leave much missing. The layer with \
                 the fewest has {tokens_per_column:.1} per column{enough}."
            ));
        }
        warnings.extend(self.worse_texts());
        warnings
    }

    /// Blocks, and the tokens in them.
    fn in_blocks(&self, blocks: u64) -> String {
        let tokens = self.texts.first().map_or(0, |text| text.corpus.sequence_len);
        format!("{blocks} calibration blocks ({} tokens)", blocks.saturating_mul(tokens))
    }

    /// Texts on which the repaired model lacks more than the cut one.
    fn worse_texts(&self) -> impl Iterator<Item = String> {
        let held_out = self.texts.iter().zip(&self.summary.held_out);
        let worse = held_out.filter_map(|(text, error)| Some((text, (*error)?)));
        // What looks the same is no worse.
        let differs = |error: &HeldOutError| share(error.after) != share(error.before);
        let worse = worse.filter(move |(_, e)| e.after > e.before && differs(e));
        worse.map(|(text, error)| {
            format!(
                "The repair makes {} worse: {} of what experts wrote is missing, {} without it. A text \
                 that is unlike those fitted is not repaired; fit some of its blocks too.",
                text.corpus.name,
                share(error.after),
                share(error.before)
            )
        })
    }
}

/// By which share rounding raises the error, mean over the layers that say.
fn rounding(layers: &[RepairedLayer]) -> Option<f64> {
    let errors = layers.iter().filter_map(|layer| layer.repair.rounding);
    let shares = errors.filter(|error| error.before > 0.0);
    let shares: Vec<f64> = shares.map(|error| error.after / error.before - 1.0).collect();
    (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
}

impl RepairSummary {
    /// What rounding new weights to codes costs, in words; `None` if none are in codes.
    #[must_use]
    pub fn rounding_in_words(&self) -> Option<String> {
        let rounding = self.rounding?;
        let changes = if rounding < 0.0 { "lowers" } else { "raises" };
        let on = match self.has_held_out() {
            true => "held-out tokens",
            false => "the fitted tokens, since none are held out,",
        };
        Some(format!(
            "New weights are written in the codes that the old ones are stored in, with new scales; rounding \
             {changes} what is missing on {on} by {} of what it would be without (a ratio, not percentage points).",
            share(rounding.abs())
        ))
    }

    /// Whether there are tokens that nothing was fitted to.
    pub(super) fn has_held_out(&self) -> bool {
        self.held_out.iter().any(Option::is_some)
    }

    fn of(texts: &[RepairText], layers: &[RepairedLayer]) -> Self {
        let experts = || layers.iter().flat_map(|layer| &layer.repair.experts);
        let refitted = |e: &&RepairedExpert| e.outcome == ExpertOutcome::Refitted;
        let with = |outcome| experts().filter(|e| e.outcome == outcome).count();
        let ridges = || experts().filter(refitted).map(|e| e.ridge);
        let least = layers.iter().map(|layer| layer.tokens_per_column);
        let tokens_per_column =
            if layers.is_empty() { 0.0 } else { least.fold(f64::MAX, f64::min) };
        let of_experts = || layers.iter().flat_map(tokens_per_column_of_each);
        let lacking = layers.iter().filter(|layer| layer.repair.errors.first() != Some(&0.0));
        let whole = layers.iter().filter(|layer| layer.repair.reverted);
        let held_out = |text: usize| {
            mean(layers.iter().filter_map(|layer| layer.held_out.get(text).copied().flatten()))
        };
        Self {
            fitted: mean(layers.iter().map(fitted))
                .unwrap_or(HeldOutError { before: 0.0, after: 0.0 }),
            held_out: (0..texts.len()).map(held_out).collect(),
            experts: experts().count(),
            changed: lacking.flat_map(|layer| &layer.repair.experts).filter(refitted).count(),
            without_tokens: with(ExpertOutcome::NoTokens),
            reverted: with(ExpertOutcome::Reverted),
            reverted_layers: whole.map(|layer| layer.repair.layer).collect(),
            ridge: ridges()
                .next()
                .map(|first| [ridges().fold(first, f64::min), ridges().fold(first, f64::max)]),
            growth: experts().map(|e| e.growth).fold(1.0, f64::max),
            rounding: rounding(layers),
            tokens_per_column,
            least_tokens_per_column: of_experts().reduce(f64::min).unwrap_or(0.0),
            few_tokens: of_experts().filter(|&tokens| tokens < FEW).count(),
            samples: SamplesNeeded::from(texts, tokens_per_column),
        }
    }
}

/// Fitted tokens per column of each expert of a layer, whose experts have equally many columns.
fn tokens_per_column_of_each(layer: &RepairedLayer) -> impl Iterator<Item = f64> {
    let all: u64 = layer.tokens.iter().sum();
    let experts = layer.tokens.len() as f64;
    let per_token = if all > 0 { layer.tokens_per_column * experts / all as f64 } else { 0.0 };
    layer.tokens.iter().map(move |&tokens| tokens as f64 * per_token)
}

impl SamplesNeeded {
    fn from(texts: &[RepairText], tokens_per_column: f64) -> Self {
        let fitted = texts.first().map_or(0, |text| text.fitted) as f64;
        let blocks = |wanted: f64| {
            let factor = wanted / tokens_per_column;
            (tokens_per_column > 0.0).then_some((fitted * factor).ceil() as u64)
        };
        Self { least: blocks(FEW), plenty: blocks(PLENTY) }
    }
}

/// The error of a layer on fitted tokens, before its repair and after.
fn fitted(layer: &RepairedLayer) -> HeldOutError {
    layer.fitted
}

fn mean(errors: impl Iterator<Item = HeldOutError>) -> Option<HeldOutError> {
    let (mut count, mut before, mut after) = (0_usize, 0.0, 0.0);
    for error in errors {
        count += 1;
        before += error.before;
        after += error.after;
    }
    let n = count as f64;
    (count > 0).then(|| HeldOutError { before: before / n, after: after / n })
}

fn share(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
