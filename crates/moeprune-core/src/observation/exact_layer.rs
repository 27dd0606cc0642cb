//! The exact sums of one decoder layer.

use std::collections::BTreeMap;

use super::{ExactSums, InputMoments, LayerObservation, RoutingSums};
use crate::{Error, LinearId};

/// Sums of one decoder layer over some of a text's blocks, which with those over the others give the very bits of
/// the sums over all: a [`LayerObservation`] before it is rounded.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct ExactLayer {
    /// The router's choices; `None` in a layer without experts.
    pub routing: Option<ExactSums<RoutingSums>>,
    /// Squared inputs of each Linear, as in [`LayerObservation::inputs`].
    pub inputs: BTreeMap<LinearId, ExactSums<InputMoments>>,
}

impl ExactLayer {
    /// Adds the sums over other blocks.
    ///
    /// # Errors
    /// [`Error::ObservationMismatch`] if they are of another layer or model, or too large together; `self` may then
    /// be partly added to and should be dropped.
    pub fn add(&mut self, other: &Self) -> Result<(), Error> {
        match (&mut self.routing, &other.routing) {
            (Some(sums), Some(more)) => sums.add(more)?,
            (None, None) => {}
            _ => return Err(Error::ObservationMismatch("a layer has a router in one".into())),
        }
        for (site, more) in &other.inputs {
            match self.inputs.get_mut(site) {
                Some(sums) => sums.add(more)?,
                None => {
                    self.inputs.insert(*site, more.clone());
                }
            }
        }
        Ok(())
    }

    /// The sums in doubles, each rounded once.
    #[must_use]
    pub fn rounded(&self) -> LayerObservation {
        LayerObservation {
            routing: self.routing.as_ref().map(ExactSums::rounded),
            inputs: self.inputs.iter().map(|(&site, sums)| (site, sums.rounded())).collect(),
        }
    }
}
