//! A stage's implementation, and what it is known by when a run is resumed.

use std::{fmt, ops::Deref};

use serde_json::Value;

/// An implementation of one of the stage traits of [`moeprune_core`].
///
/// A run that was interrupted is resumed only with the stages that it was begun with. Those are recognised
/// by their identity: a name and all parameters, as JSON. The registry of `moeprune` gives every
/// stage that it makes one. A stage made with [`new`](Self::new) has none, and a run with it starts
/// over. How a stage prints itself does not matter.
///
/// ```
/// use moeprune_core::WeightScorer;
/// use moeprune_engine::Stage;
/// use moeprune_score::Magnitude;
/// use serde_json::json;
///
/// let known: Stage<dyn WeightScorer> =
///     Stage::identified(Box::new(Magnitude), json!({ "name": "magnitude" }));
/// assert!(known.identity().is_some());
/// assert!(!known.needs_inputs());
/// ```
pub struct Stage<S: ?Sized> {
    implementation: Box<S>,
    identity: Option<Value>,
}

impl<S: ?Sized> Stage<S> {
    /// A stage that nothing is known of: a run with it cannot be resumed.
    #[must_use]
    pub fn new(implementation: Box<S>) -> Self {
        Self { implementation, identity: None }
    }

    /// A stage with a name and all of its parameters, as JSON: equal identities must mean equal
    /// results.
    #[must_use]
    pub fn identified(implementation: Box<S>, identity: Value) -> Self {
        Self { implementation, identity: Some(identity) }
    }

    /// Its name and parameters, if it was made with them.
    #[must_use]
    pub fn identity(&self) -> Option<&Value> {
        self.identity.as_ref()
    }
}

impl<S: ?Sized> Deref for Stage<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.implementation
    }
}

impl<S: fmt::Debug + ?Sized> fmt::Debug for Stage<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.implementation.fmt(f)
    }
}
