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
    /// What is kept of a layer.
    type Layer;

    /// The layer's sums in this form.
    fn layer(&self, exact: ExactLayer) -> Self::Layer;

    /// Writes one layer, for a run that is resumed.
    fn write(&self, layer: &Self::Layer, path: &Path) -> Result<(), Error>;

    /// Reads what [`write`](Self::write) wrote.
    fn read(&self, path: &Path) -> Result<Vec<Self::Layer>, Error>;
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

    fn layer(&self, exact: ExactLayer) -> LayerObservation {
        exact.rounded()
    }

    fn write(&self, layer: &LayerObservation, path: &Path) -> Result<(), Error> {
        Ok(write_observation(&self.of(vec![layer.clone()]), path)?)
    }

    fn read(&self, path: &Path) -> Result<Vec<LayerObservation>, Error> {
        Ok(read_observation(path)?.layers)
    }
}

impl Kind for PartHead {
    type Layer = ExactLayer;

    fn layer(&self, exact: ExactLayer) -> ExactLayer {
        exact
    }

    fn write(&self, layer: &ExactLayer, path: &Path) -> Result<(), Error> {
        let part = ObservationPart { head: self.clone(), layers: vec![layer.clone()] };
        Ok(write_part(&part, path)?)
    }

    fn read(&self, path: &Path) -> Result<Vec<ExactLayer>, Error> {
        Ok(read_part(path)?.layers)
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
        let sums = kind.layer(sums);
        *at.hidden = Some(outputs);
        at.session.save_observed(layer, |path| kind.write(&sums, path))?;
        seen.push(sums);
        Ok(Some(Record::Observed { layer }))
    })?;
    Ok(seen)
}
