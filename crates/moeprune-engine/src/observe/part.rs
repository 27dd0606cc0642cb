//! Observing one part of the blocks, so that other processes can observe the others.

use std::io;

use moeprune_capture::{ObservationPart, PartHead, read_part, write_part_by_layer};
use moeprune_core::{CorpusTag, PartOf, observation::ExactLayer};
use moeprune_model::check_runnable;

use super::{
    ObservationPlace,
    layers::{OnDisk, observe_layers},
    unfinished::Unfinished,
};
use crate::{
    Calibration, Error, Execution, Job, Model,
    session::{RunIdentity, Session},
};

impl Calibration {
    /// One part of the blocks. Its tag is of these blocks alone.
    #[must_use]
    pub fn part(&self, part: PartOf) -> Self {
        let blocks = self.blocks.range(part.range(self.blocks.blocks().len()));
        let tag = CorpusTag { samples: blocks.blocks().len() as u64, ..self.tag.clone() };
        Self { blocks, tag, repair: None }
    }

    /// What a part of an observation of a model with this text would be of.
    ///
    /// # Errors
    /// If a router cannot be read.
    pub fn part_head(
        &self,
        model: &dyn Model,
        execution: &Execution,
        part: PartOf,
    ) -> Result<PartHead, Error> {
        Ok(PartHead {
            model_fingerprint: model.fingerprint()?,
            corpus: self.tag.clone(),
            part,
            compute: execution.compute().arithmetic(),
        })
    }
}

impl Job<'_> {
    /// As [`observe`](Self::observe), over one part of the blocks. All parts together
    /// ([`merge_parts`](moeprune_capture::merge_parts)) are the observation of all blocks: on the CPU to the last bit,
    /// for any number of parts.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    pub fn observe_part(
        &mut self,
        calibration: &Calibration,
        part: PartOf,
    ) -> Result<ObservationPart, Error> {
        check_runnable(self.model.spec())?;
        let (own, head) =
            (calibration.part(part), calibration.part_head(self.model, self.execution, part)?);
        let execution = &self.for_blocks(&own, false)?;
        let mut session = Session::in_memory();
        let layers = observe_layers(&mut self.on(execution), &mut session, &own.blocks, &head)?;
        Ok(ObservationPart { head, layers })
    }

    /// As [`observe_to`](Self::observe_to), of one part of the blocks; its sums are on disk alone.
    ///
    /// # Errors
    /// As [`observe_to`](Self::observe_to).
    pub fn observe_part_to(
        &mut self,
        calibration: &Calibration,
        part: PartOf,
        to: ObservationPlace<'_>,
    ) -> Result<PartHead, Error> {
        check_runnable(self.model.spec())?;
        let unfinished = Unfinished::open(to)?;
        let own = calibration.part(part);
        let head = calibration.part_head(self.model, self.execution, part)?;
        let execution = &self.for_blocks(&own, false)?;
        let identity = RunIdentity::new("observe", self.model)?
            .with_calibration(&own)
            .with_part(part)
            .with_execution(execution);
        let mut job = self.on(execution);
        unfinished.finish(
            &identity,
            |session| {
                let layers = observe_layers(&mut job, session, &own.blocks, &OnDisk(&head))?.len();
                Ok((0..layers)
                    .filter_map(|layer| session.observed_place(layer))
                    .collect::<Vec<_>>())
            },
            |layers, path| {
                let read = |index: usize| -> io::Result<ExactLayer> {
                    let part = read_part(&layers[index]).map_err(io::Error::other)?;
                    part.layers.into_iter().next().ok_or_else(|| io::ErrorKind::InvalidData.into())
                };
                Ok(write_part_by_layer(&head, layers.len(), &read, path)?)
            },
        )?;
        Ok(head)
    }
}
