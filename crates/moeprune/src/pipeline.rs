//! The stages of a run as one struct of public fields.

use moeprune_cluster::{Agglomerative, KMeans, ReferenceLinkage};
use moeprune_core::{
    ExpertClustering, ExpertSelector, ExpertSimilarity, SparsityAllocator, WeightScorer,
};
use moeprune_score::{MaskPattern, Owl, PerRow, Rounding, Uniform, Wanda};
use moeprune_select::NearestToMean;
use moeprune_similarity::{CoActivation, Mixed, RouterDistance};

use crate::{
    Recipe,
    recipe::{Allocation, Linkage, OwlMean, RowRounding, Scorer, Similarity},
};

/// The implementation of every stage.
///
/// # Using the default
///
/// [`Pipeline::arctic`] holds what the default recipe names; [`Pipeline::from_recipe`] what any
/// recipe names.
///
/// # Making a custom stage
///
/// Implement the stage's trait from [`moeprune_core`] and override one field:
///
/// ```
/// use moeprune::{
///     Pipeline,
///     core::{DistanceMatrix, ExpertSimilarity, LayerBehaviour, StageError},
/// };
///
/// /// Distance by the angle between router rows.
/// #[derive(Debug)]
/// struct Angle;
///
/// impl ExpertSimilarity for Angle {
///     fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> {
///         let dot = |a: &[f32], b: &[f32]| -> f64 {
///             a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
///         };
///         Ok(DistanceMatrix::from_fn(layer.experts(), |i, j| {
///             let (a, b) = (layer.router.row(i), layer.router.row(j));
///             1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
///         })?)
///     }
/// }
///
/// let pipeline = Pipeline { similarity: Box::new(Angle), ..Pipeline::arctic() };
/// # let _ = pipeline;
/// ```
///
/// # Which elements are required?
///
/// All of them are used when both stages run; the last four only when weights are pruned.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "overriding one field with `..` is the point")]
pub struct Pipeline {
    /// How alike two experts are.
    pub similarity: Box<dyn ExpertSimilarity>,
    /// Which experts may stand in for each other.
    pub clustering: Box<dyn ExpertClustering>,
    /// Who survives.
    pub selector: Box<dyn ExpertSelector>,
    /// How much a weight matters.
    pub scorer: Box<dyn WeightScorer>,
    /// How the ratio is split over the layers.
    pub allocator: Box<dyn SparsityAllocator>,
    /// Among which weights the lowest scores go.
    pub pattern: Box<dyn MaskPattern>,
    /// How a row's share is rounded to whole weights.
    pub rounding: Rounding,
}

impl Pipeline {
    /// The stages of [`Recipe::arctic`].
    #[must_use]
    pub fn arctic() -> Self {
        Self::from_recipe(&Recipe::arctic())
    }

    /// The built-in stages that a recipe names.
    #[must_use]
    pub fn from_recipe(recipe: &Recipe) -> Self {
        let Recipe { experts, weights, .. } = recipe;
        Self {
            similarity: match experts.similarity {
                Similarity::Router => Box::new(RouterDistance::default()),
                Similarity::Coactivation => Box::new(CoActivation::default()),
                Similarity::Mixed => Box::new(Mixed {
                    coactivation_weight: experts.coactivation_weight,
                    ..Mixed::default()
                }),
            },
            clustering: match experts.linkage {
                Linkage::Complete => {
                    Box::new(Agglomerative { linkage: moeprune_cluster::Linkage::Complete })
                }
                Linkage::Average => {
                    Box::new(Agglomerative { linkage: moeprune_cluster::Linkage::Average })
                }
                Linkage::Reference => Box::new(ReferenceLinkage),
                Linkage::Kmeans => Box::new(KMeans { seed: experts.seed, ..KMeans::default() }),
            },
            selector: Box::new(NearestToMean {
                merge_when_clusters_at_most: experts.average_at_most,
                ..NearestToMean::default()
            }),
            scorer: match weights.scorer {
                Scorer::Wanda => Box::new(Wanda::default()),
                Scorer::Magnitude => Box::new(moeprune_score::Magnitude),
            },
            allocator: match weights.allocation {
                Allocation::Uniform => Box::new(Uniform),
                Allocation::Owl => Box::new(Owl {
                    multiplier: weights.owl_multiplier,
                    lambda: weights.owl_lambda,
                    exact_total: weights.owl_mean == OwlMean::Exact,
                }),
            },
            pattern: Box::new(PerRow),
            rounding: match weights.rounding {
                RowRounding::Exact => Rounding::Exact,
                RowRounding::Floor => Rounding::ReferenceFloor,
            },
        }
    }
}
