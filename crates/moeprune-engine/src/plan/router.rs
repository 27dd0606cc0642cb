//! The router of a layer, read.

use moeprune_core::{
    LayerBehaviour, LayerTensor, LinearId, MatrixView, NormWeights, RouterInput, TensorId,
    TensorSource as _,
};

use crate::{Error, Model, finite::Finite};

/// The router of a layer, and what its input is multiplied by.
#[derive(Debug)]
pub struct Router {
    /// Which layer, of the decoder's or behind them.
    pub layer: usize,
    experts: usize,
    hidden: usize,
    values: Vec<f32>,
    bias: Option<Vec<f32>>,
    scale: Vec<f32>,
}

impl Router {
    /// Reads the router of a layer.
    ///
    /// # Errors
    /// If it cannot be read or is not finite.
    pub fn read(model: &dyn Model, layer: usize) -> Result<Self, Error> {
        let (spec, weights) = (model.spec(), Finite(model));
        let read = |id: TensorId| -> Result<Vec<f32>, Error> {
            let tensor = weights.tensor(id).map_err(Error::stage("reading the router", layer))?;
            Ok(tensor.to_f32()?)
        };
        let bias = TensorId::Layer(layer, LayerTensor::Bias(LinearId::Router));
        let mut scale = vec![1.0; spec.hidden];
        for id in spec.router_scales(layer) {
            let is_norm = id != TensorId::Layer(layer, RouterInput::SCALE);
            let lacks_one = is_norm && spec.norm_weights == NormWeights::MinusOne;
            let less = if lacks_one { 1.0 } else { 0.0 };
            for (scale, weight) in scale.iter_mut().zip(read(id)?) {
                *scale *= weight + less;
            }
        }
        Ok(Self {
            layer,
            experts: spec.moe_of(layer).map_or(0, |moe| moe.experts),
            hidden: spec.hidden,
            values: read(TensorId::linear(layer, LinearId::Router))?,
            bias: spec.part(bias).map(|part| read(part.id)).transpose()?,
            scale,
        })
    }

    /// `[experts, hidden]`, row-major.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// `[experts, hidden]`
    ///
    /// # Errors
    /// If the tensor has another shape.
    pub fn view(&self) -> Result<MatrixView<'_>, Error> {
        Ok(MatrixView::new(self.experts, self.hidden, &self.values)?)
    }

    /// What is known of the layer without an observation.
    ///
    /// # Errors
    /// If the tensor has another shape.
    pub fn behaviour(&self) -> Result<LayerBehaviour<'_>, Error> {
        Ok(LayerBehaviour {
            router_bias: self.bias.as_deref(),
            router_scale: Some(&self.scale),
            ..LayerBehaviour::new(self.layer, self.view()?)
        })
    }
}
