//! Multi-head latent attention.

use candle_core::Tensor;
use moeprune_core::{LatentAttention, LayerTensor, LinearId, Reach, TensorId};

use super::{
    causal,
    heads::Heads,
    lightning_indexer::{Indexer, KeySelection},
};
use crate::{
    ActivationSink, Error,
    cache::SequenceCache,
    linear::{Linear, Weights},
    norm::RmsNorm,
    rotary::Rotary,
};

/// Keys and values are made of the latent again for every head; so they are cached.
#[derive(Debug)]
pub(crate) struct Latent {
    shape: LatentAttention,
    query: Query,
    kv_a: Linear,
    kv_norm: RmsNorm,
    kv_b: Linear,
    selection: KeySelection,
    output: Linear,
    heads: Heads<'static>,
    rotary: Rotary,
}

#[derive(Debug)]
enum Query {
    Direct(Linear),
    Latent { down: Linear, norm: RmsNorm, up: Linear },
}

impl Latent {
    pub(super) fn load(
        weights: Weights<'_>,
        layer: usize,
        hidden: usize,
        shape: &LatentAttention,
    ) -> Result<Self, Error> {
        let linear = |id: LinearId, rows: usize, cols: usize, bias: bool| {
            weights.linear_with(&[(TensorId::linear(layer, id), rows)], cols, bias)
        };
        let norm = |tensor: LayerTensor, width: usize| {
            let id = TensorId::Layer(layer, tensor);
            RmsNorm::load(weights, id, width, LatentAttention::NORM_EPS)
        };
        let heads = heads(shape)?;
        let queries = shape.query_width();
        let query = match shape.query_rank {
            None => Query::Direct(linear(LatentAttention::QUERY, queries, hidden, false)?),
            Some(rank) => Query::Latent {
                down: linear(LatentAttention::Q_A, rank, hidden, shape.biases)?,
                norm: norm(LatentAttention::QUERY_NORM, rank)?,
                up: linear(LatentAttention::Q_B, queries, rank, false)?,
            },
        };
        let (latent, values) = (shape.kv_rank + shape.rope_dim, shape.heads * shape.value_dim);
        let keys_and_values = shape.heads * shape.nope_dim + values;
        let selection = match (&shape.indexer, shape.query_rank) {
            (None, _) => KeySelection::All,
            (Some(indexer), _) if indexer.shared => {
                KeySelection::TakenOver { layer, top_k: indexer.top_k }
            }
            (Some(indexer), Some(rank)) => {
                KeySelection::Own(Box::new(Indexer::load(weights, layer, (hidden, rank), indexer)?))
            }
            (Some(_), None) => {
                return Err(Error::Spec("an indexer without a latent of queries".into()));
            }
        };
        Ok(Self {
            query,
            selection,
            kv_a: linear(LatentAttention::KV_A, latent, hidden, shape.biases)?,
            kv_norm: norm(LatentAttention::KV_NORM, shape.kv_rank)?,
            kv_b: linear(LatentAttention::KV_B, keys_and_values, shape.kv_rank, false)?,
            output: linear(LatentAttention::OUTPUT, hidden, values, shape.biases)?,
            heads,
            rotary: Rotary::new(shape.rotary.as_ref()),
            shape: shape.clone(),
        })
    }

    pub(super) fn stored(&self, linear: LinearId) -> Result<Option<Tensor>, Error> {
        match (linear, &self.query) {
            (LatentAttention::QUERY, Query::Direct(query)) => query.stored(),
            (LatentAttention::Q_A, Query::Latent { down, .. }) => down.stored(),
            (LatentAttention::Q_B, Query::Latent { up, .. }) => up.stored(),
            (LatentAttention::KV_A, _) => self.kv_a.stored(),
            (LatentAttention::KV_B, _) => self.kv_b.stored(),
            (LatentAttention::OUTPUT, _) => self.output.stored(),
            _ => Ok(None),
        }
    }

