//! What a verification found.

use moeprune_core::{
    LayerSpec, LayerTensor, LinearId, ModelSpec, OpenTotal, ParameterCounts, Part, RowRounding,
    TensorId, TotalPromise,
};
use serde::Serialize;

use super::compare::{Finding, Item};
use crate::Checkpoint;

/// All checks of a verification, and what was counted.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The checks in the order they were made. Checks that make no sense after one that failed
    /// are missing.
    pub checks: Vec<Check>,
    /// Exact zeros of each Linear of the pruned model's decoder, the routers among them.
    pub linears: Vec<LinearZeros>,
    /// Shares of removed and zero weights, if they could be counted.
    pub sparsity: Option<SparsityReport>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// What was found, or what is wrong.
    pub detail: String,
}

/// Exact zeros of one Linear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LinearZeros {
    /// Decoder layer.
    pub layer: usize,
    /// Which Linear of the pruned model.
    pub linear: LinearId,
    /// Number of weights.
    pub weights: u64,
    /// How many of them are zero.
    pub zeros: u64,
}

/// Removed and zero weights as a share of the source's, under the three denominators of
/// [`ParameterCounts`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SparsityReport {
    /// Of the routed experts.
    pub experts: f64,
    /// Of the decoder Linears without the routers.
    pub linears: f64,
    /// Of all parameters. Zeros are counted in Linears only.
    pub all: f64,
    /// What rounding may take at most, as a share of the decoder Linears: one weight a matrix, or
    /// one per row if rows are rounded down.
    pub rounding: f64,
    /// What more may be zero, as a share of the decoder Linears: weights that are zero in the source already.
    pub zero_before: f64,
    /// What fewer may be zero, as a share of the decoder Linears: weights that have no code that is zero.
    #[serde(skip_serializing_if = "is_none")]
    pub without_zero: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_none(share: &f64) -> bool {
    *share == 0.0
}

impl SparsityReport {
    /// With so many weights left of the experts, of the decoder Linears, and of all parameters.
    fn of(
        [experts, linears, all]: [u64; 3],
        counts: &ParameterCounts,
        [rounded, before, without_zero]: [u64; 3],
    ) -> Self {
        let share = |left: u64, of: u64| if of == 0 { 0.0 } else { 1.0 - left as f64 / of as f64 };
        Self {
            experts: share(experts, counts.experts),
            linears: share(linears, counts.linears),
            all: share(all, counts.all),
            rounding: rounded as f64 / counts.linears as f64,
            zero_before: before as f64 / counts.linears.max(1) as f64,
            without_zero: without_zero as f64 / counts.linears.max(1) as f64,
        }
    }
}

impl VerifyReport {
    /// Whether every check passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.passed)
    }

    pub(super) fn add(&mut self, name: &str, result: Result<String, String>) {
        let passed = result.is_ok();
        let detail = match result {
            Ok(detail) | Err(detail) => detail,
        };
        self.checks.push(Check { name: name.to_owned(), passed, detail });
    }

    pub(super) fn count_zeros(
        &mut self,
        models: (&Checkpoint, &Checkpoint),
        items: &[Item<'_>],
        findings: &[Finding],
        rounding: RowRounding,
    ) {
        let counts = ParameterCounts::of(models.0.spec());
        let mut left = Left::none_of(models, rounding);
        self.linears.extend(items.iter().zip(findings).filter_map(|(item, f)| left.add(*item, f)));
        self.linears.sort_by_key(|l| (l.layer, l.linear));
        let undecoded = undecoded_weights(models.1.spec());
        let all = [left.experts, left.linears, left.all].map(|left| left + undecoded);
        self.sparsity =
            Some(SparsityReport::of(all, &counts, [left.rounded, left.before, left.without]));
    }

    /// Compares the share over the decoder Linears with what the plan or the report asks for.
    pub(super) fn add_sparsity(&mut self, asked: Option<f64>, promised: TotalPromise) {
        let Some(got) = self.sparsity else { return };
        let found = format!(
            "{:.4} of the experts, {:.4} of the decoder Linears, {:.4} of all parameters",
            got.experts, got.linears, got.all
        );
        let result = match asked.map(|asked| (asked, promised)) {
            None => Ok(found),
            Some((_, TotalPromise::Open(why))) => {
                Ok(format!("{found}; no total to compare with, since {}", reason(why)))
            }
            Some((asked, TotalPromise::Within(tolerance)))
                if got.linears - asked > got.rounding + tolerance + got.zero_before
                    || asked - got.linears > got.rounding + tolerance + got.without_zero =>
            {
                Err(format!("{found}; but {asked:.4} of the decoder Linears was asked for"))
            }
            Some((asked, TotalPromise::Within(_))) => {
                Ok(format!("{found}; {asked:.4} of the decoder Linears was asked for"))
            }
        };
        self.add("sparsity", result);
    }
}

