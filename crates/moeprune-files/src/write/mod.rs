//! Outputs that appear under their name only when they are complete and durable.

mod claim;
mod folder_claim;
mod inside;
mod lock;
mod names;
mod partial;
mod remove;
mod room;

pub(crate) use self::names::sibling_of;
pub use self::{folder_claim::FolderClaim, partial::PartialOutput};
