//! Writing a checkpoint: the directory it grows in, the files that come along, the weights.

mod auxiliary;
mod directory;
mod final_place;
mod layout;
mod part_writer;
mod writer;

pub(crate) use self::auxiliary::{auxiliary_files, open, pieces};
pub use self::{
    auxiliary::CopiedFiles,
    directory::OutputDirectory,
    layout::{OutputLayout, OutputTensor},
    part_writer::PartWriter,
    writer::{RangeCopy, ShardedWriter, WrittenCheckpoint},
};
