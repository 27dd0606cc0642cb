//! The stages that come with the program.

use moeprune_cluster::{Agglomerative, KMeans, Linkage, ReferenceLinkage};
use moeprune_core::StageError;
use moeprune_repair::{Refit, Ridge};
use moeprune_saliency::{Frequency, GateWeight, OutputNorm, PeakActivation, Random, Reap};
use moeprune_score::{
    BlockThreshold, Depth, InputNormalization, Magnitude, Owl, SparseGpt, Uniform, Wanda,
};
use moeprune_select::{Busiest, MergeAll, NearestToMean, Precision};
use moeprune_similarity::{
    CoActivation, CoActivationScaling, Mixed, OutputDistance, RouterDistance, RouterNormalization,
};
use serde::{Deserialize, Serialize};

use super::{NoParameters, Registry};
use crate::recipe::REFIT;

/// The scorer whose scores stand in for a reconstruction where too few tokens came, and where nothing is
/// reconstructed.
pub(crate) const STAND_IN: &str = "wanda";

impl Registry {
    /// All that come with the program.
    #[must_use]
    pub fn built_in() -> Self {
        let mut registry = Self::default();
        registry.add_saliencies();
        registry.add_similarities();
        registry.add_clusterings_and_selectors();
        registry.add_repairs();
        registry.add_scorers_and_allocators();
        registry
    }

    fn add_saliencies(&mut self) {
        self.add_saliency("frequency", "tokens routed to an expert", |_: NoParameters| {
            Ok(Box::new(Frequency))
        });
        self.add_saliency("gate", "sum of the gate weights it was given", |_: NoParameters| {
            Ok(Box::new(GateWeight))
        });
        self.add_saliency(
            "ean",
            "norm of its outputs without the gate, summed or the mean over its tokens",
            |EanParameters { over }| {
                Ok(Box::new(match over {
                    Over::Sum => OutputNorm::Sum,
                    Over::Mean => OutputNorm::Mean,
                }))
            },
        );
        self.add_saliency(
            "reap",
            "mean over its tokens of gate weight times the norm of its output",
            |_: NoParameters| Ok(Box::new(Reap)),
        );
        self.add_saliency("peak", "largest magnitude in any of its outputs", |_: NoParameters| {
            Ok(Box::new(PeakActivation))
        });
        self.add_saliency("random", "a seeded draw, as the control", |SeedParameters { seed }| {
            Ok(Box::new(Random { seed }))
        });
    }

    fn add_similarities(&mut self) {
        self.add_similarity(
            "router",
            "distance between router rows",
            |parameters: RouterParameters| Ok(Box::new(router(parameters))),
        );
        self.add_similarity(
            "coactivation",
            "how often one token chooses both",
            |CoActivationParameters { scaling }| Ok(Box::new(coactivation(scaling))),
        );
        self.add_similarity(
            "mixed",
            "router distance less co-activation, weighted",
            |MixedParameters { router_weight, coactivation_weight, scaling }| {
                for (key, weight) in
                    [("router_weight", router_weight), ("coactivation_weight", coactivation_weight)]
                {
                    in_range(key, weight, (0.0..f64::INFINITY).contains(&weight), "at least 0")?;
                }
                Ok(Box::new(Mixed {
                    router: RouterDistance::default(),
                    router_weight,
                    coactivation: coactivation(scaling),
                    coactivation_weight,
                }))
            },
        );
        self.add_similarity("outputs", "distance between mean outputs", |_: NoParameters| {
            Ok(Box::new(OutputDistance))
        });
    }

