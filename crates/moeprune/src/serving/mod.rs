/*!
What a cut is good for when it is served, said before anything is run: which engines load the result, over how
many devices it divides, how many bytes it takes, and what its router and its layers for multi-token prediction
ask of the number of experts.

What engines load is data: a file per engine in the folder `engines` of this crate, each answer with its source and
its date ([`Engine`]). Where no source was found the answer is "unknown".

```no_run
use moeprune::{checkpoint::Checkpoint, serving::Serving};

let model = Checkpoint::open(std::path::Path::new("mixtral-8x7b"))?;
for cut in Serving::of(&model).cuts {
    println!("{:?} experts, {} bytes, {:?}", cut.experts, cut.weight_bytes, cut.parallel.experts);
}
# Ok::<(), moeprune::checkpoint::Error>(())
```
*/

mod cut;
mod declared;
mod engine;
mod experts;
mod forms;
mod parallel;
mod rules;
mod sentences;
mod verdict;

pub use cut::{Cut, Impossible};
pub use declared::{Declared, QuantizationConfig};
pub use engine::{
    Answer, CountRules, Engine, EngineContainer, EngineError, ExtraHandling, FamilyAnswer,
    KernelRule, Multiple, Source, YesNo,
};
pub use forms::WeightForm;
pub use parallel::Parallel;
pub use rules::{ExtraRule, GroupRule, unnamed_extra};
pub use verdict::Verdict;

use moeprune_checkpoint::Checkpoint;
use serde::Serialize;

/// What a model and the usual cuts of it are for serving.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Serving {
    /// The model as it is, then without a quarter and a half of its experts, if those can be made.
    pub cuts: Vec<Cut>,
    /// Those of the usual cuts that cannot be made.
    pub impossible: Vec<Impossible>,
    /// What the router asks, if it selects groups.
    pub groups: Option<GroupRule>,
    /// What becomes of layers for multi-token prediction, if there are any.
    pub extra: Option<ExtraRule>,
    /// Weights beside the model's that engines and a cut leave out, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unnamed: Vec<String>,
}

impl Serving {
    /// Of an open model, from headers alone.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let spec = checkpoint.spec();
        let (cuts, impossible) = Cut::usual(checkpoint);
        let unnamed = unnamed_extra(checkpoint);
        Self { cuts, impossible, groups: GroupRule::of(spec), extra: ExtraRule::of(spec), unnamed }
    }
}
