//! What the unstructured stage of a plan promises of its result.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What was asked of the unstructured stage beside its ratios: what `apply` does, and what a check of
/// its result may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a new field is a new version")]
pub struct Promises {
    /// Whether the total sparsity is met.
    pub total: TotalPromise,
    /// Whether routers are pruned like any Linear. They count towards no total.
    pub zero_routers: bool,
    /// What an expert gets that no calibration token reached.
    pub idle_experts: IdleExperts,
    /// How a row's share is rounded to whole weights.
    pub rounding: RowRounding,
    /// Where input statistics come from.
    pub statistics: StatisticsSource,
}

/// Whether a total sparsity is met.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a file format; a new variant is a new version")]
pub enum TotalPromise {
    /// By no more than this share of the decoder Linears it is missed, rounding to whole weights
    /// aside.
    Within(f64),
    /// Something else was asked for, at any total.
    Open(OpenTotal),
}

/// Why a total may be missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a file format; a new variant is a new version")]
pub enum OpenTotal {
    /// The ratio of what is left was given.
    GivenRatio,
    /// The layers' ratios do not keep the mean over weights.
    UnweightedMean,
    /// Experts without tokens are left dense.
    DenseIdleExperts,
}

impl TotalPromise {
    /// The tolerance of totals that are solved for.
    pub const SOLVED: Self = Self::Within(5e-4);
}

/// What an expert gets that no calibration token reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a file format; a new variant is a new version")]
pub enum IdleExperts {
    /// Pruned by magnitude at the same ratio.
    #[default]
    Magnitude,
    /// Left as it is, so that the total is missed.
    Dense,
}

/// How a row's share is rounded to whole weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a file format; a new variant is a new version")]
pub enum RowRounding {
    /// The matrix loses its share up to one weight.
    #[default]
    Exact,
    /// Each row loses up to one weight too few.
    Floor,
}

/// Where input statistics come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a file format; a new variant is a new version")]
pub enum StatisticsSource {
    /// Inputs that went through the pruned layers before.
    #[default]
    Sequential,
    /// An observation of the unpruned model.
    Stored,
}

impl Default for Promises {
    fn default() -> Self {
        Self {
            total: TotalPromise::SOLVED,
            zero_routers: false,
            idle_experts: IdleExperts::default(),
            rounding: RowRounding::default(),
            statistics: StatisticsSource::default(),
        }
    }
}

impl Promises {
    /// What plans and reports without promises say in their recipe: those of version 0.1.0. `None` if
    /// the recipe says nothing about weights.
    #[must_use]
    pub fn of_recipe(recipe: &Value) -> Option<Self> {
        let weights = recipe.get("weights").filter(|weights| weights.is_object())?;
        let idle_experts = match weights["idle_experts"] == "dense" {
            true => IdleExperts::Dense,
            false => IdleExperts::Magnitude,
        };
        let total = if !weights["ratio"].is_null() {
            TotalPromise::Open(OpenTotal::GivenRatio)
        } else if weights["allocation"]["mean"] == "reference" {
            TotalPromise::Open(OpenTotal::UnweightedMean)
        } else if idle_experts == IdleExperts::Dense {
            TotalPromise::Open(OpenTotal::DenseIdleExperts)
        } else {
            TotalPromise::SOLVED
        };
        Some(Self {
            total,
            zero_routers: weights["prune_router"] == true,
            idle_experts,
            rounding: match weights["rounding"] == "floor" {
                true => RowRounding::Floor,
                false => RowRounding::Exact,
            },
            statistics: match weights["statistics"] == "stored" {
                true => StatisticsSource::Stored,
                false => StatisticsSource::Sequential,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn recipes_of_the_first_version() {
        let check = |weights: Value, expected: Option<Promises>| {
            assert_eq!(Promises::of_recipe(&json!({ "weights": weights })), expected);
        };
        let usual = Promises::default();
        let open = TotalPromise::Open;
        check(Value::Null, None);
        check(json!({}), Some(usual));
        check(json!({ "prune_router": true }), Some(Promises { zero_routers: true, ..usual }));
        check(
            json!({ "rounding": "floor" }),
            Some(Promises { rounding: RowRounding::Floor, ..usual }),
        );
        check(
            json!({ "statistics": "stored" }),
            Some(Promises { statistics: StatisticsSource::Stored, ..usual }),
        );
        check(
            json!({ "ratio": 0.5 }),
            Some(Promises { total: open(OpenTotal::GivenRatio), ..usual }),
        );
        check(
            json!({ "allocation": { "name": "owl", "mean": "reference" } }),
            Some(Promises { total: open(OpenTotal::UnweightedMean), ..usual }),
        );
        check(
            json!({ "idle_experts": "dense" }),
            Some(Promises {
                total: open(OpenTotal::DenseIdleExperts),
                idle_experts: IdleExperts::Dense,
                ..usual
            }),
        );
    }
}
