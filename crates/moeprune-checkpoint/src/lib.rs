/*!
Reading and writing Hugging Face mixture-of-experts checkpoints, of any size, for pruning.

# Brief overview

A [`Checkpoint`] is a model directory whose `config.json`, index and `*.safetensors` headers agree
with each other. Opening it reads these and nothing else; weights are read when they are asked for,
by part ([`TensorSource`](moeprune_core::TensorSource)) or by name. What the parts are called on
disk, and how the family's blocks are wired, is a [`Family`]: data in TOML, not code.

The other way, an [`OutputDirectory`] grows beside its final place and is renamed to it when it is
complete (`moeprune_files::PartialOutput` does the same for a single file, and keeps what a run needs to be
resumed); a [`ShardedWriter`] puts tensors into it in any order without holding any; [`select_along`],
[`average`], [`check_finite`] and [`count_zeros`] are what pruning does to stored weights; and
[`verify`] compares the outcome with its source, byte for byte where it must be equal.

# Example

Keeping the first four of eight experts in every layer:

```
use std::path::Path;

use moeprune_checkpoint::{Checkpoint, OutputDirectory, PartWriter, select_along, verify};
use moeprune_core::{FeedForward, TensorSource};

# let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
let source = Checkpoint::open(&repository.join("assets/parity/mixtral"))?;
let kept: Vec<usize> = (0..4).collect();
let mut pruned = source.spec().clone();
for layer in &mut pruned.layers {
    if let FeedForward::Moe(moe) = &mut layer.feed_forward {
        moe.experts = kept.len();
    }
}

let temporary = tempfile::tempdir()?;
let out = temporary.path().join("pruned");
let directory = OutputDirectory::create(&out, &source)?;
directory.copy_auxiliary(&source)?;
directory.write("config.json", source.config_with_experts(&[4; 3])?.as_bytes())?;
let index_of = |_layer: usize, expert: usize| kept.iter().position(|&kept| kept == expert);
let layout = source.output_layout(&pruned, &index_of)?;
let mut writer = PartWriter::resume(directory.path(), source.output_form(), layout)?;
writer.copy_outside_layers(&source)?;
for layer in 0..pruned.layers.len() {
    for part in pruned.layer_parts(layer) {
        match part.expert_axis {
            Some(axis) => {
                writer.put(part.id, &select_along(&source.tensor(part.id)?, axis, &kept)?)?;
            }
            None => writer.copy(&[(part.id, part.id)], &source, &mut |_| ())?,
        }
    }
}
writer.finish()?;
directory.publish()?;

assert!(verify(&out, &source, None)?.passed());
# Ok::<(), moeprune_core::StageError>(())
```

# Why it is so

*On-disk names rule.* Libraries rename and fuse tensors in memory from one version to the next; the
files of a model stay as they are. A pruned checkpoint has the names, types and config spelling of
its source, so any program that loads the one loads the other.

*Everything is refused that two readers could understand differently*: repeated keys, holes and
overlaps between tensors, files that an index does not agree with, tensors of a decoder layer that
no descriptor knows. A pruner that guesses there writes a model that is subtly wrong after hours of
work.

*A model may come from anywhere.* Its files cannot name other files of the machine, numbers in its
config are held against the tensors before anything is sized by them, and no input makes this crate
panic. What it cannot guard against is a file that shrinks while it is mapped: see [`Access`].
*/

mod checkpoint;
mod config;
mod container;
mod error;
mod family;
mod json;
mod model_directory;
mod named_tensors;
mod number;
mod output;
mod place;
mod quantization;
mod reports;
mod spec;
mod verify;
mod weights;

pub use moeprune_files::{Access, FileIdentity};

pub use self::{
    checkpoint::{
        Checkpoint, ContentHash, FusedTensor, RoleStorage, RoleSummary, Storage, StoredPart,
        StoredTensor, Summary,
    },
    container::{
        ContainedIndex, ContainedTensor, Container, Contents, DescribedModel, Gguf, Metadata,
        OutputForm, PlannedFile, PlannedIndex, PlannedTensor, PlannedWeights, PrunedCounts,
        Safetensors, WeightFile, WeightRequest,
    },
    error::Error,
    family::{ExpertStorage, Family, FamilyFacts},
    output::{
        BASE_CARD_FILE, CARD_FILE, CopiedFiles, DividedFiles, DividedPart, Division,
        OutputDirectory, OutputLayout, OutputTensor, PartWriter, RangeCopy, ShardedWriter,
        WrittenCheckpoint, place_of_copy,
    },
    place::{FusedExperts, Place, TensorForm},
    verify::{Check, LinearZeros, SparsityReport, VerifyReport, verify},
    weights::{
        average, average_of, check_finite, check_finite_weight, count_zeros, join_along,
        select_along, select_rows, weighted_average_of,
    },
};
