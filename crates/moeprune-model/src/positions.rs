//! How long a sequence may be.

use crate::Error;

/// Refuses a sequence of `len` tokens, cached ones included, that goes beyond the model's positions.
pub(crate) fn check_length(len: usize, max_positions: usize) -> Result<(), Error> {
    if len > max_positions { Err(Error::TooLong { len, max_positions }) } else { Ok(()) }
}
