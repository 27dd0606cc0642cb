//! Writing the pruned checkpoint, and counting what is written.

use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf, sync::mpsc, thread};

use moeprune_checkpoint::{Checkpoint, Division, PartWriter, StoredTensor, count_zeros};
use moeprune_core::{
    LayerTensor, LinearId, ModelSpec, PartOf, StoredWeight, TensorBytes, TensorId, TensorSource,
};

use super::{
    layer_job::AFTER_EXPERTS,
    worker::{Holds, Worker},
};
use crate::{Error, KeptExperts, Progress, Run, printable, session::LayerZeros};

/// The checkpoint that is written, in a hidden sibling of its final place.
pub(super) struct Output<'a> {
    /// From which what stays as it is is copied.
    origin: &'a Checkpoint,
    /// The model that is left after the expert stage.
    kept: &'a KeptExperts<'a>,
    writer: PartWriter,
    /// Which of the layers are written here, if not all are.
    part: Option<(Division, PartOf)>,
    zeros: LayerZeros,
    /// Files beside the source's weights that were not copied, and why.
    left_out: Vec<(PathBuf, String)>,
}

/// Bytes copied before the run can be stopped.
const COPIED_AT_ONCE: u64 = 1 << 29;

/// Tensors on their way to the disk while the next are worked on.
const QUEUE: usize = 3;

impl<'o> Output<'o> {
    /// Puts everything but the weights into the run's directory and plans the shards; what its session
    /// says was written before counts as written.
    pub(super) fn open(
        run: &Run<'o>,
        kept: &'o KeptExperts<'o>,
        progress: &mut dyn Progress,
    ) -> Result<Self, Error> {
        let Run { origin, output: directory, session, .. } = run;
        let origin = *origin;
        let index_of = |layer, expert| kept.index_of(layer, expert);
        let layout = origin.output_layout(kept.spec(), &index_of)?;
        let layers = kept.spec().layers.len();
        let part = run.part.map(|part| Ok::<_, Error>((Division::new(layers, part.of())?, part)));
        let part = part.transpose()?;
        let left_out = match part {
            None => write_beside(run, kept, progress)?,
            Some(_) => Vec::new(),
        };
        let mut writer =
            PartWriter::resume(directory.path(), origin.pruned_form(kept.spec())?, layout)?;
        directory.check_room(match &part {
            None => writer.planned_bytes(),
            Some((division, part)) => writer.planned_bytes_of(division, *part),
        })?;
        if session.outside_written() {
            writer.mark_written(None)?;
            for layer in kept.spec().extra_layers() {
                writer.mark_written(Some(layer))?;
            }
        }
        let first = run.layers(layers).start;
        for layer in first..first + session.written(first)?.len() {
            writer.mark_written(Some(layer))?;
        }
        Ok(Self { origin, kept, writer, part, zeros: LayerZeros::default(), left_out })
    }

    /// The writer of a checkpoint all of which is written.
    pub(super) fn written(run: &Run<'o>, kept: &'o KeptExperts<'o>) -> Result<Self, Error> {
        let origin = run.origin;
        let layout = origin.output_layout(kept.spec(), &|layer, e| kept.index_of(layer, e))?;
        let mut writer =
            PartWriter::resume(run.output.path(), origin.pruned_form(kept.spec())?, layout)?;
        writer.mark_written(None)?;
        let layers = (0..kept.spec().layers.len()).chain(kept.spec().extra_layers());
        for layer in layers {
            writer.mark_written(Some(layer))?;
        }
        let (zeros, left_out) = (LayerZeros::default(), Vec::new());
        Ok(Self { origin, kept, writer, part: None, zeros, left_out })
    }

    /// Whether what belongs to no layer is written here.
    pub(super) fn writes_outside(&self) -> bool {
        self.part.as_ref().is_none_or(|(division, part)| division.owner(None) == *part)
    }

