//! About how much memory, disk and time a repair will take.

use moeprune_core::{ModelSpec, MoeSpec, RepairPasses, bytes_in_words};
use serde::Serialize;

use super::RepairCost;
use crate::{
    Estimate, MemoryNeed, Model, Rates, RunKind, TextSize, active_parameters, estimate::duration,
    in_codes::codes_of_repaired,
};

/// What the repair of a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RepairEstimate {
    /// At most so many bytes of memory on the CPU.
    pub memory_bytes: u64,
    /// So many bytes on disk: new weights until the result is written, hidden states twice for a moment,
    /// and what one layer keeps in files while it is repaired.
    pub disk_bytes: u64,
    /// Floating-point operations.
    pub operations: f64,
    /// Bytes that are read and written.
    pub moved: f64,
    /// The fewest fitted tokens of a layer per column of its down projections.
    pub tokens_per_column: f64,
    /// About so many seconds.
    pub seconds: f64,
    /// Bytes that one layer keeps in files while it is repaired.
    in_files: u64,
}

/// How much text a repair goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct RepairTextSize {
    /// Tokens that it is fitted to.
    pub fitted: u64,
    /// Others, that it is measured on.
    pub held_out: u64,
    /// Tokens of the longest block.
    pub block: u64,
}

impl RepairTextSize {
    fn all(self) -> u64 {
        self.fitted + self.held_out
    }
}

/// A layer and how many of its experts stay.
#[derive(Clone, Copy)]
struct LayerShape<'s> {
    spec: &'s ModelSpec,
    moe: &'s MoeSpec,
    kept: usize,
    /// Of codes that new weights are written in.
    bits: Option<u32>,
}

/// Below so many fitted tokens per column a repair can leave much missing.
const FEW: f64 = 4.0;

impl RepairEstimate {
    /// Of a model whose layer `l` keeps `kept(l)` experts, on so many tokens, by a repair that goes through them so
    /// often.
    #[must_use]
    pub fn of(
        model: &dyn Model,
        kept: impl Fn(usize) -> usize,
        tokens: RepairTextSize,
        passes: RepairPasses,
        rates: Rates,
    ) -> Self {
        let spec = model.spec();
        let loses = |layer: usize| spec.moe_of(layer).filter(|moe| kept(layer) < moe.experts);
        let kept = |layer| loses(layer).map(|_| kept(layer));
        Self::of_layers(model, kept, tokens, passes, rates)
    }

    /// Of changing what is left after weights were zeroed, in a model whose layer `l` keeps `kept(l)`
    /// experts: these are all repaired, whether any went or not.
    #[must_use]
    pub fn of_refit(
        model: &dyn Model,
        kept: impl Fn(usize) -> usize,
        tokens: RepairTextSize,
        passes: RepairPasses,
        rates: Rates,
    ) -> Self {
        Self::of_layers(model, |layer| Some(kept(layer)), tokens, passes, rates)
    }

    /// Of a model in which the layers with experts are repaired for which `kept` says how many stay.
    fn of_layers(
        model: &dyn Model,
        kept: impl Fn(usize) -> Option<usize>,
        tokens: RepairTextSize,
        passes: RepairPasses,
        rates: Rates,
    ) -> Self {
        let spec = model.spec();
        let bits = codes_of_repaired(model).and_then(|stored| stored.bits);
        let mut all = Self::of_pass(model, tokens);
        for layer in 0..spec.layers.len() {
            if let (Some(moe), Some(kept)) = (spec.moe_of(layer), kept(layer)) {
                all.add_layer(LayerShape { spec, moe, kept, bits }, tokens, passes, rates);
            }
        }
        all.finish(model, tokens, rates)
    }

    /// Of the blocks' way through a model none of whose layers is repaired.
    fn of_pass(model: &dyn Model, tokens: RepairTextSize) -> Self {
        let (spec, tokens) = (model.spec(), tokens.all());
        let hidden = tokens * 4 * spec.hidden as u64;
        Self {
            memory_bytes: 0,
            disk_bytes: 0,
            operations: 2.0 * tokens as f64 * active_parameters(spec),
            moved: model.weight_bytes() as f64 + (spec.layers.len() as u64 * hidden) as f64,
            tokens_per_column: f64::INFINITY,
            seconds: 0.0,
            in_files: 0,
        }
    }

