//! What sums of a layer take in memory, from shapes alone.

use std::collections::BTreeMap;

use moeprune_core::{
    InputMoments, LinearId, LinearShape, ModelSpec, RoutingSums,
    observation::{Kind, Shape, Statistics, WideSum},
};

/// Bytes of the sums that a [`LayerObserver`](crate::LayerObserver) takes.
///
/// ```
/// # use moeprune_core::ModelSpec;
/// use moeprune_capture::SumsSize;
///
/// /// What an observation of a model takes in memory.
/// fn observation_bytes(spec: &ModelSpec) -> u64 {
///     (0..spec.layers.len()).map(|layer| SumsSize::of(spec, layer).rounded).sum()
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SumsSize {
    /// As they stay in an observation: eight bytes per number.
    pub rounded: u64,
    /// While a layer runs: what is summed has a wide sum of all blocks beside the number of the current one.
    pub exact: u64,
    /// The products of all pairs of inputs of the Linears outside of experts, four bytes each.
    pub trunk_hessians: u64,
    /// The same of the expert that has most.
    pub expert_hessians: u64,
    /// The largest matrix of these.
    pub largest_hessian: u64,
}

impl SumsSize {
    /// Of a layer; of none that the model has, nothing.
    #[must_use]
    pub fn of(spec: &ModelSpec, layer: usize) -> Self {
        let Some(this) = spec.layers.get(layer) else { return Self::default() };
        let mut size = Self::default();
        if let Some(moe) = this.moe() {
            size.add_group::<RoutingSums>((moe.experts, moe.expert_width(spec.hidden)));
        }
        // One per site, which several Linears can read.
        let sites: BTreeMap<LinearId, usize> =
            spec.linears(layer).iter().map(|l: &LinearShape| (l.reads, l.cols)).collect();
        let mut of_experts = BTreeMap::<usize, u64>::new();
        for (site, features) in sites {
            size.add_group::<InputMoments>((0, features));
            let hessian = (features * features * size_of::<f32>()) as u64;
            size.largest_hessian = size.largest_hessian.max(hessian);
            match site.expert() {
                None => size.trunk_hessians += hessian,
                Some(expert) => *of_experts.entry(expert).or_default() += hessian,
            }
        }
        size.expert_hessians = of_experts.into_values().max().unwrap_or_default();
        size
    }

    /// Adds a group about so many experts, whose features are so many.
    fn add_group<S: Statistics>(&mut self, (experts, features): (usize, usize)) {
        for row in S::ROWS {
            let numbers = match row.shape {
                Shape::Scalar => 1,
                Shape::PerExpert => experts,
                Shape::PerPair => experts * experts,
                Shape::PerExpertFeature => experts * features,
                Shape::PerInputFeature => features,
            } as u64;
            let wide = match row.kind {
                Kind::Sum | Kind::SignedSum => size_of::<WideSum>() as u64,
                Kind::Constant | Kind::Count | Kind::Max => 0,
            };
            let each = size_of::<f64>() as u64;
            self.rounded += numbers * each;
            self.exact += numbers * (each + wide);
        }
    }
}