    fn add_clusterings_and_selectors(&mut self) {
        for (name, about, linkage) in [
            ("complete", "agglomerative, by the farthest pair", Linkage::Complete),
            ("average", "agglomerative, by the mean pair", Linkage::Average),
            ("single", "agglomerative, by the nearest pair", Linkage::Single),
        ] {
            self.add_clustering(name, about, move |_: NoParameters| {
                Ok(Box::new(Agglomerative { linkage }))
            });
        }
        self.add_clustering(
            "reference",
            "the published code's greedy partial linkage",
            |_: NoParameters| Ok(Box::new(ReferenceLinkage)),
        );
        self.add_clustering(
            "kmeans",
            "k-means on an embedding of the distances",
            |KMeansParameters { seed, runs }| Ok(Box::new(KMeans { seed, runs })),
        );
        self.add_selector(
            "nearest",
            "the member nearest to the group's mean; all are averaged in a layer with \
             average_at_most groups or fewer",
            |NearestParameters { average_at_most, precision }| {
                Ok(Box::new(NearestToMean {
                    merge_when_clusters_at_most: match average_at_most {
                        AverageAtMost::Rule(AverageRule::Auto) => None,
                        AverageAtMost::Groups(groups) => Some(groups),
                    },
                    precision: match precision {
                        Arithmetic::Exact => Precision::F64,
                        Arithmetic::Reference => Precision::ReferenceBf16,
                    },
                }))
            },
        );
        self.add_selector("busiest", "the member with the most tokens", |_: NoParameters| {
            Ok(Box::new(Busiest))
        });
        self.add_selector("average", "the mean of all members", |_: NoParameters| {
            Ok(Box::new(MergeAll::Plain))
        });
        self.add_selector(
            "weighted-average",
            "the mean of all members, each counting by its tokens",
            |_: NoParameters| Ok(Box::new(MergeAll::ByTokens)),
        );
    }

    fn add_repairs(&mut self) {
        self.add_repair(
            REFIT,
            "fits down projections to what is missing, by ridge regression",
            |RefitParameters { sweeps, least_gain, ridge, keep_zeros }| {
                in_range("sweeps", sweeps as f64, sweeps > 0, "1 or more")?;
                let share = (0.0..1.0).contains(&least_gain);
                in_range("least_gain", least_gain, share, "at least 0 and below 1")?;
                let ridge = match ridge {
                    RidgeParameter::Rule(RidgeRule::Auto) => Ridge::Automatic,
                    RidgeParameter::Rule(RidgeRule::Floor) => Ridge::Floor,
                    RidgeParameter::Share(share) => {
                        let fits = share.is_finite() && share >= 0.0;
                        in_range("ridge", share, fits, "auto, floor, or a number of at least 0")?;
                        Ridge::Share(share)
                    }
                };
                Ok(Box::new(Refit { sweeps, least_gain, ridge, keep_zeros }))
            },
        );
    }

    fn add_scorers_and_allocators(&mut self) {
        self.add_scorer("magnitude", "magnitude", |_: NoParameters| Ok(Box::new(Magnitude)));
        self.add_scorer(
            STAND_IN,
            "magnitude times the norm of the input",
            |WandaParameters { normalization }| {
                Ok(Box::new(Wanda {
                    normalization: match normalization {
                        Normalization::PerCall => InputNormalization::PerCall,
                        Normalization::PerToken => InputNormalization::PerToken,
                    },
                }))
            },
        );
        self.add_reconstructor(
            "sparsegpt",
            "SparseGPT: changes the weights that stay to make up for those that go",
            |SparseGptParameters { block, damping, threshold, least_tokens }| {
                in_range("damping", damping, damping.is_finite() && damping > 0.0, "above 0")?;
                Ok(Box::new(SparseGpt {
                    block,
                    damping,
                    threshold: match threshold {
                        Arithmetic::Exact => BlockThreshold::Exact,
                        Arithmetic::Reference => BlockThreshold::Reference,
                    },
                    least_tokens: (least_tokens > 0).then_some(least_tokens),
                }))
            },
        );
        self.add_allocator("uniform", "the same ratio everywhere", |_: NoParameters| {
            Ok(Box::new(Uniform))
        });
        self.add_allocator(
            "depth",
            "the first layer slope less, the last slope more, a straight line between",
            |DepthParameters { slope }| {
                in_range("slope", slope, (-1.0..=1.0).contains(&slope), "from -1 to 1")?;
                Ok(Box::new(Depth { slope }))
            },
        );
        self.add_allocator(
            "owl",
            "layers with more outliers keep more",
            |OwlParameters { multiplier, lambda, mean }| {
                let positive = multiplier.is_finite() && multiplier > 0.0;
                in_range("multiplier", multiplier, positive, "above 0")?;
                let share = (0.0..1.0).contains(&lambda);
                in_range("lambda", lambda, share, "at least 0 and below 1")?;
                Ok(Box::new(Owl { multiplier, lambda, exact_total: mean == Arithmetic::Exact }))
            },
        );
    }
}

