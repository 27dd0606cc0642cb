//! Sparsity accounting: which parameters count, and which ratio reaches a total.

use serde::{Deserialize, Serialize};

use crate::{Error, ModelSpec, Sparsity};

/// Parameters of a model under the three denominators in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "the three denominators")]
pub struct ParameterCounts {
    /// The Linears of routed experts only.
    pub experts: u64,
    /// All decoder Linears but the routers: attention, dense, residual and shared MLPs, experts.
    /// This is what `--sparsity` counts over.
    pub linears: u64,
    /// Everything: Linears, routers, norms, embeddings, head.
    pub all: u64,
}

impl ParameterCounts {
    /// Counts a model from its specification. Experts in a form that is not decoded count as the
    /// matrices that they stand for.
    #[must_use]
    pub fn of(spec: &ModelSpec) -> Self {
        let mut counts = Self::default();
        for part in spec.decoded().parts() {
            let parameters = part.parameters();
            counts.all += parameters;
            if part.prunable {
                counts.linears += parameters;
                if part.id.expert().is_some() {
                    counts.experts += parameters;
                }
            }
        }
        counts
    }
}

/// The ratio `s = (S·Q − R) / P` of what is left that must be zeroed so that the *achieved* total
/// is `S`: `Q` counts the denominator, `R` what was removed, `P` what may still be zeroed.
///
/// A target that removal already met or exceeded gives zero.
///
/// ```
/// use moeprune_core::{Sparsity, unstructured_ratio};
/// // Arctic: 910 experts of 104,595,456 parameters gone, 40 % of the decoder Linears asked.
/// let (q, r) = (478_092_984_320, 910 * 104_595_456);
/// let s = unstructured_ratio(Sparsity::new(0.4)?, q, r, q - r)?;
/// assert_eq!((s.value() * 1e4).round(), 2509.0);
/// # Ok::<(), moeprune_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::UnreachableSparsity`] if even zeroing nearly everything would not reach it.
pub fn unstructured_ratio(
    target: Sparsity,
    denominator: u64,
    removed: u64,
    prunable: u64,
) -> Result<Sparsity, Error> {
    let missing = target.value() * denominator as f64 - removed as f64;
    if missing <= 0.0 {
        return Ok(Sparsity::ZERO);
    }
    Sparsity::new(missing / prunable as f64).map_err(|_| Error::UnreachableSparsity {
        target: target.value(),
        denominator,
        removed,
        prunable,
        feasible: format!("less than {:.4}", (removed + prunable) as f64 / denominator as f64),
    })
}
