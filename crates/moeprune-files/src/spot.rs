//! Where an output ends up, to tell whether two go to the same place.

use std::path::PathBuf;

use crate::identity::Identity;

/// What two outputs must not share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spot {
    /// A file that is there.
    File(Identity),
    /// A file that will be.
    New(PathBuf),
    /// A descriptor of this process.
    Descriptor(u32),
    /// A device: any number of outputs may go there.
    Device,
}