    /// Whether it sees the keys that a layer before it selected.
    pub(super) fn takes_over_keys(&self) -> bool {
        matches!(self.selection, KeySelection::TakenOver { .. })
    }

    pub(super) fn forward(
        &self,
        x: &Tensor,
        lens: &[usize],
        caches: &mut [SequenceCache],
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        sink.linear_input(self.shape.input(), x)?;
        let queries = match &self.query {
            Query::Direct(query) => {
                self.selection.select(x, None, lens, caches)?;
                query.forward(x)?
            }
            Query::Latent { down, norm, up } => {
                let latent = norm.forward(&down.forward(x)?)?;
                sink.linear_input(LatentAttention::Q_B, &latent)?;
                self.selection.select(x, Some(&latent), lens, caches)?;
                up.forward(&latent)?
            }
        };
        let LatentAttention { kv_rank, rope_dim, .. } = self.shape;
        let latent_and_rope = self.kv_a.forward(x)?;
        let latent = latent_and_rope.narrow(1, 0, kv_rank)?.contiguous()?;
        let rope_key = latent_and_rope.narrow(1, kv_rank, rope_dim)?;
        let latent = self.kv_norm.forward(&latent)?;
        sink.linear_input(LatentAttention::KV_B, &latent)?;
        let qkv = self.arranged(&queries, &rope_key, &self.kv_b.forward(&latent)?)?;
        let mixed = causal::attend(self.heads, &qkv, lens, caches, &self.rotary)?;
        sink.linear_input(LatentAttention::OUTPUT, &mixed)?;
        self.output.forward(&mixed)
    }

    /// Rows of queries, keys and values, in whose heads the dimensions that turn come first: scores
    /// do not depend on their order.
    fn arranged(&self, queries: &Tensor, rope_key: &Tensor, kv: &Tensor) -> Result<Tensor, Error> {
        let LatentAttention { heads, nope_dim, rope_dim, value_dim, .. } = self.shape;
        let tokens = queries.dim(0)?;
        let queries = queries.reshape((tokens, heads, nope_dim + rope_dim))?;
        let (nope, rope) =
            (queries.narrow(2, 0, nope_dim)?, queries.narrow(2, nope_dim, rope_dim)?);
        let queries = Tensor::cat(&[&rope, &nope], 2)?;
        let kv = kv.reshape((tokens, heads, nope_dim + value_dim))?;
        let rope = rope_key.reshape((tokens, 1, rope_dim))?;
        let rope = rope.broadcast_as((tokens, heads, rope_dim))?.contiguous()?;
        let keys = Tensor::cat(&[&rope, &kv.narrow(2, 0, nope_dim)?], 2)?;
        let values = kv.narrow(2, nope_dim, value_dim)?.contiguous()?;
        let row = |heads: Tensor| heads.flatten_from(1);
        Ok(Tensor::cat(&[row(queries)?, row(keys)?, row(values)?], 1)?)
    }
}

fn heads(shape: &LatentAttention) -> Result<Heads<'static>, Error> {
    let turning = shape.rotary.as_ref().map_or(0, |rotary| rotary.dims);
    let widths = [shape.heads, shape.nope_dim, shape.rope_dim, shape.value_dim, shape.kv_rank];
    if widths.contains(&0) || shape.query_rank == Some(0) {
        return Err(Error::Spec("latent attention with a width of 0".into()));
    }
    if !turning.is_multiple_of(2) || turning > shape.rope_dim {
        let rope_dim = shape.rope_dim;
        return Err(Error::Spec(format!(
            "{turning} dimensions turn in rope keys of width {rope_dim}"
        )));
    }
    Ok(Heads {
        kv_heads: shape.heads,
        group: 1,
        dim: shape.head_dim(),
        value_dim: shape.value_dim,
        reach: Reach::Everything,
        factor: shape.score_factor(),
        sinks: None,
    })
}
