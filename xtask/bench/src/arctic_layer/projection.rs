//! From one layer to the whole model: arithmetic, not a measurement.

use moeprune_core::{ModelSpec, ParameterCounts};
use moeprune_synthetic::{Published, Reduction, Shape};
use serde::Serialize;

use super::ceilings::Ceilings;
use moeprune::{Recipe, timed::PartTimes};

/// Stored bytes of a weight.
const ELEMENT: u64 = 2;
/// Tokens of the default calibration: 128 blocks of 2048.
const TOKENS: u64 = 128 * 2048;

/// What all of Arctic would take at the rates that were measured on one layer.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Projection {
    pub(super) label: &'static str,
    pub(super) formula: &'static str,
    pub(super) layers: usize,
    /// Calibration tokens.
    pub(super) tokens: u64,
    /// Passes of the tokens through the model.
    pub(super) passes: u64,
    pub(super) terms: Vec<Term>,
    /// If every step hid behind the longest.
    pub(super) longest_seconds: f64,
    /// If no step hid behind another.
    pub(super) sum_seconds: f64,
}

/// Work over rate.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Term {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) work: u64,
    pub(super) rate: f64,
    pub(super) seconds: f64,
}

impl Projection {
    pub(super) fn new(
        recipe: &Recipe,
        parts: &PartTimes,
        ceilings: &Ceilings,
    ) -> Result<Self, moeprune_synthetic::Error> {
        let shape = Shape::new(Published::Arctic, &Reduction::default())?;
        let spec = shape.spec();
        let all = shape.weight_bytes();
        let removed = recipe.experts.sparsity.value();
        let kept =
            all - (ELEMENT as f64 * removed * ParameterCounts::of(spec).experts as f64) as u64;
        // Observed once; OWL reads the kept twice, once for the mean and once for the count.
        let owl = u64::from(recipe.weights.allocation.name == "owl");
        let brought = all + (1 + 2 * owl) * kept;
        // Observed, perhaps measured for OWL, and walked twice while it is pruned.
        let passes = 3 + owl;
        let flop = passes * TOKENS * flop_of_token(spec);
        let forward = (parts.trunk.work + parts.experts.work) as f64
            / (parts.trunk.seconds + parts.experts.seconds);
        let mut terms = vec![
            term("read from disk", "B", brought, ceilings.disk_read.rate),
            term(
                if ceilings.to_device.is_some() { "host to device" } else { "widen" },
                "B",
                brought,
                parts.load.rate(),
            ),
            term("forward", "FLOP", flop, forward),
            term("masks", "B", kept, parts.mask.rate()),
            term("write to disk", "B", kept, ceilings.disk_write.rate),
        ];
        if ceilings.to_host.is_some() {
            terms.insert(4, term("device to host", "B", kept, parts.fetch.rate()));
        }
        let seconds = || terms.iter().map(|term| term.seconds);
        Ok(Self {
            label: "a projection from one layer; the whole model was not run",
            formula: "between max and sum of: work / rate",
            layers: spec.layers.len(),
            tokens: TOKENS,
            passes,
            longest_seconds: seconds().fold(0.0, f64::max),
            sum_seconds: seconds().sum(),
            terms,
        })
    }
}

fn term(name: &'static str, unit: &'static str, work: u64, rate: f64) -> Term {
    Term { name, unit, work, rate, seconds: work as f64 / rate.max(f64::MIN_POSITIVE) }
}

/// FLOP of a token in the Linears of all layers: of the experts, those it is routed to.
fn flop_of_token(spec: &ModelSpec) -> u64 {
    let layer = |(l, parts): (usize, &moeprune_core::LayerSpec)| {
        let top_k = parts.moe().map_or(0, |moe| moe.top_k);
        let linears = spec.linears(l).into_iter();
        let active = linears.filter(|linear| linear.id.expert().is_none_or(|e| e < top_k));
        2 * active.map(|linear| linear.parameters()).sum::<u64>()
    };
    spec.layers.iter().enumerate().map(layer).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arctic_is_as_published() {
        let shape = Shape::new(Published::Arctic, &Reduction::default()).unwrap();
        // 17 billion active parameters, embedding and head not counted.
        let active = flop_of_token(shape.spec()) / 2;
        assert_eq!((active as f64 / 1e8).round() / 10.0, 16.9, "{active}");
    }
}
