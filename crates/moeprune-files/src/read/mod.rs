//! Files to read, local or not.

mod chosen;
mod files;
mod local;
mod mapped;
mod memory;
mod read_at;

pub use self::{
    chosen::ChosenFiles,
    files::{FileEntry, FileIdentity, FileKind, Files},
    local::{Access, LocalFiles},
    memory::MemoryFiles,
    read_at::ReadAt,
};
