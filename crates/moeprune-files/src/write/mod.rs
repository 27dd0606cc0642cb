//! Outputs that appear under their name only when they are complete and durable.

mod copying;
mod durable;
mod partial;
mod room;
mod uncached;

pub(crate) use self::partial::sibling_of;
pub use self::{copying::copy_bytes, durable::sync, partial::PartialOutput};