/// Weights of a pruned model that are not zero.
struct Left<'a> {
    source: &'a Checkpoint,
    pruned: &'a Checkpoint,
    rows_round_down: bool,
    experts: u64,
    linears: u64,
    all: u64,
    /// By how many weights the count may differ from what was asked for, by rounding.
    rounded: u64,
    /// Weights that were zero before.
    before: u64,
    /// Weights that have no code that is zero.
    without: u64,
}

impl<'a> Left<'a> {
    fn none_of((source, pruned): (&'a Checkpoint, &'a Checkpoint), rounding: RowRounding) -> Self {
        let rows_round_down = rounding == RowRounding::Floor;
        let (experts, linears, all, rounded, before, without) = (0, 0, 0, 0, 0, 0);
        Self { source, pruned, rows_round_down, experts, linears, all, rounded, before, without }
    }

    /// Adds what is left of an item, and returns its zeros if it is a Linear's weight.
    fn add(&mut self, item: Item<'_>, finding: &Finding) -> Option<LinearZeros> {
        let spec = self.source.spec();
        let weights: u64 = finding.shape.iter().map(|&dim| dim as u64).product();
        let nonzero = weights - finding.zeros.unwrap_or_default();
        let behind = |id| matches!(id, TensorId::Layer(l, _) if l >= spec.layers.len());
        if item.part().is_some_and(behind) {
            return None;
        }
        let stored_twice = spec.tied_embeddings && item.part() == Some(TensorId::LmHead);
        let of_expert = matches!(item.part(), Some(TensorId::Layer(_, LayerTensor::OfExpert(..))));
        if item.part().is_some() && !stored_twice && !of_expert {
            self.all += nonzero;
        }
        if item.is_undecoded(self.pruned) || item.is_in_codes() && finding.zeros.is_none() {
            // Weights that nothing was done to.
            let part = item.part().and_then(|id| spec.part(id.with_expert(0)));
            if part.is_some_and(|part| part.prunable) && !of_expert {
                let is_expert = item.part().and_then(TensorId::expert).is_some();
                self.linears += weights;
                self.experts += if is_expert { weights } else { 0 };
            }
            return None;
        }
        let ((layer, linear), zeros) = (item.linear()?, finding.zeros?);
        let zeros = LinearZeros { layer, linear, weights, zeros };
        if spec.part(TensorId::linear(layer, linear)).is_none_or(|part| !part.prunable) {
            return Some(zeros);
        }
        self.linears += nonzero;
        self.before += zeros.zeros.saturating_sub(finding.zeroed);
        self.without += finding.without_zero;
        let rows = finding.shape.first().map_or(0, |&rows| rows as u64);
        self.rounded += if self.rows_round_down { rows } else { 1 };
        if linear.expert().is_some() {
            self.experts += nonzero;
        }
        Some(zeros)
    }
}

/// Weights of the experts of decoder layers whose stored form is not decoded.
fn undecoded_weights(spec: &ModelSpec) -> u64 {
    let of_layer = |layer: &LayerSpec| {
        let Some(moe) = layer.moe().filter(|moe| !moe.opaque.is_empty()) else { return 0 };
        let width = moe.expert_width(spec.hidden);
        let parts = moe.expert.parts(0, width, |p| LinearId::Expert(0, p));
        let each: u64 = parts.iter().filter(|part| part.prunable).map(Part::parameters).sum();
        each * moe.experts as u64
    };
    spec.layers.iter().map(of_layer).sum()
}

/// Which choice makes the outcome differ from the total that a plan names.
fn reason(why: OpenTotal) -> &'static str {
    match why {
        OpenTotal::GivenRatio => "the recipe gives the ratio of what is left (`weights.ratio`)",
        OpenTotal::UnweightedMean => {
            "the layers' ratios keep an unweighted mean (`weights.allocation.mean`)"
        }
        OpenTotal::DenseIdleExperts => {
            "experts without tokens are left dense (`weights.idle_experts`)"
        }
    }
}
