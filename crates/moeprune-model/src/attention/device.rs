//! Attention through candle's operations, for devices and for types other than f32.

use candle_core::{DType, Device, Tensor};
use candle_nn::{ops::softmax_last_dim, rotary_emb::rope};

use super::Heads;
use crate::{
    Error,
    cache::{SequenceCache, Store},
    ops::wide,
    rotary::RotaryTable,
};

/// As the host's: `qkv` is `[tokens, row_width]`; returns `[tokens, query_width]`.
pub(super) fn attend(
    heads: Heads,
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
    heads: Heads,
    qkv: &Tensor,
    cache: &mut SequenceCache,
    table: &RotaryTable,
) -> Result<Tensor, Error> {
    let (len, dtype, device) = (qkv.dim(0)?, qkv.dtype(), qkv.device());
    let (queries, kv) = (heads.query_width(), heads.kv_width());
    let angles =
        |values: &[f32]| Tensor::from_slice(values, (len, heads.dim / 2), device)?.to_dtype(dtype);
    let cos = angles(table.cos(cache.next(), len))?;
    let sin = angles(table.sin(cache.next(), len))?;
    let split = |start: usize, width: usize| {
        let heads_first =
            qkv.narrow(1, start, width)?.reshape((1, len, width / heads.dim, heads.dim))?;
        heads_first.transpose(1, 2)?.contiguous()
    };
    let query = rope(&split(0, queries)?, &cos, &sin)?;
    let key = rope(&split(queries, kv)?, &cos, &sin)?;
    let value = split(queries + kv, kv)?;
    let (key, value) = match &cache.store {
        Store::Device(keys, values) => {
            (Tensor::cat(&[keys, &key], 2)?, Tensor::cat(&[values, &value], 2)?)
        }
        _ => (key, value),
    };
    let before = cache.len;
    cache.len += len;
    cache.store = Store::Device(key.clone(), value.clone());

    let all = cache.len;
    let query = query.reshape((heads.kv_heads, heads.group * len, heads.dim))?;
    let scores = query.matmul(&key.squeeze(0)?.t()?)?.to_dtype(wide(dtype))?;
    let mut scores = (scores * (1.0 / (heads.dim as f64).sqrt()))?;
    if len > 1 || heads.window.is_some() {
        let mask = hidden_keys(heads, before, len, device)?.to_dtype(scores.dtype())?;
        scores = scores
            .reshape((heads.kv_heads, heads.group, len, all))?
            .broadcast_add(&mask)?
            .reshape((heads.kv_heads, heads.group * len, all))?;
    }
    let weights = softmax_last_dim(&scores)?.to_dtype(dtype)?;
    let mixed = weights.matmul(&value.squeeze(0)?)?;
    let by_token =
        mixed.reshape((heads.kv_heads * heads.group, len, heads.dim))?.transpose(0, 1)?;
    Ok(by_token.reshape((len, queries))?)
}

/// `[len, before + len]`: 0 where a query sees a key, minus infinity where not.
fn hidden_keys(heads: Heads, before: usize, len: usize, device: &Device) -> Result<Tensor, Error> {
    let all = before + len;
    let mut mask = vec![f32::NEG_INFINITY; len * all];
    for (t, row) in mask.chunks_exact_mut(all).enumerate() {
        row[heads.first_visible(before + t)..=before + t].fill(0.0);
    }
    Ok(Tensor::from_vec(mask, (len, all), device)?.to_dtype(DType::F32)?)
}
