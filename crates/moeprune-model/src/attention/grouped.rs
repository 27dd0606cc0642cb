//! Grouped-query attention.

use candle_core::Tensor;
use moeprune_core::{
    AttentionProjection, GroupedAttention, LayerTensor, LinearId, ModelSpec, QueryKeyNorm, TensorId,
};

use super::{causal, heads::Heads};
use crate::{
    ActivationSink, Error,
    cache::SequenceCache,
    linear::{Linear, Weights},
    norm::RmsNorm,
    rotary::Rotary,
};

/// Query heads share key and value heads in equal groups.
#[derive(Debug)]
pub(crate) struct Grouped {
    query_key_value: Linear,
    output: Linear,
    heads: Heads,
    rotary: Rotary,
    /// Of queries and of keys, over rows of their widths.
    norms: Option<(RmsNorm, RmsNorm)>,
    clip: Option<f64>,
}

impl Grouped {
    pub(super) fn load(
        weights: Weights<'_>,
        layer: usize,
        spec: &ModelSpec,
        shape: &GroupedAttention,
    ) -> Result<Self, Error> {
        use AttentionProjection::{Key, Output, Query, Value};
        let heads = heads(shape)?;
        let id = |p| TensorId::linear(layer, LinearId::Attention(p));
        let (query, kv) = (heads.query_width(), heads.key_width());
        let fused = [(id(Query), query), (id(Key), kv), (id(Value), kv)];
        let norm = |tensor: LayerTensor, width: usize| {
            RmsNorm::load(weights, TensorId::Layer(layer, tensor), width, spec.norm_eps)
        };
        let norms = match shape.norm {
            None => None,
            Some(norm_of) => {
                let (of_queries, of_keys) = match norm_of {
                    QueryKeyNorm::PerHead => (heads.dim, heads.dim),
                    QueryKeyNorm::FullWidth => (query, kv),
                };
                let of_queries = norm(GroupedAttention::QUERY_NORM, of_queries)?;
                Some((of_queries, norm(GroupedAttention::KEY_NORM, of_keys)?))
            }
        };
        let output = [(id(Output), spec.hidden)];
        Ok(Self {
            query_key_value: weights.linear_with(
                &fused,
                spec.hidden,
                shape.biases.query_key_value,
            )?,
            output: weights.linear_with(&output, query, shape.biases.output)?,
            heads,
            rotary: Rotary::new(shape.rotary.as_ref()),
            norms,
            clip: shape.clip,
        })
    }

    pub(super) fn stored(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        let LinearId::Attention(projection) = linear else { return Ok(None) };
        let (query, kv) = (self.heads.query_width(), self.heads.key_width());
        match projection {
            AttentionProjection::Query => self.query_key_value.stored_rows(0..query),
            AttentionProjection::Key => self.query_key_value.stored_rows(query..query + kv),
            AttentionProjection::Value => {
                self.query_key_value.stored_rows(query + kv..query + 2 * kv)
            }
            AttentionProjection::Output => self.output.stored(),
        }
    }

    pub(super) fn forward(
        &self,
        x: &Tensor,
        lens: &[usize],
        caches: &mut [SequenceCache],
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        sink.linear_input(LinearId::Attention(AttentionProjection::Query), x)?;
        let qkv = self.normed(self.query_key_value.forward(x)?)?;
        let mixed = causal::attend(self.heads, &qkv, lens, caches, &self.rotary)?;
        sink.linear_input(LinearId::Attention(AttentionProjection::Output), &mixed)?;
        self.output.forward(&mixed)
    }

    /// Norms of queries and keys, and limits of all three.
    fn normed(&self, qkv: Tensor) -> Result<Tensor, Error> {
        let qkv = match &self.norms {
            None => qkv,
            Some((of_queries, of_keys)) => {
                let (query, kv) = (self.heads.query_width(), self.heads.key_width());
                let queries = of_queries.forward_in_pieces(&qkv.narrow(1, 0, query)?)?;
                let keys = of_keys.forward_in_pieces(&qkv.narrow(1, query, kv)?)?;
                Tensor::cat(&[&queries, &keys, &qkv.narrow(1, query + kv, kv)?], 1)?
            }
        };
        match self.clip {
            None => Ok(qkv),
            Some(clip) => Ok(qkv.clamp(-clip, clip)?),
        }
    }
}

fn heads(shape: &GroupedAttention) -> Result<Heads, Error> {
    let (heads, kv_heads, dim) = (shape.heads, shape.kv_heads, shape.head_dim);
    let turning = shape.rotary.as_ref().map_or(0, |rotary| rotary.dims);
    if kv_heads == 0
        || heads == 0
        || heads % kv_heads != 0
        || dim == 0
        || !turning.is_multiple_of(2)
    {
        return Err(Error::Spec(format!(
            "{heads} query heads, {kv_heads} key-value heads of width {dim}, of which {turning} \
             turn: query heads must be a multiple of key-value heads, the width that turns even"
        )));
    }
    if turning > dim {
        return Err(Error::Spec(format!("{turning} dimensions turn in heads of width {dim}")));
    }
    if shape.sliding_window == Some(0) {
        return Err(Error::Spec("a sliding window of 0 sees nothing".into()));
    }
    let (group, window) = (heads / kv_heads, shape.sliding_window);
    Ok(Heads { kv_heads, group, dim, value_dim: dim, window, factor: 1.0 })
}
