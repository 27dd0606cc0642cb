//! Writing a checkpoint: the directory it grows in, the files that come along, the weights.

mod auxiliary;
mod begun;
mod copies;
mod directory;
mod writer;
mod written;

pub(crate) use self::auxiliary::{auxiliary_files, open, pieces};
pub use self::{
    auxiliary::CopiedFiles,
    copies::RangeCopy,
    directory::OutputDirectory,
    writer::{ShardedWriter, WrittenCheckpoint},
};
