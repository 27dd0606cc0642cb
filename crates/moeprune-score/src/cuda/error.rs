//! What can go wrong on a device.

use cudarc::driver::DriverError;
use moeprune_core::LinearId;

/// Why a matrix on a device cannot be scored or masked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the CPU would have refused too.
    #[error(transparent)]
    Score(#[from] crate::Error),
    /// The bytes on the device are not as many as the Linear has.
    #[error(
        "layer {layer} {linear}: expected {expected} bytes of weights on the device, got {got}; \
         pass the whole matrix and its type"
    )]
    Bytes {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// Rows times columns times the size of a weight.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The device found a score that cannot be ranked, and the CPU does not.
    #[error(
        "layer {layer} {linear}: the device refuses the scores of row {row}, the CPU does not; \
         was the matrix written to while it was scored?"
    )]
    Unconfirmed {
        /// Decoder layer.
        layer: usize,
        /// Linear of it.
        linear: LinearId,
        /// Row of the matrix.
        row: usize,
    },
    /// The driver refused or failed.
    #[error("the CUDA driver could not {what}: {source}")]
    Driver {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        source: DriverError,
    },
}

/// Says what was tried when the driver fails.
pub(super) trait Tried<T> {
    fn tried(self, what: &'static str) -> Result<T, Error>;
}

impl<T> Tried<T> for Result<T, DriverError> {
    fn tried(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Driver { what, source })
    }
}
