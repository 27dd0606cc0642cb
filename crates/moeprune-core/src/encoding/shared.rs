//! An encoding as a value.

use std::{fmt, ops::Deref, sync::Arc};

use super::Encoding;

/// An encoding that a weight holds: one that the program has for good, or one with parameters that a
/// checkpoint decides, such as the size of a block.
#[derive(Clone)]
pub struct SharedEncoding(Kind);

#[derive(Clone)]
enum Kind {
    Static(&'static dyn Encoding),
    Counted(Arc<dyn Encoding>),
}

impl SharedEncoding {
    /// Of an encoding with parameters.
    #[must_use]
    pub fn new(encoding: impl Encoding + 'static) -> Self {
        Self(Kind::Counted(Arc::new(encoding)))
    }
}

impl Deref for SharedEncoding {
    type Target = dyn Encoding;

    fn deref(&self) -> &Self::Target {
        match &self.0 {
            Kind::Static(encoding) => *encoding,
            Kind::Counted(encoding) => &**encoding,
        }
    }
}

impl fmt::Debug for SharedEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl From<&'static dyn Encoding> for SharedEncoding {
    fn from(encoding: &'static dyn Encoding) -> Self {
        Self(Kind::Static(encoding))
    }
}

impl<E: Encoding> From<&'static E> for SharedEncoding {
    fn from(encoding: &'static E) -> Self {
        Self(Kind::Static(encoding))
    }
}

impl From<Arc<dyn Encoding>> for SharedEncoding {
    fn from(encoding: Arc<dyn Encoding>) -> Self {
        Self(Kind::Counted(encoding))
    }
}
