/*!
The vocabulary of moeprune and the seams between its stages.

# Brief overview

A mixture-of-experts checkpoint is pruned in four steps: it is *observed* on calibration text
([`Observation`]), a [`Plan`] is made from what was seen, the plan is *applied*, and the result is
*evaluated*. Between the steps stand small traits, each with one required method:

| trait | question it answers |
|---|---|
| [`ExpertSimilarity`] | how far apart do two experts of a layer behave? |
| [`ExpertSaliency`] | how much does an expert of a layer matter? |
| [`ExpertClustering`] | which experts may stand in for each other, under a budget? |
| [`ExpertSelector`] | which expert of a cluster survives, or are they averaged? |
| [`WeightScorer`] | how much does one weight of a matrix matter? |
| [`WeightReconstructor`] | which weights go, and how do the others make up for them? |
| [`SparsityAllocator`] | how is an overall ratio split over the layers? |
| [`TensorSource`], [`TensorSink`] | where do weights come from, and where do they go? |

How weights are stored in bytes is a seam too, [`Encoding`]; those that many checkpoints share are
in [`encoding`].

This crate holds those traits and the data they pass, and implements none of the stages. An
extension depends on this crate alone; every built-in implementation lives in a crate of its
own that depends on this one and on no other stage.

# Example

A custom similarity, usable wherever a built-in one is:

```
use moeprune_core::{DistanceMatrix, ExpertSimilarity, LayerBehaviour, StageError};

/// Experts that are used equally often are alike.
#[derive(Debug)]
struct EqualLoad;

impl ExpertSimilarity for EqualLoad {
    fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> {
        let routing = layer.routing.ok_or("EqualLoad needs an observation")?;
        let load = |e: usize| routing.counts[e] as f64;
        Ok(DistanceMatrix::from_fn(layer.experts(), |i, j| (load(i) - load(j)).abs())?)
    }
}
```

# Why it is so

The traits take borrowed views and return plain data, so that a stage can be replaced without
touching its neighbours and tested without a model. Values that have an invariant
([`DistanceMatrix`], [`Partition`], [`Sparsity`]) check it when they are made; everything after
that may rely on it.
*/

mod accounting;
mod byte_count;
pub mod comparison;
mod distance;
mod dtype;
pub mod encoding;
mod error;
mod fingerprint;
mod linear;
mod model;
pub mod observation;
mod part_name;
mod part_of;
mod partition;
mod plan;
mod plural;
mod promise;
mod provenance;
pub mod repair;
mod routed_mass;
mod sparsity;
pub mod stage;
mod tensor;

pub use accounting::{ParameterCounts, unstructured_ratio};
pub use byte_count::bytes_in_words;
pub use distance::DistanceMatrix;
pub use dtype::{Dtype, GgmlType};
#[doc(inline)]
pub use encoding::{Encoding, StoredWeight};
pub use error::{Error, StageError};
pub use fingerprint::{Fingerprint, RoutersHash, SameModel, StoredTensors};
pub use linear::{AttentionProjection, LayerTensor, LinearId, MlpProjection, TensorId};
pub use model::{
    Activation, AttentionBiases, AttentionSpec, ClampedSwiglu, CorrectionBias, DeltaProjections,
    ExpertGroups, ExtraLayers, ExtraPolicy, FeedForward, GateSide, GatedDeltaNet, GroupScore,
    GroupedAttention, KimiDeltaAttention, LatentAttention, LayerNorms, LayerSpec, LightningIndexer,
    LinearShape, Llama3Scaling, LongRopeScaling, Mamba2, MlpSpec, ModelSpec, MoeInput, MoeSpec,
    Multipliers, NormWeights, OpaqueRouter, OpaqueTensor, Part, QueryKeyNorm, QueryTemperature,
    Reach, RotaryScaling, RotarySpec, RotaryStyle, RouterInput, RouterSpec, SandwichNorms, Score,
    ScoredRouter, SharedSpec, ShortConvolution, SparseMixer, Undecoded, ValueSource, YarnScaling,
};
#[doc(inline)]
pub use observation::{
    CorpusTag, InputMoments, LayerObservation, Observation, Rendering, RoutingSums, TextFacts,
};
pub use part_name::PartName;
pub use part_of::PartOf;
pub use partition::Partition;
pub use plan::{ExpertRatio, LayerPlan, Plan, Survivor, SurvivorReason, UnstructuredPlan};
pub use plural::plural;
pub use promise::{IdleExperts, OpenTotal, Promises, RowRounding, StatisticsSource, TotalPromise};
pub use provenance::{
    AchievedShares, ExtraProvenance, LayerProvenance, Provenance, REPORT_FILE, REPORT_TEXT_FILE,
    RepairClaim, SourceModel,
};
pub use repair::LayerRepair;
pub use routed_mass::RoutedMass;
pub use sparsity::Sparsity;
#[doc(inline)]
pub use stage::{
    BoundScorer, ClusteredLayer, ExpertBudget, ExpertClustering, ExpertRepair, ExpertSaliency,
    ExpertSelector, ExpertSimilarity, ExpertWeights, InputHessian, KnownPattern, LayerBehaviour,
    LayerProfile, LayerToRepair, LinearView, MaskPattern, RepairPasses, RepairStore,
    SparsityAllocator, StoredRows, SurvivingExpert, TensorSink, TensorSource, WeightReconstructor,
    WeightScorer,
};
pub use tensor::{MatrixView, TensorBytes};
