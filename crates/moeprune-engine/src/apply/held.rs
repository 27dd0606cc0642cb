//! The part of a layer that is being worked on, on the host or on a device.
//!
//! On the CPU in f32 a part is held as it is stored; to be run it is loaded, which widens it, and
//! masks make new bytes of the stored ones. On a device it is loaded once, as it is stored: it runs
//! from there, is masked in place, and goes back.

use std::collections::BTreeMap;

use candle_core::Tensor;
use moeprune_core::{
    LayerTensor, LinearId, LinearShape, LinearView, MlpProjection, StageError, TensorBytes,
    TensorId, TensorSource,
};
use moeprune_model::{Compute, Expert, ExpertTensors, LayerTrunk, for_each_uploaded_expert};
use moeprune_score::{ScoreSum, count_above, score_sum};

use super::{KeptExperts, in_place, stages::Stages};
use crate::Error;

/// How one Linear of a layer is to be masked.
pub(super) type Masking<'a> = &'a in_place::Masking<'a>;

/// A Linear's weight.
pub(super) enum HeldWeight<'a> {
    Host(TensorBytes<'a>),
    /// `[rows, cols]` in the type it is stored in.
    Device(Tensor),
}

impl HeldWeight<'_> {
    /// Adds up the weight's scores.
    pub(super) fn score_sum(
        &self,
        linear: &LinearView<'_>,
        stages: Stages<'_>,
    ) -> Result<ScoreSum, Error> {
        let weights = &stages.pipeline.weights;
        match self {
            Self::Host(bytes) => Ok(score_sum(bytes, linear, &*weights.scored().scorer)?),
            Self::Device(weight) => {
                in_place::score_sum_of(weight, linear, weights, stages.execution)
            }
        }
    }

    /// Counts the weight's scores above a threshold.
    pub(super) fn count_above(
        &self,
        linear: &LinearView<'_>,
        threshold: f64,
        stages: Stages<'_>,
    ) -> Result<u64, Error> {
        let weights = &stages.pipeline.weights;
        match self {
            Self::Host(bytes) => {
                Ok(count_above(bytes, linear, &*weights.scored().scorer, threshold)?)
            }
            Self::Device(weight) => {
                in_place::count_above_of(weight, linear, threshold, weights, stages.execution)
            }
        }
    }
}

/// Hands over a layer's experts, each read, and brought to the device, while the one before it is in
/// use.
pub(super) fn for_each_expert<'a>(
    stages: Stages<'a>,
    layer: usize,
    mut visit: impl FnMut(HeldExpert<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    let (kept, compute) = (stages.kept, stages.execution.compute());
    let experts = stages.experts(layer);
    if !compute.holds_stored() {
        return moeprune_model::for_each_expert(kept, layer, &experts, |expert| {
            visit(HeldExpert::Host(expert))
        });
    }
    for_each_uploaded_expert(kept, kept.spec(), compute, layer, &experts, |expert| {
        visit(HeldExpert::Device(expert))
    })
}

/// An expert.
pub(super) enum HeldExpert<'a> {
    Host(ExpertTensors<'a>),
    Device(Expert),
}

impl<'a> HeldExpert<'a> {
    pub(super) fn index(&self) -> usize {
        match self {
            Self::Host(stored) => stored.expert,
            Self::Device(expert) => expert.index(),
        }
    }

    /// The expert, ready to run.
    pub(super) fn run<R>(
        &self,
        stages: Stages<'_>,
        layer: usize,
        run: impl FnOnce(&Expert) -> Result<R, Error>,
    ) -> Result<R, Error> {
        match self {
            Self::Device(expert) => run(expert),
            Self::Host(stored) => {
                let (spec, compute) = (stages.kept.spec(), stages.execution.compute());
                run(&Expert::load(stored, spec, layer, stored.expert, compute)?)
            }
        }
    }

    pub(super) fn weight(&self, projection: MlpProjection) -> Result<HeldWeight<'_>, Error> {
        match self {
            Self::Host(stored) => {
                let weight = &stored.weights[place(projection)];
                let borrowed = TensorBytes::new(weight.dtype(), weight.shape(), weight.bytes())?;
                Ok(HeldWeight::Host(borrowed))
            }
            Self::Device(expert) => Ok(HeldWeight::Device(on_device(expert.weight(projection)?)?)),
        }
    }

    /// Zeroes weights of one Linear.
    pub(super) fn mask(
        &mut self,
        projection: MlpProjection,
        masking: Masking<'_>,
    ) -> Result<(), Error> {
        match self {
            Self::Host(stored) => {
                let weight = &mut stored.weights[place(projection)];
                let nothing = TensorBytes::new(moeprune_core::Dtype::U8, [0], Vec::new())?;
                *weight = masking.of_bytes(std::mem::replace(weight, nothing))?;
                Ok(())
            }
            Self::Device(expert) => masking.in_place(&on_device(expert.weight(projection)?)?),
        }
    }

    /// Its weights, to be written.
    pub(super) fn into_finished(self) -> Result<Vec<(MlpProjection, Finished<'a>)>, Error> {
        match self {
            Self::Host(stored) => {
                let weights = stored.weights.into_iter().map(Finished::Host);
                Ok(MlpProjection::ALL.into_iter().zip(weights).collect())
            }
            Self::Device(expert) => MlpProjection::ALL
                .into_iter()
                .map(|projection| {
                    let weight = on_device(expert.weight(projection)?)?;
                    Ok((projection, Finished::Device(weight)))
                })
                .collect(),
        }
    }
}

