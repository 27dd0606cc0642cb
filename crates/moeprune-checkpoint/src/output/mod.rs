//! Writing a checkpoint: the directory it grows in, the files that come along, the weights.

mod auxiliary;
mod cards;
mod directory;
mod divided;
mod division;
mod final_place;
mod layout;
mod part_writer;
mod writer;

pub(crate) use self::auxiliary::{auxiliary_files, open, pieces};
pub use self::{
    auxiliary::CopiedFiles,
    cards::{BASE_CARD_FILE, CARD_FILE, place_of_copy},
    directory::OutputDirectory,
    divided::{DividedFiles, DividedPart},
    division::Division,
    layout::{OutputLayout, OutputTensor},
    part_writer::PartWriter,
    writer::{RangeCopy, ShardedWriter, WrittenCheckpoint},
};
