//! Where weights come from and go to.

use crate::{StageError, TensorBytes, TensorId};

/// Reads tensors by the part they play.
///
/// Called by the forward pass and by whatever looks at weights; from several threads. An
/// implementation reads only what is asked for, so a model of any size can stand behind it. It
/// must return the same bytes each time.
pub trait TensorSource: Send + Sync {
    /// The tensor as stored.
    ///
    /// # Errors
    /// If the model has no such part, naming it, or it cannot be read.
    fn tensor(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError>;
}

impl<T: TensorSource + ?Sized> TensorSource for &T {
    fn tensor(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        (**self).tensor(id)
    }
}

/// Takes tensors by the name they will have on disk, in any order.
///
/// What happens to them when the sink is dropped before it was finished is the implementation's
/// business, but nothing unfinished may look finished.
pub trait TensorSink {
    /// Takes one tensor. A name may be put once.
    ///
    /// # Errors
    /// If the name was put before, or writing fails.
    fn put(&mut self, name: &str, tensor: &TensorBytes<'_>) -> Result<(), StageError>;
}
