//! Attention through candle's operations, for devices and for types other than f32.

use std::ops::Range;

use candle_core::{Device, Tensor};
use candle_nn::{
    ops::softmax_last_dim,
    rotary_emb::{rope, rope_i},
};
use moeprune_core::{Reach, RotaryStyle};

use super::heads::Heads;
use crate::{
    Error,
    cache::{SequenceCache, Store},
    ops::wide,
    rotary::RotaryTable,
    selected_keys::SelectedKeys,
};

/// Queries of a sequence whose scores exist at once on a device; keys that none of them sees are left
/// out.
pub const DEVICE_QUERIES: usize = 512;

/// As the host's: `qkv` is `[tokens, row_width]`; returns `[tokens, output_width]`.
pub(super) fn attend(
    heads: Heads<'_>,
    qkv: &Tensor,
    lens: &[usize],
    caches: &mut [SequenceCache],
    table: &RotaryTable,
) -> Result<Tensor, Error> {
    let mut first = 0;
    let mut mixed = Vec::with_capacity(lens.len());
    for (cache, &len) in caches.iter_mut().zip(lens) {
        mixed.push(attend_one(heads, &qkv.narrow(0, first, len)?, cache, table)?);
        first += len;
    }
    Ok(Tensor::cat(&mixed, 0)?)
}

fn attend_one(
    heads: Heads<'_>,
    qkv: &Tensor,
    cache: &mut SequenceCache,
    table: &RotaryTable,
) -> Result<Tensor, Error> {
    let len = qkv.dim(0)?;
    let split = |start: usize, width: usize, dim: usize| {
        let heads_first = qkv.narrow(1, start, width)?.reshape((1, len, width / dim, dim))?;
        heads_first.transpose(1, 2)?.contiguous()
    };
    let (queries, keys) = (heads.query_width(), heads.key_width());
    let query = turned(&split(0, queries, heads.dim)?, table, cache.next())?;
    let key = turned(&split(queries, keys, heads.dim)?, table, cache.next())?;
    let value = split(queries + keys, heads.value_width(), heads.value_dim)?;
    let (key, value) = match &cache.store {
        Store::Device(keys, values) => {
            (Tensor::cat(&[keys, &key], 2)?, Tensor::cat(&[values, &value], 2)?)
        }
        _ => (key, value),
    };
    let before = cache.len;
    cache.len += len;
    cache.store = Store::Device(key.clone(), value.clone());

    let query = query.reshape((heads.kv_heads, heads.group, len, heads.dim))?;
    let (key, value) = (key.squeeze(0)?, value.squeeze(0)?);
    let mut mixed = Vec::with_capacity(len.div_ceil(DEVICE_QUERIES));
    for first in (0..len).step_by(DEVICE_QUERIES) {
        let count = DEVICE_QUERIES.min(len - first);
        let seen = heads.first_visible(cache.first, before + first)..before + first + count;
        let rows = heads.group * count;
        let query = query.narrow(2, first, count)?.reshape((heads.kv_heads, rows, heads.dim))?;
        let keys = key.narrow(1, seen.start, seen.len())?;
        let scores = query.matmul(&keys.t()?)?;
        let queries = Queries {
            count,
            first: before + first,
            seen: seen.clone(),
            origin: cache.first,
            selected: cache.selected.as_deref(),
        };
        let weights = shares(heads, scores, &queries)?;
        let values = value.narrow(1, seen.start, seen.len())?;
        let some = weights.matmul(&values)?;
        mixed.push(some.reshape((heads.kv_heads * heads.group, count, heads.value_dim))?);
    }
    let by_token = Tensor::cat(&mixed, 1)?.transpose(0, 1)?;
    Ok(by_token.reshape((len, heads.output_width()))?)
}

