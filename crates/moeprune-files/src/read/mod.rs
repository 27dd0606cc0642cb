//! Files to read, local or not.

mod chosen;
mod files;
mod links;
mod local;
mod mapped;
mod memory;
mod read_at;
mod stand_in;

pub use self::{
    chosen::ChosenFiles,
    files::{FileEntry, FileIdentity, FileKind, Files},
    links::{Access, Links, Reading},
    local::LocalFiles,
    memory::MemoryFiles,
    read_at::ReadAt,
    stand_in::StandIn,
};
