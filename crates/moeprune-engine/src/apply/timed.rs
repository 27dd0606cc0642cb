//! The work on one layer, step after step, each timed by itself.
//!
//! The calls are those of [`prune_layer`](super::layer), which overlaps them: it cannot take less
//! than the longest of these, nor, if all is well, much more.

mod stopwatch;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::ControlFlow,
    path::Path,
};

use candle_core::Tensor;
use moeprune_capture::{LayerObserver, LayerRun, ObserverOptions, embed_blocks, expert_rows};
use moeprune_checkpoint::{Checkpoint, OutputDirectory, PlannedTensor, ShardedWriter, count_zeros};
use moeprune_core::{
    LayerTensor, LinearId, LinearShape, LinearView, MlpProjection, ModelSpec, Sparsity, StageError,
    TensorBytes, TensorId, TensorSink, TensorSource,
};
use moeprune_model::{ActivationSink, Embedding, Expert, ExpertTensors, LayerTrunk};

pub use super::in_place::Masking;
pub use stopwatch::{Spent, settle};

use stopwatch::{timed, timed_bytes};

use crate::{Calibration, Error, Execution, Job, Pipeline};

/// The layer that is timed.
const LAYER: usize = 0;
const INPUTS: ObserverOptions = ObserverOptions { routing: false, inputs: true, hessians: false };

/// What each step took.
#[derive(Debug, Clone, Default)]
pub struct PartTimes {
    /// Stored bytes from the files to host memory.
    pub read: Spent,
    /// Stored bytes to the device, or widened to f32 on the CPU, as often as a pass does it.
    pub load: Spent,
    /// FLOP of the trunk's Linears.
    pub trunk: Spent,
    /// FLOP of the experts' Linears.
    pub experts: Spent,
    /// FLOP of all of them, sums of squared inputs taken on the way.
    pub watched: Spent,
    /// Bytes of the activations that are squared and summed.
    pub capture: Spent,
    /// Stored bytes, each read and written once.
    pub mask: Spent,
    /// Stored bytes back from the device.
    pub fetch: Spent,
    /// Stored bytes into files until they are durable, zeros counted.
    pub write: Spent,
    /// Tokens that each expert got.
    pub expert_tokens: Vec<u64>,
    /// Blocks that went through the trunk together.
    pub micro_batch: usize,
    /// Tokens that an expert takes together at most.
    pub expert_rows: usize,
}

