//! Where weights come from and go to.

use crate::{StageError, TensorBytes, TensorId, encoding::StoredWeight};

/// Reads tensors by the part they play.
///
/// Called by the forward pass and by whatever looks at weights; from several threads. An
/// implementation reads only what is asked for, so a model of any size can stand behind it. It
/// must return the same bytes each time.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source of tensors",
    note = "implement `TensorSource::tensor`: the tensor that plays a part in the model, as stored"
)]
pub trait TensorSource: Send + Sync {
    /// The tensor as stored.
    ///
    /// # Errors
    /// If the model has no such part, naming it, or it cannot be read.
    fn tensor(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError>;

    /// The weight as stored, with the encoding that reads it. By default what
    /// [`tensor`](Self::tensor) returns, in the encoding of its type; a source of weights that need
    /// more than one tensor returns them all.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor), and if no encoding reads it.
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        Ok(StoredWeight::alone(self.tensor(id)?)?)
    }
}

impl<T: TensorSource + ?Sized> TensorSource for &T {
    fn tensor(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        (**self).tensor(id)
    }

    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        (**self).weight(id)
    }
}

/// Takes tensors by the name they will have on disk, in any order.
///
/// What happens to them when the sink is dropped before it was finished is the implementation's
/// business, but nothing unfinished may look finished.
#[diagnostic::on_unimplemented(
    message = "`{Self}` takes no tensors",
    note = "implement `TensorSink::put`: keep or write one tensor by its name"
)]
pub trait TensorSink {
    /// Takes one tensor. A name may be put once.
    ///
    /// # Errors
    /// If the name was put before, or writing fails.
    fn put(&mut self, name: &str, tensor: &TensorBytes<'_>) -> Result<(), StageError>;
}
