//! What a model did on calibration text, as sums over tokens.
//!
//! The sums of a layer stand in two groups, [`RoutingSums`] and [`InputMoments`]. Each group is a
//! table of [`Statistic`] rows over its fields; adding, repeating, reading, writing and checking
//! are loops over the rows. A new statistic is a field, its row, and the line that accumulates it.
//!
//! While a model runs, sums are [`ExactSums`]: those of each block in doubles, the blocks' in fixed point of 192 bits.
//! So they have the same bits however the blocks are divided among processes, and are rounded to doubles once, at
//! the end. (A fixed tree over the blocks would do without wide sums, but a part that is no subtree would have to
//! keep one sum per subtree in it.)

mod blend;
mod corpus;
mod exact;
mod exact_layer;
mod inputs;
mod routing;
mod statistic;
mod wide_sum;

use std::collections::BTreeMap;

pub use self::{
    corpus::{CorpusTag, Rendering, TextFacts},
    exact::ExactSums,
    exact_layer::ExactLayer,
    inputs::InputMoments,
    routing::RoutingSums,
    statistic::{Kind, Shape, Statistic, Statistics, Values, ValuesMut},
    wide_sum::WideSum,
};
use crate::{Error, Fingerprint, LinearId, LinearShape, SameModel};

/// Sums over calibration tokens of one model.
///
/// Sums and maxima only, so observations of different texts add up ([`Observation::add`]) and one
/// serves any number of plans. To divide the blocks of one text among processes there are
/// [`ExactLayer`]s, which add up to the very bits of one observation.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct Observation {
    /// Identifies the model the sums belong to; a plan for another model refuses them.
    pub model_fingerprint: String,
    /// The texts they were taken on.
    pub corpora: Vec<CorpusTag>,
    /// One entry per decoder layer.
    pub layers: Vec<LayerObservation>,
}

/// Sums of one decoder layer.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct LayerObservation {
    /// The router's choices; `None` in a layer without experts.
    pub routing: Option<RoutingSums>,
    /// Squared inputs of each Linear, under its input site ([`LinearShape::reads`]). Linears that never ran are
    /// present with zero tokens or absent.
    pub inputs: BTreeMap<LinearId, InputMoments>,
}

impl LayerObservation {
    /// Moments of the input of `linear`, which are kept under its input site.
    #[must_use]
    pub fn input_of(&self, linear: &LinearShape) -> Option<&InputMoments> {
        self.inputs.get(&linear.reads)
    }
}

impl Observation {
    /// The same without input moments, which decide nothing about experts.
    #[must_use]
    pub fn routing_only(&self) -> Self {
        let routing = |layer: &LayerObservation| LayerObservation {
            routing: layer.routing.clone(),
            inputs: BTreeMap::new(),
        };
        Self {
            model_fingerprint: self.model_fingerprint.clone(),
            corpora: self.corpora.clone(),
            layers: self.layers.iter().map(routing).collect(),
        }
    }

    /// Adds another observation of the same model: what its [`Kind`] says for each statistic.
    ///
    /// The order matters for the last bits of the sums only.
    ///
    /// # Errors
    /// [`Error::ObservationMismatch`] if fingerprints or shapes differ; `self` may then be
    /// partly added to and should be dropped.
    pub fn add(&mut self, other: &Self) -> Result<(), Error> {
        let same = Fingerprint::compare(&self.model_fingerprint, &other.model_fingerprint);
        if !matches!(same, SameModel::Yes | SameModel::StoredOtherwise) {
            let how = match same {
                SameModel::RoutersRounded => ", of which one has its routers rounded",
                SameModel::RoutersAlike => ", which have nothing but their routers in common",
                _ => "",
            };
            return Err(Error::ObservationMismatch(format!(
                "they are of different models{how} ({} and {})",
                self.model_fingerprint, other.model_fingerprint
            )));
        }
        if self.layers.len() != other.layers.len() {
            return Err(Error::ObservationMismatch(format!(
                "{} and {} layers",
                self.layers.len(),
                other.layers.len()
            )));
        }
        self.corpora.extend_from_slice(&other.corpora);
        for (mine, theirs) in self.layers.iter_mut().zip(&other.layers) {
            match (&mut mine.routing, &theirs.routing) {
                (Some(a), Some(b)) => statistic::add(a, b)?,
                (None, None) => {}
                _ => return Err(Error::ObservationMismatch("a layer has a router in one".into())),
            }
            for (id, moments) in &theirs.inputs {
                match mine.inputs.get_mut(id) {
                    Some(sum) => statistic::add(sum, moments)?,
                    None => {
                        mine.inputs.insert(*id, moments.clone());
                    }
                }
            }
        }
        Ok(())
    }
}
