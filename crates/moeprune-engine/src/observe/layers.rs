//! The walk that observes layer after layer, whether the sums are rounded or stay exact.

use std::path::Path;

use moeprune_capture::{
    ObservationPart, ObserverOptions, PartHead, StoredLayer, TokenBlocks, passes, read_observation,
    read_part, write_observation, write_part,
};
use moeprune_core::{CorpusTag, LayerObservation, Observation, observation::ExactLayer};

use crate::{
    Error, Job,
    finite::Finite,
    session::{Pass, Record, Session},
    walk::{Resumed, Route, Walker},
};

/// What is made of observed layers.
pub(super) trait Kind {
    /// What stays in memory of a layer.
    type Layer;

    /// Takes a layer's sums, and writes them to `place`, if there is one, for a run that is resumed.
    fn keep(&self, exact: ExactLayer, place: Option<&Path>) -> Result<Self::Layer, Error>;

    /// Takes a layer that an earlier run kept in `place`.
    fn read(&self, place: &Path) -> Result<Vec<Self::Layer>, Error>;
}

/// A whole observation: rounded sums.
pub(super) struct Whole {
    pub(super) model_fingerprint: String,
    pub(super) corpus: CorpusTag,
}

impl Whole {
    pub(super) fn of(&self, layers: Vec<LayerObservation>) -> Observation {
        let (model_fingerprint, corpora) =
            (self.model_fingerprint.clone(), vec![self.corpus.clone()]);
        Observation { model_fingerprint, corpora, layers }
    }
}

impl Kind for Whole {
    type Layer = LayerObservation;

    fn keep(&self, exact: ExactLayer, place: Option<&Path>) -> Result<LayerObservation, Error> {
        let layer = exact.rounded();
        if let Some(path) = place {
            write_observation(&self.of(vec![layer.clone()]), path)?;
        }
        Ok(layer)
    }

    fn read(&self, place: &Path) -> Result<Vec<LayerObservation>, Error> {
        Ok(read_observation(place)?.layers)
    }
}

/// A part of one in memory.
impl Kind for PartHead {
    type Layer = ExactLayer;

    fn keep(&self, exact: ExactLayer, _: Option<&Path>) -> Result<ExactLayer, Error> {
        Ok(exact)
    }

    fn read(&self, place: &Path) -> Result<Vec<ExactLayer>, Error> {
        Ok(read_part(place)?.layers)
    }
}

/// A part of one whose layers are on disk alone: exact sums are three times as large as rounded ones.
pub(super) struct OnDisk<'a>(pub(super) &'a PartHead);

impl Kind for OnDisk<'_> {
    type Layer = ();

    fn keep(&self, exact: ExactLayer, place: Option<&Path>) -> Result<(), Error> {
        let Some(path) = place else {
            return Err(Error::Resume("a run without a place keeps no layers on disk".to_owned()));
        };
        Ok(write_part(&ObservationPart { head: self.0.clone(), layers: vec![exact] }, path)?)
    }

    fn read(&self, place: &Path) -> Result<Vec<()>, Error> {
        Ok(read_part(place)?.layers.into_iter().map(drop).collect())
    }
}

/// Observes all layers within a run: those that were observed before are not run again.
pub(super) fn observe_layers<K: Kind>(
    job: &mut Job<'_>,
    session: &mut Session,
    blocks: &TokenBlocks,
    kind: &K,
) -> Result<Vec<K::Layer>, Error> {
    let Job { model, execution, .. } = *job;
    let (spec, source) = (model.spec(), &Finite(model));
    let layers = spec.layers.len();
    let done = session.observed()?;
    let mut seen = Vec::with_capacity(layers);
    for layer in 0..done {
        seen.push(session.load_observed(layer, |path| kind.read(path))?);
    }
    if done >= layers {
        return Ok(seen);
    }
    let work: Vec<u64> = (0..layers).map(|layer| passes(spec, layer, blocks.tokens())).collect();
    let route = Route {
        source,
        spec,
        blocks: Some(blocks),
        micro_batch: execution.micro_batch(),
        execution,
        step: "observing",
        work: &work,
    };
    let resumed = Some(Resumed { pass: Pass::Observe, done });
    Walker { session, progress: &mut *job.progress }.walk(&route, resumed, |mut at| {
        let (layer, hidden, compute) = (at.layer, at.take_hidden(), execution.compute());
        let options = ObserverOptions::default();
        let stored = StoredLayer { source, spec, layer, compute };
        let (sums, outputs) = stored.observe_and_advance(hidden, options, at.watch)?;
        *at.hidden = Some(outputs);
        seen.push(kind.keep(sums, at.session.observed_place(layer).as_deref())?);
        Ok(Some(Record::Observed { layer }))
    })?;
    Ok(seen)
}