    /// About the bytes that will be written of a layer.
    pub(super) fn layer_bytes(&self, layer: usize) -> u64 {
        self.writer.layout().of(Some(layer)).map(|tensor| tensor.source_bytes).sum()
    }

    /// Copies what is outside of the decoder's layers: embeddings, final norm, head, tensors that play
    /// no known part, and the layers behind, without the experts that go.
    pub(super) fn copy_outside_layers(
        &mut self,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.writer.copy_outside_layers(self.origin)?;
        let layers = self.kept.spec().extra_layers();
        layers.into_iter().try_for_each(|layer| self.copy_layer(layer, watch))
    }

    /// Writes a layer whose weights stay as they are. What its experts' going does not touch is
    /// copied from file to file.
    pub(super) fn copy_layer(
        &mut self,
        layer: usize,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut copied = Vec::new();
        for part in self.parts_of(layer) {
            match self.kept.stored_as(part) {
                Some(source) => copied.push((part, source)),
                None => self.put_of(layer, part)?,
            }
        }
        self.copy(&copied, watch)
    }

    /// Writes everything of a layer but its experts' weights and the Linear after them: the zeroed Linears,
    /// and the rest as it is.
    pub(super) fn put_trunk(
        &mut self,
        layer: usize,
        masked: &BTreeMap<LinearId, TensorBytes<'static>>,
    ) -> Result<(), Error> {
        let mut copied = Vec::new();
        for part in self.parts_of(layer) {
            let linear = match part {
                TensorId::Layer(_, LayerTensor::Linear(linear)) => Some(linear),
                _ => None,
            };
            match (linear, self.kept.stored_as(part)) {
                (Some(linear), _) if linear.expert().is_some() || linear == AFTER_EXPERTS => {}
                (Some(linear), _) => match masked.get(&linear) {
                    Some(tensor) => self.put_linear(layer, linear, tensor)?,
                    None => {
                        let weight = self.kept.weight(part);
                        let weight = weight.map_err(Error::stage("reading weights", layer))?;
                        self.put_linear(layer, linear, &weight.into_parts().0)?;
                    }
                },
                (None, Some(source)) => copied.push((part, source)),
                (None, None) => self.put_of(layer, part)?,
            }
        }
        self.copy(&copied, &mut |_| ControlFlow::Continue(()))
    }

    /// Writes Linears that were zeroed.
    pub(super) fn put_linears(
        &mut self,
        layer: usize,
        masked: &BTreeMap<LinearId, TensorBytes<'static>>,
    ) -> Result<(), Error> {
        masked.iter().try_for_each(|(&linear, tensor)| self.put_linear(layer, linear, tensor))
    }

    /// Runs `work` and writes what it hands over meanwhile, on another thread; what is on a device
    /// is fetched on a third. All on this thread if the worker's steps are not to overlap.
    pub(super) fn write_behind<'a, W: Worker<'a>>(
        &mut self,
        worker: &W,
        layer: usize,
        work: impl FnOnce(
            &mut dyn FnMut(LinearId, W::Finished) -> Result<(), Error>,
        ) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut put = |linear, tensor: TensorBytes<'a>| {
            worker
                .write(tensor.bytes().len() as u64, &mut || self.put_linear(layer, linear, &tensor))
        };
        if !worker.overlaps() {
            return work(&mut |linear, finished| put(linear, worker.fetch(finished)?));
        }
        thread::scope(|scope| {
            let (give, take) = mpsc::sync_channel::<(LinearId, W::Finished)>(QUEUE);
            let writer = match worker.holds() {
                Holds::Stored => scope.spawn(move || {
                    let fetch = |(linear, finished)| put(linear, worker.fetch(finished)?);
                    take.into_iter().try_for_each(fetch)
                }),
                Holds::Loaded => {
                    let fetched = fetch_ahead(scope, worker, take);
                    scope.spawn(move || {
                        fetched.into_iter().try_for_each(|(linear, tensor)| put(linear, tensor?))
                    })
                }
            };
            let worked = work(&mut |linear, finished| {
                // Fails only if the writer gave up, and then its error is the one that counts.
                give.send((linear, finished)).map_err(|_| Error::Stopped)
            });
            drop(give);
            let written = match writer.join() {
                Ok(written) => written,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            written.and(worked)
        })
    }

