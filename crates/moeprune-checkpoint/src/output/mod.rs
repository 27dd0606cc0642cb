//! Writing a checkpoint: the directory it grows in, the files that come along, the weights.

mod auxiliary;
mod copying;
mod directory;
mod durable;
mod partial;
mod plan;
mod room;
mod uncached;
mod writer;

pub(crate) use self::auxiliary::auxiliary_files;
pub use self::{
    auxiliary::CopiedFiles,
    directory::OutputDirectory,
    partial::PartialOutput,
    plan::PlannedTensor,
    writer::{ShardedWriter, WrittenCheckpoint},
};
