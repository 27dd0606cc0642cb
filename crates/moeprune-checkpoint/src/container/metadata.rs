//! Facts that a container stores with the weights.

use std::{any::Any, fmt, sync::Arc};

/// Facts that a container stores with the weights, in a form that only the container knows; passed on when
/// weights like these are planned.
///
/// ```
/// use moeprune_checkpoint::Metadata;
///
/// let facts = Metadata::new("written by hand".to_owned());
/// assert_eq!(facts.get::<String>().map(String::as_str), Some("written by hand"));
/// assert!(Metadata::default().get::<String>().is_none());
/// ```
#[derive(Clone, Default)]
pub struct Metadata(Option<Arc<dyn Any + Send + Sync>>);

impl Metadata {
    /// Facts in the form of a container.
    #[must_use]
    pub fn new<T: Any + Send + Sync>(facts: T) -> Self {
        Self(Some(Arc::new(facts)))
    }

    /// The facts, if they have this form.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.as_ref()?.downcast_ref()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Metadata(..)" } else { "Metadata" })
    }
}