    /// Writes parts that were repaired over what was written of them.
    pub(super) fn replace(&mut self, repaired: &KeptExperts<'_>) -> Result<(), Error> {
        for part in repaired.repaired_parts() {
            let TensorId::Layer(layer, _) = part else { continue };
            let weight = read(repaired, layer, part)?;
            self.writer.replace_companions(part, &beside(&weight))?;
            self.writer.replace(part, weight.main())?;
        }
        Ok(())
    }

    /// Files beside the source's weights that were not copied, and why.
    pub(super) fn left_out(&self) -> &[(PathBuf, String)] {
        &self.left_out
    }

    /// Makes what was written so far durable.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        Ok(self.writer.sync()?)
    }

    /// Zeros counted since the last call.
    pub(super) fn take_zeros(&mut self) -> LayerZeros {
        std::mem::take(&mut self.zeros)
    }

    /// Makes the shards durable. Nothing is visible under the final name yet. Returns the bytes of
    /// all shards, or of a part's tensors.
    pub(super) fn finish(self) -> Result<u64, Error> {
        let Some((division, part)) = self.part else { return Ok(self.writer.finish()?.bytes) };
        let bytes = self.writer.planned_bytes_of(&division, part);
        self.writer.finish_part(&division, part)?;
        Ok(bytes)
    }

    /// The parts of a layer in the order of their tensors.
    fn parts_of(&self, layer: usize) -> Vec<TensorId> {
        let tensors = self.writer.layout().of(Some(layer));
        tensors.flat_map(|tensor| tensor.parts.iter().copied()).collect()
    }

    fn put_of(&mut self, layer: usize, part: TensorId) -> Result<(), Error> {
        let weight = read(self.kept, layer, part)?;
        if !weight.companions().is_empty() {
            self.put_beside(layer, part)?;
        }
        Ok(self.writer.put(part, weight.main())?)
    }

    fn put_linear(
        &mut self,
        layer: usize,
        linear: LinearId,
        tensor: &TensorBytes<'_>,
    ) -> Result<(), Error> {
        let part = TensorId::linear(layer, linear);
        let zeros = match tensor.dtype().is_weight() {
            true => count_zeros(tensor)?,
            // What a code says depends on what is beside it.
            false => {
                let stored = self.kept.weight(part);
                let stored = stored.map_err(Error::stage("reading weights", layer))?;
                stored.with_main(tensor.view())?.count_zeros()
            }
        };
        if linear == LinearId::Router {
            self.zeros.router += zeros;
        } else {
            self.zeros.linears += zeros;
        }
        if linear.expert().is_some() {
            self.zeros.experts += zeros;
        }
        if !tensor.dtype().is_weight() {
            self.put_beside(layer, part)?;
        }
        Ok(self.writer.put(part, tensor)?)
    }

    /// Writes what is stored of a part beside its codes: new scales of one that was repaired.
    fn put_beside(&mut self, layer: usize, part: TensorId) -> Result<(), Error> {
        if let Some(source) = self.kept.stored_as(part) {
            return Ok(self.writer.copy_companions(part, source, self.origin)?);
        }
        if !self.kept.is_repaired(part) {
            return Ok(());
        }
        let weight = read(self.kept, layer, part)?;
        let from = (self.kept.first_source(part), self.origin);
        Ok(self.writer.put_companions(part, &beside(&weight), from)?)
    }

    /// Copies parts, given as pairs of the part here and in the source.
    fn copy(
        &mut self,
        pairs: &[(TensorId, TensorId)],
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        // In the order of the files, so that neighbours are copied as one; in portions, so that the
        // caller can stop the copying. What an expert has in one slab stays together.
        let mut portion: Vec<(TensorId, TensorId)> = Vec::new();
        let mut bytes = 0;
        for &(part, source) in pairs {
            let same_expert =
                portion.last().is_some_and(|(last, _)| last.expert() == part.expert());
            if bytes >= COPIED_AT_ONCE && !(same_expert && part.expert().is_some()) {
                self.copy_portion(&mut portion, bytes, watch)?;
                bytes = 0;
            }
            let (_, place) = self.writer.layout().place_of(part)?;
            bytes += place.bytes().end - place.bytes().start;
            portion.push((part, source));
        }
        if portion.is_empty() {
            return Ok(());
        }
        self.copy_portion(&mut portion, bytes, watch)
    }

    fn copy_portion(
        &mut self,
        portion: &mut Vec<(TensorId, TensorId)>,
        bytes: u64,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.writer.copy(portion, self.origin, &mut |_| {})?;
        portion.clear();
        if watch(bytes).is_break() { Err(Error::Stopped) } else { Ok(()) }
    }
}

