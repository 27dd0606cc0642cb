//! Experts, loaded one at a time.

use std::{sync::mpsc, thread};

use candle_core::Tensor;
use moeprune_core::{
    LayerSpec, LayerTensor, LinearId, MlpProjection, ModelSpec, MoeSpec, Part, StageError,
    StoredWeight, TensorId, TensorSource,
};

use crate::{ActivationSink, Compute, Error, linear::Weights, mlp::Mlp, reading, runnable};

/// The stored tensors of one expert: its weights, and its biases if it has any.
///
/// It is a [`TensorSource`] of these and no other.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "what there is of an expert")]
pub struct ExpertTensors<'a> {
    /// Decoder layer.
    pub layer: usize,
    /// Which expert of it.
    pub expert: usize,
    /// Its tensors, in the order in which [`MoeSpec::expert_parts`](moeprune_core::MoeSpec) lists
    /// them.
    pub tensors: Vec<(LayerTensor, StoredWeight<'a>)>,
}

impl<'a> ExpertTensors<'a> {
    /// Reads all of them.
    ///
    /// # Errors
    /// [`Error::Read`] names the tensor; [`Error::Spec`] if the layer has no experts.
    pub fn read(
        source: &'a dyn TensorSource,
        spec: &ModelSpec,
        layer: usize,
        expert: usize,
    ) -> Result<Self, Error> {
        let moe = moe(spec, layer)?;
        let mut tensors = Vec::with_capacity(3);
        for part in moe.expert_parts(layer, spec.hidden, expert) {
            let TensorId::Layer(_, tensor) = part.id else { continue };
            let read = source.weight(part.id);
            tensors.push((tensor, read.map_err(|source| Error::Read { tensor: part.id, source })?));
        }
        Ok(Self { layer, expert, tensors })
    }

    /// One of its weights; `None` if it has no such matrix.
    #[must_use]
    pub fn linear(&self, projection: MlpProjection) -> Option<&StoredWeight<'a>> {
        self.find(LayerTensor::Linear(LinearId::Expert(self.expert, projection)))
    }

    /// The same, to be replaced.
    pub fn linear_mut(&mut self, projection: MlpProjection) -> Option<&mut StoredWeight<'a>> {
        let wanted = LayerTensor::Linear(LinearId::Expert(self.expert, projection));
        self.tensors.iter_mut().find(|(id, _)| *id == wanted).map(|(_, tensor)| tensor)
    }

    fn find(&self, wanted: LayerTensor) -> Option<&StoredWeight<'a>> {
        self.tensors.iter().find(|(id, _)| *id == wanted).map(|(_, tensor)| tensor)
    }
}

impl TensorSource for ExpertTensors<'_> {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        let found = match id {
            TensorId::Layer(layer, tensor) if layer == self.layer => self.find(tensor),
            _ => None,
        };
        let found = found.ok_or_else(|| {
            format!("{id} is not of expert {} of layer {}", self.expert, self.layer)
        })?;
        Ok(found.view())
    }
}

fn moe(spec: &ModelSpec, layer: usize) -> Result<&MoeSpec, Error> {
    let moe = spec.layers.get(layer).and_then(LayerSpec::moe);
    moe.ok_or_else(|| Error::Spec(format!("layer {layer} has no experts")))
}

/// Reads the experts `experts` of a layer in the given order, each while the one before it is in
/// use, and hands them to `visit`: at most two are held.
///
/// `source` is called from another thread.
///
/// # Errors
/// The first error of a read (at its place in the order) or of `visit`; no expert is visited
/// after it.
pub fn for_each_expert<'a, E: From<Error>>(
    source: &'a dyn TensorSource,
    spec: &'a ModelSpec,
    layer: usize,
    experts: &[usize],
    mut visit: impl FnMut(ExpertTensors<'a>) -> Result<(), E>,
) -> Result<(), E> {
    thread::scope(|scope| {
        // A rendezvous: the reader waits with one expert in hand.
        let (give, take) = mpsc::sync_channel(0);
        scope.spawn(move || {
            for &expert in experts {
                let read = ExpertTensors::read(source, spec, layer, expert);
                let failed = read.is_err();
                if give.send(read).is_err() || failed {
                    break;
                }
            }
        });
        take.into_iter().try_for_each(|read| visit(read?))
    })
}

