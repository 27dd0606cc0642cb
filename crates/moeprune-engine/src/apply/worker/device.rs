//! Work on tensors that are held on a device, in the type that they are stored in.

use std::collections::BTreeMap;

use candle_core::Tensor;
use moeprune_core::{LinearId, LinearShape, LinearView, MlpProjection, TensorBytes};
use moeprune_model::{Expert, LayerTrunk, for_each_uploaded_expert};
use moeprune_score::ScoreSum;

use super::{Holds, Ready, Supply, Worker};
use crate::{
    Error,
    apply::in_place::{MaskRequest, count_above_of, score_sum_of},
};

/// Holds parts where they run, and zeroes weights where they lie.
pub(in crate::apply) struct DeviceWorker<'a>(pub(in crate::apply) Supply<'a>);

impl<'a> Worker<'a> for DeviceWorker<'a> {
    type Trunk = LayerTrunk;
    type Expert = Expert;
    /// `[rows, cols]` in the type it is stored in, as those that are finished.
    type Weight<'w>
        = Tensor
    where
        Self: 'w;
    type Finished = Tensor;

    fn holds(&self) -> Holds {
        Holds::Loaded
    }

    fn load_trunk(&self, layer: usize) -> Result<Self::Trunk, Error> {
        let Supply { source, spec, execution, .. } = self.0;
        Ok(LayerTrunk::load(source, spec, layer, execution.compute())?)
    }

    fn load_expert(&self, layer: usize, expert: usize) -> Result<Self::Expert, Error> {
        let Supply { source, spec, execution, .. } = self.0;
        Ok(Expert::load(source, spec, layer, expert, execution.compute())?)
    }

    fn for_each_expert(
        &self,
        layer: usize,
        experts: &[usize],
        visit: &mut dyn FnMut(usize, Self::Expert) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Supply { source, spec, execution, .. } = self.0;
        let visit = |expert: Expert| visit(expert.index(), expert);
        for_each_uploaded_expert(source, spec, execution.compute(), layer, experts, visit)
    }

    fn ready_trunk<'t>(&self, trunk: &'t Self::Trunk) -> Result<Ready<'t, LayerTrunk>, Error> {
        Ok(Ready::Held(trunk))
    }

    fn ready_expert<'e>(&self, expert: &'e Self::Expert) -> Result<Ready<'e, Expert>, Error> {
        Ok(Ready::Held(expert))
    }

    fn mask_trunk(&self, trunk: &mut Self::Trunk, masking: &MaskRequest<'_>) -> Result<(), Error> {
        masking.in_place(&on_device(trunk.weight(masking.linear.id)?)?)
    }

    fn mask_expert(
        &self,
        expert: &mut Self::Expert,
        projection: MlpProjection,
        masking: &MaskRequest<'_>,
    ) -> Result<(), Error> {
        masking.in_place(&on_device(expert.weight(projection)?)?)
    }

    fn trunk_weight<'w>(
        &self,
        trunk: &'w Self::Trunk,
        linear: LinearId,
    ) -> Result<Self::Weight<'w>, Error>
    where
        Self: 'w,
    {
        on_device(trunk.weight(linear)?)
    }

    fn expert_weight<'w>(
        &self,
        expert: &'w Self::Expert,
        projection: MlpProjection,
    ) -> Result<Self::Weight<'w>, Error>
    where
        Self: 'w,
    {
        on_device(expert.weight(projection)?)
    }

    fn score_sum<'w>(
        &self,
        weight: &Self::Weight<'w>,
        linear: &LinearView<'_>,
    ) -> Result<ScoreSum, Error>
    where
        Self: 'w,
    {
        score_sum_of(weight, linear, self.0.weights, self.0.execution)
    }

    fn count_above<'w>(
        &self,
        weight: &Self::Weight<'w>,
        linear: &LinearView<'_>,
        threshold: f64,
    ) -> Result<u64, Error>
    where
        Self: 'w,
    {
        count_above_of(weight, linear, threshold, self.0.weights, self.0.execution)
    }

    fn finish_trunk(
        &self,
        trunk: Self::Trunk,
        masked: &[LinearShape],
    ) -> Result<BTreeMap<LinearId, TensorBytes<'static>>, Error> {
        let fetch = |shape: &LinearShape| {
            let weight = on_device(trunk.weight(shape.id)?)?;
            Ok((shape.id, self.0.execution.compute().download(&weight)?))
        };
        masked.iter().map(fetch).collect()
    }

    fn finish_expert(
        &self,
        expert: Self::Expert,
    ) -> Result<Vec<(MlpProjection, Self::Finished)>, Error> {
        let finish =
            |&projection: &MlpProjection| Ok((projection, on_device(expert.weight(projection)?)?));
        expert.projections().iter().map(finish).collect()
    }

    fn fetch(&self, finished: Self::Finished) -> Result<TensorBytes<'a>, Error> {
        Ok(self.0.execution.compute().download(&finished)?)
    }
}

fn on_device(weight: Option<Tensor>) -> Result<Tensor, Error> {
    weight.ok_or_else(|| {
        Error::Request("a weight is not on the device that it was brought to".into())
    })
}