/// Takes the blocks through the first layer twice, as it is and with weights zeroed, and writes the
/// zeroed Linears to a hidden sibling of `out`, which is removed.
///
/// # Errors
/// As those of pruning.
pub fn time_parts(
    job: &mut Job<'_>,
    out: &Path,
    calibration: &Calibration,
    ratio: Sparsity,
) -> Result<PartTimes, Error> {
    let Job { model: checkpoint, pipeline, execution, .. } = *job;
    let progress = &mut *job.progress;
    let on = &execution.for_blocks(checkpoint, &calibration.tag, true, progress)?;
    let spec = checkpoint.spec();
    let directory = OutputDirectory::open(out, checkpoint)?;
    let mut writer =
        ShardedWriter::create(directory.path(), checkpoint.output_form(), planned(checkpoint))?;
    directory.check_room(writer.planned_bytes())?;
    let tokens = calibration.blocks.tokens();
    let mut run = Timing { checkpoint, on, pipeline, ratio, times: PartTimes::default() };
    run.times.micro_batch = on.micro_batch();
    run.times.expert_rows = expert_rows(on.compute().device());
    let experts = spec.layers[LAYER].moe().map_or(0, |moe| moe.experts);
    progress.begin("each step by itself", experts as u64 + 1, "parts");
    let hidden = embed_blocks(
        &Embedding::load(checkpoint, spec, on.compute())?,
        &calibration.blocks,
        on.micro_batch(),
    )?;

    let mut observer = LayerObserver::new(spec, LAYER, INPUTS)?;
    let mut trunk = run.read_trunk()?;
    let flop = tokens * flop_of(spec, None);
    let go_on = &mut |_| ControlFlow::Continue(());
    let loaded = run.load_trunk(&trunk)?;
    let mut dense = timed(on, &mut run.times.watched, flop, || {
        Ok(LayerRun::watch_only(&loaded, LAYER, &hidden, &mut observer, go_on)?)
    })?;
    let loaded = run.mask_trunk(loaded, &mut trunk, &observer)?;
    let mut pruned = timed(on, &mut run.times.trunk, flop, || {
        Ok(LayerRun::advance(&loaded, LAYER, hidden, None, go_on)?)
    })?;
    run.write_trunk(&loaded, &trunk, &mut writer)?;
    drop((loaded, trunk));

    for e in 0..experts {
        if progress.should_stop() {
            return Err(Error::Stopped);
        }
        progress.advance(e as u64 + 1, &format!("expert {}/{experts}", e + 1));
        let mut stored = run.read_expert(e)?;
        let flop = dense.tokens(e) * flop_of(spec, Some(e));
        let expert = run.load_expert(&stored)?;
        if dense.tokens(e) > 0 {
            timed(on, &mut run.times.watched, flop, || {
                Ok(dense.expert(e, &expert, Some(&mut observer), go_on)?)
            })?;
        }
        let expert = run.mask_expert(expert, &mut stored, &observer)?;
        let tokens = pruned.tokens(e);
        run.times.expert_tokens.push(tokens);
        if tokens > 0 {
            timed(on, &mut run.times.experts, tokens * flop_of(spec, Some(e)), || {
                Ok(pruned.expert(e, &expert, None, go_on)?)
            })?;
        }
        run.write_expert(&expert, &stored, &mut writer)?;
    }
    timed(on, &mut run.times.write, 0, || Ok(writer.finish().map(|_| ())?))?;
    drop((dense, pruned));
    run.capture(calibration.blocks.sequence_len(), tokens)?;
    progress.end();
    Ok(run.times)
}

struct Timing<'a> {
    checkpoint: &'a Checkpoint,
    on: &'a Execution,
    pipeline: &'a Pipeline,
    ratio: Sparsity,
    times: PartTimes,
}