/// Heads `[1, heads, tokens, dim]` with their first dimensions turned; the first token stands at position
/// `start`.
pub(super) fn turned(heads: &Tensor, table: &RotaryTable, start: usize) -> Result<Tensor, Error> {
    let (dims, dim, len) = (table.dims(), heads.dim(3)?, heads.dim(2)?);
    if dims == 0 {
        return Ok(heads.clone());
    }
    let angles = |values: &[f32]| {
        Tensor::from_slice(values, (len, dims / 2), heads.device())?.to_dtype(heads.dtype())
    };
    let (cos, sin) = (angles(table.cos(start, len))?, angles(table.sin(start, len))?);
    let turn = |heads: &Tensor| match table.style() {
        RotaryStyle::Half => rope(heads, &cos, &sin),
        RotaryStyle::Pair => rope_i(heads, &cos, &sin),
    };
    if dims == dim {
        return Ok(turn(heads)?);
    }
    let first = turn(&heads.narrow(3, 0, dims)?.contiguous()?)?;
    Ok(Tensor::cat(&[&first, &heads.narrow(3, dims, dim - dims)?], 3)?)
}

/// Queries that are scored together.
struct Queries<'a> {
    count: usize,
    /// The key at which the first of them stands.
    first: usize,
    /// The keys that are scored.
    seen: Range<usize>,
    /// Position of key 0.
    origin: usize,
    /// Which of the keys each query sees; `None`: all that the heads' shape allows.
    selected: Option<&'a SelectedKeys>,
}

/// Softmax of the scores of queries, `[kv_heads, group · count, keys]`, over the keys that each sees.
fn shares(heads: Heads<'_>, scores: Tensor, queries: &Queries<'_>) -> Result<Tensor, Error> {
    let count = queries.count;
    let (scale, dtype) = (heads.factor / (heads.dim as f64).sqrt(), scores.dtype());
    #[cfg(feature = "cuda")]
    if scores.device().is_cuda() && heads.sinks.is_none() && queries.selected.is_none() {
        let window = match heads.reach {
            Reach::Everything => Some(None),
            Reach::Window(window) => Some(Some(window)),
            Reach::Chunk(_) => None,
        };
        if let Some(window) = window {
            let place = queries.first - queries.seen.start;
            crate::cuda::masked_softmax(&scores, count, place, window, scale)?;
            return Ok(scores);
        }
    }
    let keys = scores.dim(2)?;
    let mut scores = (scores.to_dtype(wide(dtype))? * scale)?;
    if count > 1 || heads.reach != Reach::Everything || queries.selected.is_some() {
        let mask = hidden_keys(heads, queries, scores.device())?;
        scores = scores
            .reshape((heads.kv_heads, heads.group, count, keys))?
            .broadcast_add(&mask.to_dtype(scores.dtype())?)?
            .reshape((heads.kv_heads, heads.group * count, keys))?;
    }
    let Some(sinks) = heads.sinks else {
        return Ok(softmax_last_dim(&scores)?.to_dtype(dtype)?);
    };
    let sinks = Tensor::from_slice(sinks, (heads.kv_heads, heads.group, 1), scores.device())?;
    let sinks = sinks.to_dtype(scores.dtype())?;
    let sinks = sinks.broadcast_as((heads.kv_heads, heads.group, count))?;
    let sinks = sinks.reshape((heads.kv_heads, heads.group * count, 1))?;
    let shares = softmax_last_dim(&Tensor::cat(&[&scores, &sinks], 2)?)?;
    Ok(shares.narrow(2, 0, keys)?.contiguous()?.to_dtype(dtype)?)
}

/// `[count, keys]`: 0 where a query sees a key, minus infinity where not.
fn hidden_keys(heads: Heads<'_>, queries: &Queries<'_>, device: &Device) -> Result<Tensor, Error> {
    let Queries { count, first, ref seen, origin, selected } = *queries;
    let keys = seen.len();
    let mut mask = vec![f32::NEG_INFINITY; count * keys];
    for (t, row) in mask.chunks_exact_mut(keys).enumerate() {
        let query = first + t;
        let visible = heads.first_visible(origin, query) - seen.start;
        row[visible..=query - seen.start].fill(0.0);
        if let Some(selected) = selected {
            selected.hide(query, seen.clone(), row, f32::NEG_INFINITY);
        }
    }
    Ok(Tensor::from_vec(mask, (count, keys), device)?)
}
