use moeprune_files::ReadAt;

use super::{Imatrix, ImatrixError};

pub(super) fn read(_file: &dyn ReadAt) -> Result<Imatrix, ImatrixError> {
    Err(ImatrixError::Other("not yet".into()))
}