fn in_range(key: &str, value: f64, fits: bool, range: &str) -> Result<(), StageError> {
    if fits { Ok(()) } else { Err(format!("{key} is {value}; it must be {range}").into()) }
}

fn router(RouterParameters { normalized, bias, input_scale }: RouterParameters) -> RouterDistance {
    let normalization = match normalized {
        true => RouterNormalization::FrobeniusNorm,
        false => RouterNormalization::None,
    };
    RouterDistance { normalization, bias, input_scale }
}

fn coactivation(scaling: Scaling) -> CoActivation {
    CoActivation {
        scaling: match scaling {
            Scaling::Counts => CoActivationScaling::Counts,
            Scaling::LayerMean => CoActivationScaling::LayerMean,
            Scaling::Cosine => CoActivationScaling::Cosine,
            Scaling::Jaccard => CoActivationScaling::Jaccard,
        },
    }
}

macro_rules! parameters {
    ($name:ident { $($key:ident: $kind:ty = $default:expr),+ $(,)? }) => {
        #[derive(Serialize, Deserialize)]
        struct $name { $($key: $kind),+ }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default),+ }
            }
        }
    };
}

macro_rules! word {
    ($name:ident { $($variant:ident),+ $(,)? }) => {
        #[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        enum $name { $($variant),+ }
    };
}

word!(Over { Sum, Mean });
word!(Arithmetic { Exact, Reference });
word!(Normalization { PerCall, PerToken });
word!(AverageRule { Auto });
word!(RidgeRule { Auto, Floor });
word!(Scaling { Counts, LayerMean, Cosine, Jaccard });

/// A rule, or a fixed number of groups.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected auto, or a whole number of groups")]
enum AverageAtMost {
    Rule(AverageRule),
    Groups(usize),
}

/// A rule, or a fixed share.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected auto, floor, or a number")]
enum RidgeParameter {
    Rule(RidgeRule),
    Share(f64),
}

parameters!(EanParameters { over: Over = Over::Sum });
parameters!(SeedParameters { seed: u64 = 0 });
parameters!(RouterParameters {
    normalized: bool = false,
    bias: bool = false,
    input_scale: bool = false,
});
parameters!(CoActivationParameters { scaling: Scaling = Scaling::LayerMean });
parameters!(MixedParameters {
    router_weight: f64 = 1.0,
    coactivation_weight: f64 = 1.0,
    scaling: Scaling = Scaling::LayerMean,
});
parameters!(KMeansParameters { seed: u64 = 0, runs: usize = KMeans::default().runs });
parameters!(NearestParameters {
    average_at_most: AverageAtMost = AverageAtMost::Rule(AverageRule::Auto),
    precision: Arithmetic = Arithmetic::Exact,
});
parameters!(WandaParameters { normalization: Normalization = Normalization::PerCall });
// Fewer tokens than `least_tokens`, and a Linear is scored; 0 stands for as many as it has inputs.
parameters!(SparseGptParameters {
    block: usize = SparseGpt::default().block,
    damping: f64 = SparseGpt::default().damping,
    threshold: Arithmetic = Arithmetic::Exact,
    least_tokens: u64 = 0,
});
// `ridge`: auto, floor, or a share of the mean square of activations. `keep_zeros`: weights that are zero in the model stay so.
parameters!(RefitParameters {
    sweeps: usize = Refit::default().sweeps,
    least_gain: f64 = Refit::default().least_gain,
    ridge: RidgeParameter = RidgeParameter::Rule(RidgeRule::Auto),
    keep_zeros: bool = Refit::default().keep_zeros,
});
parameters!(DepthParameters { slope: f64 = 0.05 });
parameters!(OwlParameters {
    multiplier: f64 = Owl::default().multiplier,
    lambda: f64 = Owl::default().lambda,
    mean: Arithmetic = Arithmetic::Exact,
});