impl<'a> Timing<'a> {
    fn read_trunk(&mut self) -> Result<Stored<'a>, Error> {
        let ids = layer_tensors(self.checkpoint).filter(|id| expert_of(*id).is_none());
        let ids: Vec<TensorId> = ids.collect();
        let checkpoint = self.checkpoint;
        let mut tensors = BTreeMap::new();
        for id in ids {
            let bytes = timed_bytes(self.on, &mut self.times.read, || {
                let tensor =
                    checkpoint.tensor(id).map_err(Error::stage("reading weights", LAYER))?;
                Ok((tensor.bytes().len(), tensor))
            })?;
            tensors.insert(id, bytes);
        }
        Ok(Stored(tensors))
    }

    fn load_trunk(&mut self, stored: &Stored<'_>) -> Result<LayerTrunk, Error> {
        let (spec, compute) = (self.checkpoint.spec(), self.on.compute());
        timed(self.on, &mut self.times.load, stored.bytes(), || {
            Ok(LayerTrunk::load(stored, spec, LAYER, compute)?)
        })
    }

    /// The trunk with weights zeroed, ready to run.
    fn mask_trunk(
        &mut self,
        loaded: LayerTrunk,
        stored: &mut Stored<'_>,
        observer: &LayerObserver,
    ) -> Result<LayerTrunk, Error> {
        for shape in linears(self.checkpoint.spec(), None) {
            let id = TensorId::linear(LAYER, shape.id);
            let on_device = loaded.weight(shape.id)?;
            self.mask(shape, observer, on_device, stored.0.get_mut(&id))?;
        }
        if self.on.compute().holds_stored() { Ok(loaded) } else { self.load_trunk(stored) }
    }

    fn write_trunk(
        &mut self,
        loaded: &LayerTrunk,
        stored: &Stored<'_>,
        writer: &mut ShardedWriter,
    ) -> Result<(), Error> {
        for shape in linears(self.checkpoint.spec(), None) {
            let id = TensorId::linear(LAYER, shape.id);
            self.write(id, loaded.weight(shape.id)?, stored.0.get(&id), writer)?;
        }
        Ok(())
    }

    fn read_expert(&mut self, expert: usize) -> Result<ExpertTensors<'a>, Error> {
        let checkpoint = self.checkpoint;
        timed_bytes(self.on, &mut self.times.read, || {
            let stored = ExpertTensors::read(checkpoint, LAYER, expert)?;
            Ok((stored.weights.iter().map(|w| w.bytes().len()).sum(), stored))
        })
    }

    fn load_expert(&mut self, stored: &ExpertTensors<'_>) -> Result<Expert, Error> {
        let (spec, compute) = (self.checkpoint.spec(), self.on.compute());
        let bytes: usize = stored.weights.iter().map(|w| w.bytes().len()).sum();
        timed(self.on, &mut self.times.load, bytes as u64, || {
            Ok(Expert::load(stored, spec, LAYER, stored.expert, compute)?)
        })
    }

    /// The expert with weights zeroed, ready to run.
    fn mask_expert(
        &mut self,
        loaded: Expert,
        stored: &mut ExpertTensors<'_>,
        observer: &LayerObserver,
    ) -> Result<Expert, Error> {
        let shapes = linears(self.checkpoint.spec(), Some(stored.expert));
        for (projection, weight) in MlpProjection::ALL.into_iter().zip(&mut stored.weights) {
            let id = LinearId::Expert(stored.expert, projection);
            let Some(&shape) = shapes.iter().find(|shape| shape.id == id) else { continue };
            self.mask(shape, observer, loaded.weight(projection)?, Some(weight))?;
        }
        if self.on.compute().holds_stored() { Ok(loaded) } else { self.load_expert(stored) }
    }

    fn write_expert(
        &mut self,
        loaded: &Expert,
        stored: &ExpertTensors<'_>,
        writer: &mut ShardedWriter,
    ) -> Result<(), Error> {
        for (projection, weight) in MlpProjection::ALL.into_iter().zip(&stored.weights) {
            let id = TensorId::linear(LAYER, LinearId::Expert(stored.expert, projection));
            self.write(id, loaded.weight(projection)?, Some(weight), writer)?;
        }
        Ok(())
    }

    /// Zeroes weights where they lie: on the device if they are there.
    fn mask(
        &mut self,
        shape: LinearShape,
        observer: &LayerObserver,
        on_device: Option<Tensor>,
        stored: Option<&mut TensorBytes<'_>>,
    ) -> Result<(), Error> {
        let LinearShape { id, rows, cols, .. } = shape;
        let inputs = observer.input_of(id)?.filter(|moments| moments.tokens > 0);
        let linear = LinearView { layer: LAYER, id, rows, cols, inputs };
        let Self { pipeline, on, ratio, .. } = *self;
        let masking =
            Masking { linear, hessian: None, ratio, weights: &pipeline.weights, execution: on };
        let spent = &mut self.times.mask;
        match (on_device, stored) {
            (Some(weight), _) => {
                let bytes = weight.elem_count() * weight.dtype().size_in_bytes();
                timed(on, spent, bytes as u64, || masking.in_place(&weight))
            }
            (None, Some(weight)) => {
                let bytes = weight.bytes().len() as u64;
                let dense = std::mem::replace(weight, nothing()?);
                *weight = timed(on, spent, bytes, || masking.of_bytes(dense))?;
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    fn write(
        &mut self,
        id: TensorId,
        on_device: Option<Tensor>,
        stored: Option<&TensorBytes<'_>>,
        writer: &mut ShardedWriter,
    ) -> Result<(), Error> {
        let (on, compute) = (self.on, self.on.compute());
        let fetched = match on_device {
            None => None,
            Some(weight) => Some(timed_bytes(on, &mut self.times.fetch, || {
                let fetched = compute.download(&weight)?;
                Ok((fetched.bytes().len(), fetched))
            })?),
        };
        let Some(weight) = fetched.as_ref().or(stored) else { return Ok(()) };
        let name = self.checkpoint.name_of(id)?;
        timed(on, &mut self.times.write, weight.bytes().len() as u64, || {
            count_zeros(weight)?;
            writer.put(&name, weight).map_err(Error::stage("writing", None))
        })
    }

    /// Sums of squares alone, of activations of the shapes that a pass shows.
    fn capture(&mut self, sequence_len: usize, tokens: u64) -> Result<(), Error> {
        let (spec, compute) = (self.checkpoint.spec(), self.on.compute());
        let mut observer = LayerObserver::new(spec, LAYER, INPUTS)?;
        observer.at_blocks(0..1);
        let mut ones: BTreeMap<(usize, usize), Tensor> = BTreeMap::new();
        for shape in spec.linears(LAYER).into_iter().filter(|l| l.id.input_site() == l.id) {
            let (most, mut left) = match shape.id.expert() {
                None => (self.times.micro_batch * sequence_len, tokens),
                Some(e) => (self.times.expert_rows, self.times.expert_tokens[e]),
            };
            let like = |rows| Tensor::ones((rows, shape.cols), compute.dtype(), compute.device());
            let key = (most, shape.cols);
            if let Entry::Vacant(missing) = ones.entry(key) {
                missing.insert(like(most)?);
            }
            while left > 0 {
                let rows = left.min(most as u64) as usize;
                let shown = ones[&key].narrow(0, 0, rows)?;
                let bytes = shown.elem_count() * shown.dtype().size_in_bytes();
                timed(self.on, &mut self.times.capture, bytes as u64, || {
                    Ok(observer.linear_input(shape.id, &shown)?)
                })?;
                left -= rows as u64;
            }
        }
        Ok(())
    }
}

/// A layer's trunk in host memory.
struct Stored<'a>(BTreeMap<TensorId, TensorBytes<'a>>);

impl Stored<'_> {
    fn bytes(&self) -> u64 {
        self.0.values().map(|tensor| tensor.bytes().len() as u64).sum()
    }
}