/// A weight that nothing is done to any more.
pub(super) enum Finished<'a> {
    Host(TensorBytes<'a>),
    Device(Tensor),
}

impl<'a> Finished<'a> {
    /// Its bytes; waits for the device.
    pub(super) fn fetch(self, compute: &Compute) -> Result<TensorBytes<'a>, Error> {
        match self {
            Self::Host(bytes) => Ok(bytes),
            Self::Device(weight) => Ok(compute.download(&weight)?),
        }
    }
}

/// A layer without its experts.
pub(super) enum HeldTrunk<'a> {
    Host(MaskedTrunk<'a>),
    Device(Box<LayerTrunk>),
}

impl<'a> HeldTrunk<'a> {
    pub(super) fn load(stages: Stages<'a>, layer: usize) -> Result<Self, Error> {
        let (kept, compute) = (stages.kept, stages.execution.compute());
        if !compute.holds_stored() {
            return Ok(Self::Host(MaskedTrunk { kept, linears: BTreeMap::new() }));
        }
        Ok(Self::Device(Box::new(LayerTrunk::load(kept, kept.spec(), layer, compute)?)))
    }

    /// The trunk as it is now, ready to run.
    pub(super) fn run<R>(
        &self,
        stages: Stages<'_>,
        layer: usize,
        run: impl FnOnce(&LayerTrunk) -> Result<R, Error>,
    ) -> Result<R, Error> {
        match self {
            Self::Device(trunk) => run(trunk),
            Self::Host(source) => {
                let (spec, compute) = (stages.kept.spec(), stages.execution.compute());
                run(&LayerTrunk::load(source, spec, layer, compute)?)
            }
        }
    }

    pub(super) fn weight(&self, layer: usize, shape: LinearShape) -> Result<HeldWeight<'_>, Error> {
        match self {
            Self::Host(source) => Ok(HeldWeight::Host(source.weight(layer, shape.id)?)),
            Self::Device(trunk) => Ok(HeldWeight::Device(on_device(trunk.weight(shape.id)?)?)),
        }
    }

    /// Zeroes weights of one Linear.
    pub(super) fn mask(
        &mut self,
        layer: usize,
        shape: LinearShape,
        masking: Masking<'_>,
    ) -> Result<(), Error> {
        match self {
            Self::Host(source) => {
                let masked = masking.of_bytes(source.weight(layer, shape.id)?)?;
                source.linears.insert(shape.id, masked);
                Ok(())
            }
            Self::Device(trunk) => masking.in_place(&on_device(trunk.weight(shape.id)?)?),
        }
    }

    /// The Linears that were masked, which are `masked`.
    pub(super) fn into_masked(
        self,
        stages: Stages<'_>,
        masked: &[LinearShape],
    ) -> Result<BTreeMap<LinearId, TensorBytes<'static>>, Error> {
        match self {
            Self::Host(source) => Ok(source.linears),
            Self::Device(trunk) => masked
                .iter()
                .map(|shape| {
                    let weight = on_device(trunk.weight(shape.id)?)?;
                    Ok((shape.id, stages.execution.compute().download(&weight)?))
                })
                .collect(),
        }
    }
}

/// A layer without its experts: the zeroed Linears, and the kept experts' source for the rest.
pub(super) struct MaskedTrunk<'a> {
    kept: &'a KeptExperts<'a>,
    linears: BTreeMap<LinearId, TensorBytes<'static>>,
}

impl<'a> MaskedTrunk<'a> {
    /// A weight before it was masked.
    fn weight(&self, layer: usize, id: LinearId) -> Result<TensorBytes<'a>, Error> {
        let kept: &'a KeptExperts<'a> = self.kept;
        kept.tensor(TensorId::linear(layer, id)).map_err(Error::stage("reading weights", layer))
    }
}

impl TensorSource for MaskedTrunk<'_> {
    fn tensor(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        if let TensorId::Layer(_, LayerTensor::Linear(linear)) = id
            && let Some(tensor) = self.linears.get(&linear)
        {
            return Ok(TensorBytes::new(tensor.dtype(), tensor.shape(), tensor.bytes())?);
        }
        self.kept.tensor(id)
    }
}

fn place(projection: MlpProjection) -> usize {
    MlpProjection::ALL.iter().position(|&p| p == projection).unwrap_or(0)
}

fn on_device(weight: Option<Tensor>) -> Result<Tensor, Error> {
    weight.ok_or_else(|| {
        Error::Request("a weight is not on the device that it was brought to".into())
    })
}
