/*!
The stage traits: the seams of the pipeline.

Every trait has one required method, is object-safe, takes borrowed views and returns a
`Result`. The pipeline holds them as `Box<dyn Trait>` and may call them from several threads,
hence `Send + Sync`. An implementation must be a pure function of its fields and its arguments:
the same input gives the same output, for any number of threads, and a seed is a field.
*/

mod allocator;
mod clustering;
mod pattern;
mod reconstructor;
mod repair;
mod saliency;
mod scorer;
mod selector;
mod similarity;
mod stored_rows;
mod tensors;

pub use allocator::{LayerProfile, SparsityAllocator};
pub use clustering::{ExpertBudget, ExpertClustering};
pub use pattern::{KnownPattern, MaskPattern};
pub use reconstructor::{InputHessian, WeightReconstructor};
pub use repair::{ExpertRepair, LayerToRepair, RepairPasses, RepairStore, SurvivingExpert};
pub use saliency::ExpertSaliency;
pub use scorer::{BoundScorer, LinearView, WeightScorer};
pub use selector::{ClusteredLayer, ExpertSelector, ExpertWeights};
pub use similarity::{ExpertSimilarity, LayerBehaviour};
pub use stored_rows::StoredRows;
pub use tensors::{TensorSink, TensorSource};