    fn add_layer(
        &mut self,
        LayerShape { spec, moe, kept, bits }: LayerShape<'_>,
        text: RepairTextSize,
        passes: RepairPasses,
        rates: Rates,
    ) {
        let tokens = text.all();
        let cost = RepairCost::of_layer(spec, moe, kept, tokens, passes);
        let cost = bits.map_or(cost, |bits| cost.in_codes(moe, bits));
        let holding = cost.holding(rates);
        // Experts run once with those that go among them.
        self.operations += cost.operations(holding) - once(moe, spec, tokens);
        self.moved += cost.moved(holding);
        self.disk_bytes += cost.weight_bytes as u64;
        let of_fitted = RepairCost::of_layer(spec, moe, kept, text.fitted, passes);
        self.tokens_per_column = self.tokens_per_column.min(of_fitted.tokens_per_column);
        self.in_files = self.in_files.max(cost.disk(holding) as u64);
        self.memory_bytes = self.memory_bytes.max(solving_bytes(spec, moe, tokens, passes));
    }

    /// From what layers take to what the run does.
    fn finish(mut self, model: &dyn Model, text: RepairTextSize, rates: Rates) -> Self {
        let tokens = text.all();
        let hidden = tokens * 4 * model.spec().hidden as u64;
        let text = TextSize { tokens, block: text.block };
        let need = MemoryNeed::of(model, text, RunKind::Observe);
        self.disk_bytes += 2 * hidden + self.in_files;
        self.memory_bytes += need.total() - need.hidden_states + (need.copies + 2) * hidden;
        self.seconds = self.moved / rates.disk + self.operations / rates.compute;
        self
    }

    /// A whole run that has this repair besides.
    #[must_use]
    pub fn added_to(&self, run: Estimate) -> Estimate {
        Estimate {
            memory_bytes: run.memory_bytes.max(self.memory_bytes),
            disk_bytes: run.disk_bytes + self.disk_bytes,
            seconds: run.seconds + self.seconds,
            ..run
        }
    }

    /// The time in words, to few figures.
    #[must_use]
    pub fn time(&self) -> String {
        duration(self.seconds)
    }

    /// What a user reads before the repair begins.
    #[must_use]
    pub fn note(&self) -> String {
        format!(
            "the repair takes one pass of all blocks, {} of operations, up to {} of memory and {} on disk: \
             about {}; {:.1} tokens per column of the down projections",
            operations(self.operations),
            bytes_in_words(self.memory_bytes),
            bytes_in_words(self.disk_bytes),
            self.time(),
            self.tokens_per_column
        )
    }

    /// The warning about too few tokens, and how many calibration blocks would do, where there are `samples`.
    #[must_use]
    pub fn few_tokens(&self, samples: usize) -> Option<String> {
        let tokens = self.tokens_per_column;
        let blocks = (samples as f64 * FEW / tokens).ceil();
        (tokens < FEW && tokens > 0.0).then(|| {
            format!(
                "warning: {tokens:.1} tokens per column are few for a repair; about --samples {blocks} give \
                 {FEW}, below which much can stay missing"
            )
        })
    }
}

/// Operations of running the experts of a layer on the tokens that are routed to them, which
/// [`active_parameters`] counts already.
fn once(moe: &MoeSpec, spec: &ModelSpec, tokens: u64) -> f64 {
    let matrices = moe.expert.projections().len() as f64;
    let parameters = matrices * moe.expert.inner as f64 * moe.expert_width(spec.hidden) as f64;
    2.0 * parameters * tokens as f64 * moe.top_k as f64
}

/// Bytes while an expert is refitted: its activations, a Gram matrix and its factors, right-hand sides in
/// `f64`, and weights as they were, are and become.
fn solving_bytes(spec: &ModelSpec, moe: &MoeSpec, tokens: u64, passes: RepairPasses) -> u64 {
    let (inner, width) = (moe.expert.inner as u64 + 1, moe.expert_width(spec.hidden) as u64);
    let activations = (4 * tokens * inner).min(passes.held_bytes);
    activations + 4 * 8 * inner * inner + (2 * 8 + 5 * 4) * inner * width
}

fn operations(count: f64) -> String {
    match count {
        c if c < 1e12 => format!("{:.1} GFLOP", c / 1e9),
        c if c < 1e15 => format!("{:.1} TFLOP", c / 1e12),
        c => format!("{:.1} PFLOP", c / 1e15),
    }
}
