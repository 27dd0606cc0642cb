//! Grouped-query attention.

use candle_core::Tensor;
use candle_nn::ops::sigmoid;
use moeprune_core::{
    AttentionProjection, GroupedAttention, LayerTensor, LinearId, ModelSpec, QueryKeyNorm,
    QueryTemperature, Reach, TensorId, ValueSource,
};

use super::{causal, heads::Heads};
use crate::{
    ActivationSink, Error,
    cache::SequenceCache,
    linear::{Linear, Weights},
    norm::RmsNorm,
    ops::wide,
    rotary::Rotary,
};

/// Query heads share key and value heads in equal groups.
#[derive(Debug)]
pub(crate) struct Grouped {
    query_key_value: Linear,
    output: Linear,
    heads: Heads<'static>,
    /// The score of each query head's sink.
    sinks: Option<Vec<f32>>,
    rotary: Rotary,
    /// Of queries and of keys, over rows of their widths.
    norms: Option<(RmsNorm, RmsNorm)>,
    /// Whether queries and keys turn before their norms.
    turns_first: bool,
    temperature: Option<QueryTemperature>,
    values: ValueSource,
    value_norm: Option<RmsNorm>,
    clip: Option<f64>,
    /// Whether a gate of its output follows each head of the queries.
    output_gate: bool,
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
        let mut fused = vec![(id(Query), shape.query_rows()), (id(Key), kv)];
        if shape.values == ValueSource::Own {
            fused.push((id(Value), kv));
        }
        let norms = norms(weights, layer, spec, shape)?;
        let output = [(id(Output), spec.hidden)];
        let sinks = TensorId::Layer(layer, GroupedAttention::SINKS);
        let sinks = match shape.sinks {
            true => Some(weights.values(sinks, &[shape.heads])?),
            false => None,
        };
        Ok(Self {
            query_key_value: weights.linear_with(
                &fused,
                spec.hidden,
                shape.biases.query_key_value,
            )?,
            output: weights.linear_with(&output, query, shape.biases.output)?,
            heads,
            sinks,
            rotary: Rotary::new(shape.rotary.as_ref()),
            norms,
            turns_first: matches!(
                shape.norm,
                Some(QueryKeyNorm::PerHeadAfterRotary | QueryKeyNorm::UnweightedAfterRotary)
            ),
            temperature: shape.temperature,
            values: shape.values,
            value_norm: match shape.value_norm {
                true => Some(RmsNorm::unweighted(weights, shape.head_dim, spec.norm_eps)?),
                false => None,
            },
            clip: shape.clip,
            output_gate: shape.output_gate,
        })
    }

    pub(super) fn stored(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        let LinearId::Attention(projection) = linear else { return Ok(None) };
        let kv = self.heads.key_width();
        let gates = usize::from(self.output_gate) * self.heads.query_width();
        let query = self.heads.query_width() + gates;
        match projection {
            AttentionProjection::Query => self.query_key_value.stored_rows(0..query),
            AttentionProjection::Key => self.query_key_value.stored_rows(query..query + kv),
            AttentionProjection::Value if self.values == ValueSource::Keys => Ok(None),
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
        let heads = Heads { sinks: self.sinks.as_deref(), ..self.heads };
        let projected = self.query_key_value.forward(x)?;
        let projected = match self.values {
            ValueSource::Own => projected,
            ValueSource::Keys => {
                let kv = heads.key_width();
                let keys = projected.narrow(1, projected.dim(1)? - kv, kv)?;
                Tensor::cat(&[&projected, &keys], 1)?
            }
        };
        let (qkv, gates) = self.without_gates(projected)?;
        let still = Rotary::new(None);
        let (qkv, rotary) = if self.turns_first {
            (self.normed(causal::turn(heads, &qkv, lens, caches, &self.rotary)?)?, &still)
        } else {
            (self.normed(qkv)?, &self.rotary)
        };
        let qkv = match &self.temperature {
            None => qkv,
            Some(temperature) => causal::warmed(heads, &qkv, lens, caches, temperature)?,
        };
        let mut mixed = causal::attend(heads, &qkv, lens, caches, rotary)?;
        if let Some(gates) = gates {
            mixed = (mixed * gates)?;
        }
        sink.linear_input(LinearId::Attention(AttentionProjection::Output), &mixed)?;
        self.output.forward(&mixed)
    }

    /// Queries, keys and values, and what the output is multiplied by if there are gates.
    fn without_gates(&self, projected: Tensor) -> Result<(Tensor, Option<Tensor>), Error> {
        if !self.output_gate {
            return Ok((projected, None));
        }
        let (query, dim) = (self.heads.query_width(), self.heads.dim);
        let heads = projected.narrow(1, 0, 2 * query)?.contiguous()?;
        let heads = heads.reshape(((), query / dim, 2 * dim))?;
        let queries = heads.narrow(2, 0, dim)?.contiguous()?.flatten_from(1)?;
        let gates = heads.narrow(2, dim, dim)?.contiguous()?.flatten_from(1)?;
        let gates = sigmoid(&gates.to_dtype(wide(gates.dtype()))?)?.to_dtype(gates.dtype())?;
        let keys_and_values = projected.narrow(1, 2 * query, 2 * self.heads.key_width())?;
        Ok((Tensor::cat(&[&queries, &keys_and_values], 1)?, Some(gates)))
    }

    /// Norms of queries, keys and values, and limits of all three.
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
        let qkv = match &self.value_norm {
            None => qkv,
            Some(norm) => {
                let before = self.heads.query_width() + self.heads.key_width();
                let values = qkv.narrow(1, before, self.heads.value_width())?;
                let values = norm.forward_in_pieces(&values)?;
                Tensor::cat(&[&qkv.narrow(1, 0, before)?, &values], 1)?
            }
        };
        match self.clip {
            None => Ok(qkv),
            Some(clip) => Ok(qkv.clamp(-clip, clip)?),
        }
    }
}

/// The norms of queries and of keys, if there are some.
fn norms(
    weights: Weights<'_>,
    layer: usize,
    spec: &ModelSpec,
    shape: &GroupedAttention,
) -> Result<Option<(RmsNorm, RmsNorm)>, Error> {
    let norm = |tensor: LayerTensor, width: usize| {
        RmsNorm::of_model(weights, TensorId::Layer(layer, tensor), width, spec)
    };
    let widths = match shape.norm {
        None => return Ok(None),
        Some(QueryKeyNorm::UnweightedAfterRotary) => {
            let plain = || RmsNorm::unweighted(weights, shape.head_dim, spec.norm_eps);
            return Ok(Some((plain()?, plain()?)));
        }
        Some(QueryKeyNorm::PerHead | QueryKeyNorm::PerHeadAfterRotary) => {
            (shape.head_dim, shape.head_dim)
        }
        Some(QueryKeyNorm::FullWidth) => (shape.query_width(), shape.kv_width()),
    };
    let of_queries = norm(GroupedAttention::QUERY_NORM, widths.0)?;
    Ok(Some((of_queries, norm(GroupedAttention::KEY_NORM, widths.1)?)))
}

fn heads(shape: &GroupedAttention) -> Result<Heads<'static>, Error> {
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
    if matches!(shape.reach, Reach::Window(0) | Reach::Chunk(0)) {
        return Err(Error::Spec("a sliding window or a chunk of 0 sees nothing".into()));
    }
    let (group, reach) = (heads / kv_heads, shape.reach);
    let factor = shape.scale.map_or(1.0, |scale| scale * (dim as f64).sqrt());
    Ok(Heads { kv_heads, group, dim, value_dim: dim, reach, factor, sinks: None })
}
