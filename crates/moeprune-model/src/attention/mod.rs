//! Grouped-query attention, causal, with rotary positions.

use candle_core::{Device, Tensor};
use moeprune_core::{AttentionProjection, LinearId, ModelSpec, TensorId};

use crate::{
    ActivationSink, Error,
    cache::SequenceCache,
    linear::{Linear, Weights},
    ops::{self, is_host},
    rotary::Rotary,
    runnable,
};

mod device;
mod host;

pub use device::DEVICE_QUERIES;

pub(crate) use host::HeadCache;

/// `softmax(q · kᵀ / sqrt(head_dim)) · v` for each query head; query heads share key-value heads
/// in equal groups.
#[derive(Debug)]
pub(crate) struct Attention {
    query_key_value: Linear,
    output: Linear,
    heads: Heads,
    rotary: Rotary,
}

/// The shape of the attention.
#[derive(Debug, Clone, Copy)]
struct Heads {
    kv_heads: usize,
    /// Query heads to a key-value head.
    group: usize,
    dim: usize,
    /// A query sees this many positions, its own the last of them.
    window: Option<usize>,
}

impl Heads {
    fn query_width(self) -> usize {
        self.kv_heads * self.group * self.dim
    }

    fn kv_width(self) -> usize {
        self.kv_heads * self.dim
    }

    /// Width of a row of queries, keys and values.
    fn row_width(self) -> usize {
        self.query_width() + 2 * self.kv_width()
    }

    /// First key that the query at key index `query` sees.
    fn first_visible(self, query: usize) -> usize {
        self.window.map_or(0, |window| (query + 1).saturating_sub(window))
    }
}

impl Attention {
    pub(crate) fn load(
        weights: Weights<'_>,
        layer: usize,
        spec: &ModelSpec,
    ) -> Result<Self, Error> {
        use AttentionProjection::{Key, Output, Query, Value};
        let Some(parts) = spec.layers.get(layer) else {
            return Err(Error::Spec(format!("no layer {layer}")));
        };
        let shape = runnable::grouped(&parts.attention, layer)?;
        let (heads, kv_heads, dim) = (shape.heads, shape.kv_heads, shape.head_dim);
        if kv_heads == 0 || heads == 0 || heads % kv_heads != 0 || dim == 0 || dim % 2 != 0 {
            return Err(Error::Spec(format!(
                "{heads} query heads, {kv_heads} key-value heads of width {dim}: query heads must \
                 be a multiple of key-value heads, the width even"
            )));
        }
        if shape.sliding_window == Some(0) {
            return Err(Error::Spec("a sliding window of 0 sees nothing".into()));
        }
        let heads = Heads { kv_heads, group: heads / kv_heads, dim, window: shape.sliding_window };
        let id = |p| TensorId::linear(layer, LinearId::Attention(p));
        let (query, kv) = (heads.query_width(), heads.kv_width());
        let fused = [(id(Query), query), (id(Key), kv), (id(Value), kv)];
        Ok(Self {
            query_key_value: weights.linear(&fused, spec.hidden)?,
            output: weights.linear(&[(id(Output), spec.hidden)], query)?,
            heads,
            rotary: Rotary::new(shape.rope_theta, dim),
        })
    }

    /// A stored weight, sharing the memory of the one that runs; `None` where it was widened.
    pub(crate) fn stored(
        &self,
        projection: AttentionProjection,
        hidden: usize,
    ) -> Result<Option<Tensor>, Error> {
        let (query, kv) = (self.heads.query_width(), self.heads.kv_width());
        match projection {
            AttentionProjection::Query => self.query_key_value.stored_rows(0..query),
            AttentionProjection::Key => self.query_key_value.stored_rows(query..query + kv),
            AttentionProjection::Value => {
                self.query_key_value.stored_rows(query + kv..query + 2 * kv)
            }
            AttentionProjection::Output => self.output.stored_rows(0..hidden),
        }
    }