/// Puts everything beside the weights into a run's directory: configs, and what comes along. Returns what does not,
/// and why.
pub(crate) fn write_beside(
    run: &Run<'_>,
    kept: &KeptExperts<'_>,
    progress: &mut dyn Progress,
) -> Result<Vec<(PathBuf, String)>, Error> {
    let Run { origin, output: directory, .. } = run;
    let left_out = directory.copy_auxiliary(origin)?.left_out;
    for (path, why) in &left_out {
        progress.note(&printable(&format!("not copied: {} ({why})", path.display())));
    }
    note_carried(origin, kept, progress);
    directory.write_configs(origin, kept.spec(), &|layer, e| kept.index_of(layer, e))?;
    Ok(left_out)
}

/// Says that experts of layers that are no part keep their number while others go.
fn note_carried(origin: &Checkpoint, kept: &KeptExperts<'_>, progress: &mut dyn Progress) {
    let experts = |spec: &ModelSpec| -> usize {
        spec.layers.iter().filter_map(|layer| layer.moe()).map(|moe| moe.experts).sum()
    };
    let drops_extra = kept.spec().extra.is_none();
    let is_carried = |tensor: &&StoredTensor| !(drops_extra && origin.is_extra(tensor));
    let carried: Vec<&StoredTensor> = origin.carried_experts().filter(is_carried).collect();
    if let Some(first) = carried.first()
        && experts(kept.spec()) < experts(origin.spec())
    {
        progress.note(&format!(
            "note: tensors of experts outside of the decoder's layers ({}, `{}` for example) are \
             carried over with their number of experts, which config.json no longer says; an \
             engine that builds these layers (multi-token prediction) from it cannot load them, so \
             run without",
            carried.len(),
            first.name
        ));
    }
}

fn read<'a>(
    kept: &'a KeptExperts<'_>,
    layer: usize,
    part: TensorId,
) -> Result<StoredWeight<'a>, Error> {
    kept.weight(part).map_err(Error::stage("reading weights", layer))
}

/// What a weight's codes are read with, by the suffixes of the tensors' names.
fn beside<'w>(weight: &'w StoredWeight<'_>) -> Vec<(&'static str, &'w TensorBytes<'w>)> {
    let suffixes = weight.encoding().companions().iter().map(|companion| companion.suffix);
    suffixes.zip(weight.companions()).collect()
}

/// Fetches what is on a device one tensor ahead of the receiver's reader.
fn fetch_ahead<'scope, 'a: 'scope, W: Worker<'a>>(
    scope: &'scope thread::Scope<'scope, '_>,
    worker: &'scope W,
    finished: mpsc::Receiver<(LinearId, W::Finished)>,
) -> mpsc::Receiver<(LinearId, Result<TensorBytes<'a>, Error>)>
where
    W::Finished: 'scope,
{
    let (give, take) = mpsc::sync_channel(0);
    scope.spawn(move || {
        for (linear, weight) in finished {
            if give.send((linear, worker.fetch(weight))).is_err() {
                break;
            }
        }
    });
    take
}
