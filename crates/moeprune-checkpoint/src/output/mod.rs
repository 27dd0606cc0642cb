//! Writing a checkpoint: the directory it grows in, the files that come along, the weights.

mod auxiliary;
mod directory;
mod writer;

pub(crate) use self::auxiliary::{auxiliary_files, open, pieces};
pub use self::{
    auxiliary::CopiedFiles,
    directory::OutputDirectory,
    writer::{RangeCopy, ShardedWriter, WrittenCheckpoint},
};
