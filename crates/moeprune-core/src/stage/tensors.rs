//! Where weights come from and go to.

use crate::{StageError, StoredRows, TensorBytes, TensorId, encoding::StoredWeight};

/// Reads weights by the part they play.
///
/// Called by the forward pass and by any code that reads weights; from several threads. An
/// implementation reads only what is needed, so a model of any size can stand behind it. It
/// must return the same bytes each time.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source of tensors",
    note = "implement `TensorSource::weight`: the weight that plays a part in the model, as stored"
)]
pub trait TensorSource: Send + Sync {
    /// The weight as stored: its main tensor, the companions that the encoding needs beside it, and
    /// the encoding that reads them. Of the shape that the model's list of parts says.
    ///
    /// # Errors
    /// If the model has no such part, naming it, it cannot be read, or no encoding reads it.
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError>;

    /// The same for readers that need each element as a number by itself.
    ///
    /// # Errors
    /// As [`weight`](Self::weight), and [`Error::NotPlain`](crate::Error::NotPlain) if it is stored
    /// in any other way.
    fn tensor(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        Ok(self.weight(id)?.into_plain()?)
    }

    /// The same bytes, of which the caller reads rows into memory of its own: for readers that go through a weight once
    /// and keep something else of it, so that no memory is taken for the whole. `None` of what is not a matrix of numbers
    /// whose rows stand one after the other, and of what has to be computed; the default says that of everything, and the
    /// caller then reads the [`weight`](Self::weight).
    ///
    /// # Errors
    /// As [`weight`](Self::weight); what cannot be read may fail here or when rows are read.
    fn stored_rows(&self, _id: TensorId) -> Result<Option<StoredRows<'_>>, StageError> {
        Ok(None)
    }
}

impl<T: TensorSource + ?Sized> TensorSource for &T {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        (**self).weight(id)
    }

    fn tensor(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        (**self).tensor(id)
    }

    fn stored_rows(&self, id: TensorId) -> Result<Option<StoredRows<'_>>, StageError> {
        (**self).stored_rows(id)
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
