//! Writing the pruned checkpoint, and counting what is written.

use std::{collections::BTreeMap, ops::ControlFlow, sync::mpsc, thread};

use moeprune_checkpoint::{Checkpoint, PlannedTensor, ShardedWriter, StoredTensor, count_zeros};
use moeprune_core::{LayerTensor, LinearId, TensorBytes, TensorId, TensorSink, TensorSource};

use super::{
    KeptExperts,
    worker::{Holds, Worker},
};
use crate::{Error, Progress, Run, session::LayerZeros};

/// The checkpoint that is written, in a hidden sibling of its final place.
pub(super) struct Output<'a> {
    /// From which what stays as it is is copied.
    origin: &'a Checkpoint,
    /// The model that is left after the expert stage.
    kept: &'a KeptExperts<'a>,
    writer: ShardedWriter,
    zeros: LayerZeros,
}

/// Bytes copied before the run is asked whether to stop.
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
        let layers = kept.spec().layers.len();
        let experts: Vec<usize> =
            kept.spec().layers.iter().map(|l| l.moe().map_or(0, |m| m.experts)).collect();
        let config = origin.config_with_experts(&experts)?;
        let mut tensors = Vec::new();
        for stored in outside_layers(origin) {
            tensors.push(PlannedTensor {
                name: stored.name.clone(),
                dtype: stored.dtype,
                shape: stored.shape.clone(),
            });
        }
        for layer in 0..layers {
            for (stored, part) in layer_tensors(origin, kept, layer) {
                tensors.push(planned(origin, kept, stored, part)?);
            }
        }
        for (path, why) in directory.copy_auxiliary(origin)?.left_out {
            progress.note(&format!("not copied: {} ({why})", path.display()));
        }
        directory.write_config(&config)?;
        let mut writer = ShardedWriter::resume(directory.path(), origin.output_form(), tensors)?;
        directory.check_room(writer.planned_bytes())?;
        if session.outside_written() {
            for stored in outside_layers(origin) {
                writer.mark_written(&stored.name)?;
            }
        }
        for layer in 0..session.written()?.len() {
            for (_, part) in layer_tensors(origin, kept, layer) {
                writer.mark_written(&origin.name_of(part)?)?;
            }
        }
        Ok(Self { origin, kept, writer, zeros: LayerZeros::default() })
    }

    /// Bytes that will be written of a layer.
    pub(super) fn layer_bytes(&self, layer: usize) -> u64 {
        layer_tensors(self.origin, self.kept, layer).iter().map(|(stored, _)| stored.bytes).sum()
    }

    /// Copies embeddings, final norm, head, and tensors that play no known part.
    pub(super) fn copy_outside_layers(&mut self) -> Result<(), Error> {
        let names: Vec<(String, &StoredTensor)> =
            outside_layers(self.origin).map(|stored| (stored.name.clone(), stored)).collect();
        self.copy(&names, &mut |_| ControlFlow::Continue(()))
    }

    /// Writes a layer whose weights stay as they are. What its experts' going does not touch is
    /// copied from file to file.
    pub(super) fn copy_layer(
        &mut self,
        layer: usize,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let Self { origin, kept, .. } = *self;
        let mut copied = Vec::new();
        for (stored, part) in layer_tensors(origin, kept, layer) {
            let name = origin.name_of(part)?;
            if kept.is_as_stored(part) {
                copied.push((name, stored));
            } else {
                let tensor = kept.tensor(part).map_err(Error::stage("reading weights", layer))?;
                self.put(&name, &tensor)?;
            }
        }
        self.copy(&copied, watch)
    }

    /// Writes everything of a layer but its experts: the zeroed Linears, and the rest as it is.
    pub(super) fn put_trunk(
        &mut self,
        layer: usize,
        masked: &BTreeMap<LinearId, TensorBytes<'static>>,
    ) -> Result<(), Error> {
        let Self { origin, kept, .. } = *self;
        let mut copied = Vec::new();
        for (stored, part) in layer_tensors(origin, kept, layer) {
            match part {
                TensorId::Layer(_, LayerTensor::Linear(linear)) if linear.expert().is_none() => {
                    let own;
                    let tensor = match masked.get(&linear) {
                        Some(tensor) => tensor,
                        None => {
                            own = kept
                                .tensor(part)
                                .map_err(Error::stage("reading weights", layer))?;
                            &own
                        }
                    };
                    self.put_linear(layer, linear, tensor)?;
                }
                TensorId::Layer(_, LayerTensor::Linear(_)) => {}
                part if kept.is_as_stored(part) => {
                    copied.push((origin.name_of(part)?, stored));
                }
                part => {
                    let tensor =
                        kept.tensor(part).map_err(Error::stage("reading weights", layer))?;
                    self.put(&origin.name_of(part)?, &tensor)?;
                }
            }
        }
        self.copy(&copied, &mut |_| ControlFlow::Continue(()))
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

    /// Makes what was written so far durable.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        Ok(self.writer.sync()?)
    }

    /// Zeros counted since the last call.
    pub(super) fn take_zeros(&mut self) -> LayerZeros {
        std::mem::take(&mut self.zeros)
    }

    /// Makes the shards durable. Nothing is visible under the final name yet. Returns the bytes of
    /// all shards.
    pub(super) fn finish(self) -> Result<u64, Error> {
        Ok(self.writer.finish()?.bytes)
    }

    fn put_linear(
        &mut self,
        layer: usize,
        linear: LinearId,
        tensor: &TensorBytes<'_>,
    ) -> Result<(), Error> {
        let zeros = count_zeros(tensor)?;
        if linear == LinearId::Router {
            self.zeros.router += zeros;
        } else {
            self.zeros.linears += zeros;
        }
        if linear.expert().is_some() {
            self.zeros.experts += zeros;
        }
        self.put(&self.origin.name_of(TensorId::linear(layer, linear))?, tensor)
    }

    fn put(&mut self, name: &str, tensor: &TensorBytes<'_>) -> Result<(), Error> {
        self.writer.put(name, tensor).map_err(Error::stage("writing", None))
    }

    fn copy(
        &mut self,
        tensors: &[(String, &StoredTensor)],
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        // In the order of the files, so that neighbours are copied as one; in parts, so that
        // the run can be stopped.
        let mut part = Vec::new();
        let mut bytes = 0;
        for (place, (name, stored)) in tensors.iter().enumerate() {
            part.push((&**name, &*stored.name));
            bytes += stored.bytes;
            if bytes >= COPIED_AT_ONCE || place + 1 == tensors.len() {
                self.writer.copy_all(&part, self.origin, &mut |_| {})?;
                if watch(bytes).is_break() {
                    return Err(Error::Stopped);
                }
                part.clear();
                bytes = 0;
            }
        }
        Ok(())
    }
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

