//! Over how many devices a model divides evenly.

use moeprune_core::{LinearId, MlpProjection, ModelSpec, Part};
use serde::Serialize;

use super::experts::experts_of;

/// Usual numbers of devices that experts are spread over.
const EXPERT_PARALLEL: [usize; 5] = [2, 4, 8, 16, 32];

/// Usual numbers of devices that each matrix is split over.
const TENSOR_PARALLEL: [usize; 3] = [2, 4, 8];

/// Over how many devices a model divides evenly, of the usual numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Parallel {
    /// Expert-parallel sizes that divide the number of experts of every layer.
    pub experts: Vec<usize>,
    /// Tensor-parallel sizes that divide the widths of MLPs, and heads where they are known. Removing
    /// experts does not change them.
    pub tensors: Vec<usize>,
}

impl Parallel {
    /// Of a model with the experts that `spec` says.
    #[must_use]
    pub fn of(spec: &ModelSpec) -> Self {
        let counts = experts_of(spec);
        let splits = widths(spec);
        let divides = |size: usize, numbers: &[usize]| {
            !numbers.is_empty() && numbers.iter().all(|number| number % size == 0)
        };
        let of = |sizes: &[usize], numbers: &[usize]| {
            sizes.iter().copied().filter(|&size| divides(size, numbers)).collect()
        };
        Self { experts: of(&EXPERT_PARALLEL, &counts), tensors: of(&TENSOR_PARALLEL, &splits) }
    }
}

/// What tensor parallelism splits: widths inside MLPs, and heads of attention. Key-value heads are not
/// among them, since engines repeat those.
fn widths(spec: &ModelSpec) -> Vec<usize> {
    let mut widths = Vec::new();
    for (number, layer) in spec.layers.iter().enumerate() {
        let parts = spec.layer_parts(number);
        let shapes = parts.iter().filter_map(Part::linear_shape);
        widths.extend(shapes.filter(|shape| is_down(shape.id)).map(|shape| shape.cols));
        widths.extend(layer.moe().map(|moe| moe.expert.inner));
        widths.push(layer.attention.heads());
    }
    widths.retain(|&width| width > 0);
    widths
}

fn is_down(id: LinearId) -> bool {
    matches!(
        id,
        LinearId::Dense(MlpProjection::Down)
            | LinearId::Shared(_, MlpProjection::Down)
            | LinearId::Residual(MlpProjection::Down)
    )
}

/// Sizes as people list them.
pub(super) fn listed(sizes: &[usize]) -> String {
    if sizes.is_empty() {
        return "none".into();
    }
    sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