/// As [`for_each_expert`], but each is also [loaded](Expert::load) before it is handed over: for a
/// device, to which the next expert is brought while one is in use. At most two are on it.
///
/// Where experts [are packed from where they are stored](packs_from_rows), they are read and packed at once, and no
/// memory is taken for them but that of the two packed ones.
///
/// # Errors
/// As [`for_each_expert`], and what loading one says.
pub fn for_each_uploaded_expert<E: From<Error>>(
    source: &dyn TensorSource,
    spec: &ModelSpec,
    compute: &Compute,
    layer: usize,
    experts: &[usize],
    mut visit: impl FnMut(Expert) -> Result<(), E>,
) -> Result<(), E> {
    thread::scope(|scope| {
        let (give, take) = mpsc::sync_channel(0);
        scope.spawn(move || {
            // Fails when the visitor has given up; so does the reading then.
            let hand_over = |expert| give.send(Ok(expert)).map_err(|_| Error::Cancelled);
            let handed_over = if packs_from_rows(source, spec, compute, layer) {
                experts.iter().try_for_each(|&expert| {
                    let load = || Expert::load(source, spec, layer, expert, compute);
                    hand_over(reading::on_own_threads(load)?)
                })
            } else {
                for_each_expert(source, spec, layer, experts, |stored| {
                    hand_over(Expert::load(&stored, spec, layer, stored.expert, compute)?)
                })
            };
            if let Err(error) = handed_over {
                // After a cancellation the receiver is gone.
                drop(give.send(Err(error)));
            }
        });
        take.into_iter().try_for_each(|loaded| visit(loaded?))
    })
}

/// Whether the experts of a layer are packed straight from where they are stored: on the CPU, of a source that
/// [reads rows](TensorSource::stored_rows) of them.
#[must_use]
pub fn packs_from_rows(
    source: &dyn TensorSource,
    spec: &ModelSpec,
    compute: &Compute,
    layer: usize,
) -> bool {
    let reads_rows = |part: &Part| match part.id {
        TensorId::Layer(_, LayerTensor::Linear(_)) => {
            source.stored_rows(part.id).is_ok_and(|rows| rows.is_some())
        }
        _ => true,
    };
    // A layer's experts are stored alike.
    !compute.holds_stored()
        && moe(spec, layer)
            .is_ok_and(|moe| moe.expert_parts(layer, spec.hidden, 0).iter().all(reads_rows))
}

/// An expert ready to run.
#[derive(Debug)]
pub struct Expert {
    index: usize,
    mlp: Mlp,
}

impl Expert {
    /// Reads expert `expert` of layer `layer` to where it will run.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Shape`] name the tensor; [`Error::Spec`] if the layer has no
    /// experts.
    pub fn load(
        source: &dyn TensorSource,
        spec: &ModelSpec,
        layer: usize,
        expert: usize,
        compute: &Compute,
    ) -> Result<Self, Error> {
        let moe = moe(spec, layer)?;
        runnable::check_mlp(&moe.expert, "expert", layer)?;
        let weights = Weights { source, compute: &compute.keeping_buffers() };
        let (site, width) = (|p| LinearId::Expert(expert, p), moe.expert_width(spec.hidden));
        let mlp = Mlp::load(weights, layer, site, width, &moe.expert)?;
        Ok(Self { index: expert, mlp })
    }

    /// `[tokens, width]` to the same, before the gate; `width` is that of the hidden states, or the latent one
    /// of a block that has such. Shows both inputs to `sink`; the output
    /// is not shown.
    ///
    /// # Errors
    /// If a tensor operation or the sink fails.
    pub fn forward(&self, input: &Tensor, sink: &mut dyn ActivationSink) -> Result<Tensor, Error> {
        self.mlp.forward(input, |p| LinearId::Expert(self.index, p), sink)
    }

    /// `[tokens, width]` to `[tokens, inner]`: what its down projection reads.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn hidden(&self, input: &Tensor) -> Result<Tensor, Error> {
        self.mlp.hidden(input)
    }

    /// The matrices it has.
    #[must_use]
    pub fn projections(&self) -> &'static [MlpProjection] {
        self.mlp.projections()
    }

    /// Which expert of its layer it is.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Bytes that its weights take where it runs.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.mlp.bytes()
    }

    /// A stored weight, `[rows, cols]`, sharing memory with what runs: zeroing weights in it
    /// changes the expert. `None` on the CPU in f32, where weights are packed when they are read, and for
    /// a matrix that it does not have.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn weight(&self, projection: MlpProjection) -> Result<Option<Tensor>, Error> {
        self.mlp.stored(projection)
    }
}