impl TensorSource for Stored<'_> {
    fn tensor(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        let tensor = self.0.get(&id).ok_or_else(|| format!("{id} is not of the trunk"))?;
        Ok(TensorBytes::new(tensor.dtype(), tensor.shape(), tensor.bytes())?)
    }
}

/// The Linears that are zeroed: of an expert, or of none.
fn linears(spec: &ModelSpec, expert: Option<usize>) -> Vec<LinearShape> {
    let mut linears = spec.linears(LAYER);
    linears.retain(|l| l.id.expert() == expert && l.prunable);
    linears
}

/// FLOP of a token in the Linears of an expert, or of none.
fn flop_of(spec: &ModelSpec, expert: Option<usize>) -> u64 {
    let linears = spec.linears(LAYER).into_iter().filter(|l| l.id.expert() == expert);
    2 * linears.map(|l| l.parameters()).sum::<u64>()
}

fn layer_tensors(checkpoint: &Checkpoint) -> impl Iterator<Item = TensorId> {
    let parts = checkpoint.tensors().filter_map(|stored| stored.part);
    parts.filter(|part| matches!(part, TensorId::Layer(LAYER, _)))
}

fn expert_of(id: TensorId) -> Option<usize> {
    id.expert()
}

/// The Linears that are zeroed, to be written.
fn planned(checkpoint: &Checkpoint) -> Vec<PlannedTensor> {
    let linears = checkpoint.spec().linears(LAYER);
    let zeroed = |part: Option<TensorId>| match part {
        Some(TensorId::Layer(LAYER, LayerTensor::Linear(id))) => {
            linears.iter().any(|linear| linear.id == id && linear.prunable)
        }
        _ => false,
    };
    let planned = |stored: &moeprune_checkpoint::StoredTensor| PlannedTensor {
        name: stored.name.clone(),
        dtype: stored.dtype,
        shape: stored.shape.clone(),
    };
    checkpoint.tensors().filter(|stored| zeroed(stored.part)).map(planned).collect()
}

/// Stands where a weight was that is being zeroed.
fn nothing() -> Result<TensorBytes<'static>, Error> {
    Ok(TensorBytes::new(moeprune_core::Dtype::U8, [0], Vec::new())?)
}