    /// `x` holds `lens[i]` tokens of sequence `i`, one sequence after the other,
    /// `[tokens, hidden]`; each continues what its cache holds, and is added to it.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        lens: &[usize],
        caches: &mut [SequenceCache],
        sink: &mut dyn ActivationSink,
    ) -> Result<Tensor, Error> {
        sink.linear_input(LinearId::Attention(AttentionProjection::Query), x)?;
        let qkv = self.query_key_value.forward(x)?;
        let last = caches.iter().zip(lens).map(|(c, len)| c.next() + len).max().unwrap_or(0);
        let table = self.rotary.table(last);
        let mixed = if is_host(&qkv) {
            let mixed =
                ops::with_slice(&qkv, |qkv| host::attend(self.heads, qkv, lens, caches, &table))?;
            Tensor::from_vec(mixed, (x.dim(0)?, self.heads.query_width()), &Device::Cpu)?
        } else {
            device::attend(self.heads, &qkv, lens, caches, &table)?
        };
        sink.linear_input(LinearId::Attention(AttentionProjection::Output), &mixed)?;
        self.output.forward(&mixed)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    fn noise(len: usize) -> Vec<f32> {
        let mut state = 17_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 4_194_304.0 - 2.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// One query head at a time, from the formula, in f64.
    fn by_definition(heads: Heads, qkv: &[f32], rotary: &Rotary, first: usize) -> Vec<f64> {
        let tokens = qkv.len() / heads.row_width();
        let table = rotary.table(first + tokens);
        let head = |t: usize, offset: usize, turn: bool| {
            let values = &qkv[t * heads.row_width() + offset..][..heads.dim];
            let mut turned = values.to_vec();
            if turn {
                table.rotate(first + t, values, &mut turned);
            }
            turned.into_iter().map(f64::from).collect::<Vec<_>>()
        };
        let mut out = Vec::new();
        for t in 0..tokens {
            for h in 0..heads.kv_heads * heads.group {
                let kv = h / heads.group;
                let query = head(t, h * heads.dim, true);
                let seen = heads.first_visible(t)..t + 1;
                let score = |s: usize| {
                    let key = head(s, heads.query_width() + kv * heads.dim, true);
                    let dot: f64 = query.iter().zip(&key).map(|(q, k)| q * k).sum();
                    (dot / (heads.dim as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = seen.clone().map(score).collect();
                let total: f64 = scores.iter().sum();
                let mut mixed = vec![0.0; heads.dim];
                for (s, p) in seen.zip(scores) {
                    let value =
                        head(s, heads.query_width() + heads.kv_width() + kv * heads.dim, false);
                    for (m, v) in mixed.iter_mut().zip(value) {
                        *m += p / total * v;
                    }
                }
                out.extend(mixed);
            }
        }
        out
    }

    fn check(kv_heads: usize, group: usize, window: Option<usize>, tokens: usize, calls: &[usize]) {
        let heads = Heads { kv_heads, group, dim: 8, window };
        let rotary = Rotary::new(100.0, 8);
        let qkv = noise(tokens * heads.row_width());
        let first = 3;
        let want = by_definition(heads, &qkv, &rotary, first);
        let table = rotary.table(first + tokens);
        let mut host_caches = [SequenceCache::starting_at(first)];
        let mut device_caches = [SequenceCache::starting_at(first)];
        let (mut on_host, mut on_device) = (Vec::new(), Vec::new());
        let mut start = 0;
        for &len in calls {
            let rows = &qkv[start * heads.row_width()..][..len * heads.row_width()];
            on_host.extend(host::attend(heads, rows, &[len], &mut host_caches, &table));
            let rows = Tensor::from_slice(rows, (len, heads.row_width()), &Device::Cpu).unwrap();
            let rows = rows.to_dtype(DType::F64).unwrap();
            let mixed = device::attend(heads, &rows, &[len], &mut device_caches, &table).unwrap();
            on_device.extend(ops::to_vec(&mixed).unwrap());
            start += len;
        }
        assert_eq!(start, tokens);
        assert_eq!((host_caches[0].len, device_caches[0].len), (tokens, tokens));
        for (name, got) in [("host", on_host), ("device", on_device)] {
            assert_eq!(got.len(), want.len());
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                assert!((f64::from(*g) - w).abs() < 2e-5, "{name} {i}: {g} {w}");
            }
        }
    }

    #[test]
    fn equals_the_definition() {
        check(1, 1, None, 1, &[1]);
        check(1, 1, None, 5, &[5]);
        check(2, 3, None, 7, &[7]);
        // More than one block of queries.
        check(2, 2, None, 150, &[150]);
        // On devices too, and the last one not full.
        check(1, 2, None, 1100, &[1100]);
    }

    #[test]
    fn equals_the_definition_with_a_cache() {
        check(2, 2, None, 6, &[1, 1, 1, 1, 1, 1]);
        check(1, 4, None, 100, &[90, 1, 9]);
        check(3, 1, None, 9, &[4, 5]);
    }

    #[test]
    fn equals_the_definition_with_a_window() {
        check(2, 2, Some(1), 5, &[5]);
        check(2, 2, Some(3), 150, &[150]);
        check(1, 2, Some(70), 150, &[100, 1, 49]);
        check(2, 1, Some(300), 1100, &[700, 400]);
        check(1, 2, Some(1000), 20, &[20]);
    }
}
