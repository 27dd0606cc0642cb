//! Work on stored bytes, with the CPU's forward pass.

use std::collections::BTreeMap;

use moeprune_core::{
    LayerTensor, LinearId, LinearShape, LinearView, MlpProjection, StageError, StoredWeight,
    TensorBytes, TensorId, TensorSource,
};
use moeprune_model::{Expert, ExpertTensors, LayerTrunk, for_each_expert};
use moeprune_score::{ScoreSum, weight_count_above, weight_score_sum};

use super::{Holds, Ready, Supply, Worker};
use crate::{Error, apply::in_place::MaskRequest};

/// Holds parts as they are stored.
pub(in crate::apply) struct HostWorker<'a>(pub(in crate::apply) Supply<'a>);

impl<'a> Worker<'a> for HostWorker<'a> {
    type Trunk = MaskedTrunk<'a>;
    type Expert = ExpertTensors<'a>;
    type Weight<'w>
        = StoredWeight<'w>
    where
        Self: 'w;
    type Finished = TensorBytes<'a>;

    fn holds(&self) -> Holds {
        Holds::Stored
    }

    fn load_trunk(&self, layer: usize) -> Result<Self::Trunk, Error> {
        Ok(MaskedTrunk { source: self.0.source, layer, linears: BTreeMap::new() })
    }

    fn load_expert(&self, layer: usize, expert: usize) -> Result<Self::Expert, Error> {
        Ok(ExpertTensors::read(self.0.source, self.0.spec, layer, expert)?)
    }

    fn for_each_expert(
        &self,
        layer: usize,
        experts: &[usize],
        visit: &mut dyn FnMut(usize, Self::Expert) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Supply { source, spec, .. } = self.0;
        for_each_expert(source, spec, layer, experts, |stored| visit(stored.expert, stored))
    }

    fn ready_trunk<'t>(&self, trunk: &'t Self::Trunk) -> Result<Ready<'t, LayerTrunk>, Error> {
        let Supply { spec, execution, .. } = self.0;
        let loaded = LayerTrunk::load(trunk, spec, trunk.layer, execution.compute())?;
        Ok(Ready::Loaded(Box::new(loaded)))
    }

    fn ready_expert<'e>(&self, expert: &'e Self::Expert) -> Result<Ready<'e, Expert>, Error> {
        let Supply { spec, execution, .. } = self.0;
        let loaded = Expert::load(expert, spec, expert.layer, expert.expert, execution.compute())?;
        Ok(Ready::Loaded(Box::new(loaded)))
    }

    fn mask_trunk(&self, trunk: &mut Self::Trunk, masking: &MaskRequest<'_>) -> Result<(), Error> {
        let linear = masking.linear.id;
        let masked = masking.of_stored(trunk.weight(linear)?)?;
        trunk.linears.insert(linear, masked);
        Ok(())
    }

    fn mask_expert(
        &self,
        expert: &mut Self::Expert,
        projection: MlpProjection,
        masking: &MaskRequest<'_>,
    ) -> Result<(), Error> {
        let Some(weight) = expert.linear_mut(projection) else { return Ok(()) };
        let masked = masking.of_stored(weight.view())?;
        *weight = weight.clone().with_main(masked)?;
        Ok(())
    }

    fn trunk_weight<'w>(
        &self,
        trunk: &'w Self::Trunk,
        linear: LinearId,
    ) -> Result<Self::Weight<'w>, Error>
    where
        Self: 'w,
    {
        trunk.weight(linear)
    }

    fn expert_weight<'w>(
        &self,
        expert: &'w Self::Expert,
        projection: MlpProjection,
    ) -> Result<Self::Weight<'w>, Error>
    where
        Self: 'w,
    {
        let weight = expert.linear(projection).ok_or_else(|| no_matrix(expert, projection))?;
        Ok(weight.view())
    }

    fn score_sum<'w>(
        &self,
        weight: &Self::Weight<'w>,
        linear: &LinearView<'_>,
    ) -> Result<ScoreSum, Error>
    where
        Self: 'w,
    {
        Ok(weight_score_sum(weight, linear, &*self.0.weights.scored().scorer)?)
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
        Ok(weight_count_above(weight, linear, &*self.0.weights.scored().scorer, threshold)?)
    }

    fn finish_trunk(
        &self,
        trunk: Self::Trunk,
        _masked: &[LinearShape],
    ) -> Result<BTreeMap<LinearId, TensorBytes<'static>>, Error> {
        Ok(trunk.linears)
    }

    fn finish_expert(
        &self,
        expert: Self::Expert,
    ) -> Result<Vec<(MlpProjection, Self::Finished)>, Error> {
        let linear = |(id, weight): (LayerTensor, StoredWeight<'a>)| match id {
            LayerTensor::Linear(LinearId::Expert(_, projection)) => {
                Some((projection, weight.into_parts().0))
            }
            _ => None,
        };
        Ok(expert.tensors.into_iter().filter_map(linear).collect())
    }

    fn fetch(&self, finished: Self::Finished) -> Result<TensorBytes<'a>, Error> {
        Ok(finished)
    }
}

/// A layer without its experts: the zeroed Linears, and the source for the rest.
pub(in crate::apply) struct MaskedTrunk<'a> {
    source: &'a dyn TensorSource,
    layer: usize,
    linears: BTreeMap<LinearId, TensorBytes<'static>>,
}

impl<'a> MaskedTrunk<'a> {
    /// A weight before it was masked.
    fn weight(&self, id: LinearId) -> Result<StoredWeight<'a>, Error> {
        let source: &'a dyn TensorSource = self.source;
        source
            .weight(TensorId::linear(self.layer, id))
            .map_err(Error::stage("reading weights", self.layer))
    }
}

impl TensorSource for MaskedTrunk<'_> {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        if let TensorId::Layer(_, LayerTensor::Linear(linear)) = id
            && let Some(tensor) = self.linears.get(&linear)
        {
            return Ok(self.source.weight(id)?.with_main(tensor.view())?);
        }
        self.source.weight(id)
    }
}

fn no_matrix(expert: &ExpertTensors<'_>, projection: MlpProjection) -> Error {
    let id = LinearId::Expert(expert.expert, projection);
    moeprune_model::Error::Spec(format!("layer {} has no {id}", expert.layer)).into()
}