/// Tensors that belong to no layer, or to none that is understood, in the stored order.
fn outside_layers(origin: &Checkpoint) -> impl Iterator<Item = &StoredTensor> {
    let outside = |t: &&StoredTensor| !matches!(t.part, Some(TensorId::Layer(..)));
    origin.tensors().filter(outside).filter(|tensor| !origin.is_left_out(tensor))
}

/// The tensors a layer still has, in the stored order, and the part each plays in the pruned model.
fn layer_tensors<'a>(
    origin: &'a Checkpoint,
    kept: &KeptExperts<'_>,
    layer: usize,
) -> Vec<(&'a StoredTensor, TensorId)> {
    origin
        .tensors()
        .filter_map(|stored| match stored.part? {
            part @ TensorId::Layer(l, _) if l == layer => match part.expert() {
                None => Some((stored, part)),
                Some(source) => Some((stored, part.with_expert(kept.index_of(layer, source)?))),
            },
            _ => None,
        })
        .collect()
}

fn planned(
    origin: &Checkpoint,
    kept: &KeptExperts<'_>,
    stored: &StoredTensor,
    part: TensorId,
) -> Result<PlannedTensor, Error> {
    let shape = kept.spec().part(part).map_or_else(|| stored.shape.clone(), |part| part.shape);
    Ok(PlannedTensor { name: origin.name_of(part)?, dtype: stored.dtype, shape })
}
