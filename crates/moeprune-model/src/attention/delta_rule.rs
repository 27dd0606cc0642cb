//! The gated delta rule: what a state per head remembers and gives back.

use std::ops::Range;

use candle_core::{D, Tensor};

use super::{
    head_states::{HeadRun, HeadStates, in_equal_lengths},
    softplus,
};
use crate::{
    Error,
    cache::SequenceCache,
    ops::{is_host, with_slice},
};

/// Added to the sum of squares that queries and keys are divided by the root of.
const LENGTH_EPS: f64 = 1e-6;

/// Shape of the heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeltaHeads {
    /// Heads of queries and keys; each serves as many neighbouring value heads.
    pub(super) key_heads: usize,
    pub(super) value_heads: usize,
    pub(super) key_dim: usize,
    pub(super) value_dim: usize,
    /// Whether each row of the state has its own decay.
    pub(super) by_row: bool,
}

/// What the rule reads of all tokens, in f32 or wider.
pub(super) struct DeltaInputs {
    /// `[tokens, key_heads · key_dim]`, not normalised.
    pub(super) queries: Tensor,
    /// `[tokens, key_heads · key_dim]`, not normalised.
    pub(super) keys: Tensor,
    /// `[tokens, value_heads · value_dim]`
    pub(super) values: Tensor,
    /// What the state is multiplied by, `[tokens, value_heads]`, or per row of it,
    /// `[tokens, value_heads · key_dim]`.
    pub(super) decay: Tensor,
    /// How much of the difference is stored, `[tokens, value_heads]`.
    pub(super) beta: Tensor,
}

/// `exp(−exp(log_decay) · softplus(x + bias))`; `x` and the result are `[tokens, heads · width]`,
/// `log_decay` is `[heads]`, `bias` `[heads · width]`.
pub(super) fn decay(x: &Tensor, log_decay: &Tensor, bias: &Tensor) -> Result<Tensor, Error> {
    let (tokens, heads) = (x.dim(0)?, log_decay.dim(0)?);
    let x = x.to_dtype(bias.dtype())?.broadcast_add(bias)?;
    let rate = log_decay.exp()?.neg()?.reshape((1, heads, 1))?;
    let exponent = softplus(&x)?.reshape((tokens, heads, ()))?.broadcast_mul(&rate)?;
    Ok(exponent.exp()?.reshape(x.shape())?)
}

impl DeltaHeads {
    fn rate_width(self) -> usize {
        if self.by_row { self.key_dim } else { 1 }
    }

    /// Runs the rule over `lens[i]` tokens of sequence `i`, one sequence after the other; each continues
    /// the state in its cache. Returns `[tokens, value_heads · value_dim]`.
    pub(super) fn run(
        self,
        inputs: DeltaInputs,
        lens: &[usize],
        caches: &mut [SequenceCache],
    ) -> Result<Tensor, Error> {
        let queries = self.of_unit_length(&inputs.queries)?;
        let queries = (queries / (self.key_dim as f64).sqrt())?;
        let keys = self.of_unit_length(&inputs.keys)?;
        let inputs = DeltaInputs { queries, keys, ..inputs };
        if is_host(&inputs.values) {
            return self.run_on_host(&inputs, lens, caches);
        }
        in_equal_lengths(lens, caches, &|rows, len, caches| {
            self.run_together(&inputs.rows(rows)?, len, caches)
        })
    }

    fn states(self) -> HeadStates {
        HeadStates { heads: self.value_heads, rows: self.key_dim, cols: self.value_dim }
    }

    /// Each head divided by its length.
    fn of_unit_length(self, x: &Tensor) -> Result<Tensor, Error> {
        let heads = x.reshape(((), self.key_heads, self.key_dim))?;
        let squares = heads.sqr()?.sum_keepdim(D::Minus1)?;
        let unit = heads.broadcast_div(&(squares + LENGTH_EPS)?.sqrt()?)?;
        Ok(unit.reshape(x.shape())?)
    }
}

impl DeltaInputs {
    fn rows(&self, rows: Range<usize>) -> Result<Self, Error> {
        let of = |x: &Tensor| x.narrow(0, rows.start, rows.len());
        Ok(Self {
            queries: of(&self.queries)?,
            keys: of(&self.keys)?,
            values: of(&self.values)?,
            decay: of(&self.decay)?,
            beta: of(&self.beta)?,
        })
    }
}

/// On slices: a head of a sequence at a time.
impl DeltaHeads {
    fn run_on_host(
        self,
        inputs: &DeltaInputs,
        lens: &[usize],
        caches: &mut [SequenceCache],
    ) -> Result<Tensor, Error> {
        let slices = |tensor: &Tensor| Ok::<_, Error>(tensor.flatten_all()?.to_vec1::<f32>()?);
        let (queries, keys) = (slices(&inputs.queries)?, slices(&inputs.keys)?);
        let (decay, beta) = (slices(&inputs.decay)?, slices(&inputs.beta)?);
        let tokens: usize = lens.iter().sum();
        let work = 3 * tokens * self.value_heads * self.key_dim * self.value_dim;
        with_slice(&inputs.values, |values| {
            let rows =
                HostRows { queries: &queries, keys: &keys, values, decay: &decay, beta: &beta };
            let run = |head: &mut HeadRun| self.run_head(head, &rows);
            self.states().run_each(lens, caches, (self.value_dim, work), &run)
        })?
    }

    /// Returns `[tokens, value_dim]`.
    fn run_head(self, run: &mut HeadRun, rows: &HostRows<'_>) -> Vec<f32> {
        let Self { key_heads, value_heads, key_dim, value_dim, .. } = self;
        let key_head = run.head * key_heads / value_heads;
        let mut outputs = vec![0.0; run.rows.len() * value_dim];
        let mut change = vec![0.0; value_dim];
        for (row, output) in run.rows.clone().zip(outputs.chunks_exact_mut(value_dim)) {
            let key_at = (row * key_heads + key_head) * key_dim;
            let (query, key) =
                (&rows.queries[key_at..][..key_dim], &rows.keys[key_at..][..key_dim]);
            let at = row * value_heads + run.head;
            let rates = &rows.decay[at * self.rate_width()..][..self.rate_width()];
            let value = &rows.values[at * value_dim..][..value_dim];
            change.fill(0.0);
            for ((state, k), rate) in
                run.state.chunks_exact_mut(value_dim).zip(key).zip(rates.iter().cycle())
            {
                for (s, c) in state.iter_mut().zip(&mut change) {
                    *s *= rate;
                    *c += k * *s;
                }
            }
            for (c, v) in change.iter_mut().zip(value) {
                *c = (v - *c) * rows.beta[at];
            }
            for ((state, k), q) in run.state.chunks_exact_mut(value_dim).zip(key).zip(query) {
                for ((s, c), o) in state.iter_mut().zip(&change).zip(output.iter_mut()) {
                    *s += k * c;
                    *o += q * *s;
                }
            }
        }
        outputs
    }
}

/// As [`DeltaInputs`], queries and keys normalised.
struct HostRows<'a> {
    queries: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    decay: &'a [f32],
    beta: &'a [f32],
}

/// Through candle's operations: all heads of all sequences, token by token.
impl DeltaHeads {
    /// All sequences have `len` tokens.
    fn run_together(
        self,
        inputs: &DeltaInputs,
        len: usize,
        caches: &mut [SequenceCache],
    ) -> Result<Tensor, Error> {
        let Self { value_heads, key_dim, value_dim, .. } = self;
        let batch = caches.len();
        if batch == 0 || len == 0 {
            return Ok(inputs.values.clone());
        }
        let (states, all) = (self.states(), batch * value_heads);
        let queries = states.by_token(&inputs.queries, batch, self.key_heads, key_dim)?;
        let keys = states.by_token(&inputs.keys, batch, self.key_heads, key_dim)?;
        let values = states.by_token(&inputs.values, batch, value_heads, value_dim)?;
        let decay = states.by_token(&inputs.decay, batch, value_heads, self.rate_width())?;
        let beta = states.by_token(&inputs.beta, batch, value_heads, 1)?;
        let mut state = states.begin_all(caches, &inputs.values)?;
        let mut outputs = Vec::with_capacity(len);
        for t in 0..len {
            let key = keys.get(t)?;
            let rates = decay.get(t)?.reshape((all, (), 1))?;
            state = state.broadcast_mul(&rates)?;
            let known = key.reshape((all, 1, key_dim))?.matmul(&state)?;
            let value = values.get(t)?.reshape((all, 1, value_dim))?;
            let change = (value - known)?.broadcast_mul(&beta.get(t)?.reshape((all, 1, 1))?)?;
            state = (state + key.reshape((all, key_dim, 1))?.matmul(&change)?)?;
            outputs.push(queries.get(t)?.reshape((all, 1, key_dim))?.matmul(&state)?);
        }
        states.keep_all(&state, caches)?;
        let mixed = Tensor::cat(&outputs, 1)?.reshape((batch, value_heads, len, value_dim))?;
        Ok(mixed.transpose(1, 2)?.reshape((batch * len, value_heads * value_dim))?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::ops;

    fn noise(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    fn inputs(heads: DeltaHeads, tokens: usize, dtype: DType) -> DeltaInputs {
        let tensor = |width: usize, seed: u32| {
            let values = noise(tokens * width, seed);
            Tensor::from_vec(values, (tokens, width), &Device::Cpu)
                .unwrap()
                .to_dtype(dtype)
                .unwrap()
        };
        DeltaInputs {
            queries: tensor(heads.key_heads * heads.key_dim, 1),
            keys: tensor(heads.key_heads * heads.key_dim, 2),
            values: tensor(heads.value_heads * heads.value_dim, 3),
            decay: tensor(heads.value_heads * heads.rate_width(), 4).abs().unwrap(),
            beta: tensor(heads.value_heads, 5).abs().unwrap(),
        }
    }

    /// A sequence from the formula: `(1 − β k kᵀ)` written out as a matrix.
    fn by_definition(heads: DeltaHeads, inputs: &DeltaInputs, head: usize) -> Vec<f64> {
        let DeltaHeads { key_heads, value_heads, key_dim, value_dim, .. } = heads;
        let key_head = head / (value_heads / key_heads);
        let rows = |tensor: &Tensor, at: usize, width: usize| -> Vec<Vec<f64>> {
            let rows = tensor.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
            rows.iter().map(|row| row[at * width..][..width].to_vec()).collect()
        };
        let unit = |row: &[f64]| {
            let length = (row.iter().map(|v| v * v).sum::<f64>() + 1e-6).sqrt();
            row.iter().map(|v| v / length).collect::<Vec<_>>()
        };
        let (queries, keys) =
            (rows(&inputs.queries, key_head, key_dim), rows(&inputs.keys, key_head, key_dim));
        let values = rows(&inputs.values, head, value_dim);
        let decay = rows(&inputs.decay, head, heads.rate_width());
        let beta = rows(&inputs.beta, head, 1);
        let mut state = vec![vec![0.0; value_dim]; key_dim];
        let mut outputs = Vec::new();
        for t in 0..values.len() {
            let (q, k) = (unit(&queries[t]), unit(&keys[t]));
            let faded = |i: usize, d: usize| state[i][d] * decay[t][i % heads.rate_width()];
            let next = |i: usize, d: usize| {
                let kept = |j: usize| f64::from(u8::from(i == j)) - beta[t][0] * k[i] * k[j];
                let kept: f64 = (0..key_dim).map(|j| kept(j) * faded(j, d)).sum();
                kept + beta[t][0] * k[i] * values[t][d]
            };
            state = (0..key_dim).map(|i| (0..value_dim).map(|d| next(i, d)).collect()).collect();
            let of = |d: usize| (0..key_dim).map(|i| q[i] * state[i][d]).sum::<f64>();
            outputs.extend((0..value_dim).map(|d| of(d) / (key_dim as f64).sqrt()));
        }
        outputs
    }

    /// Two sequences, of `calls` tokens per call and of one more in the first.
    fn check(heads: DeltaHeads, calls: &[usize]) {
        let total: usize = calls.iter().sum();
        let lens = [total, total + 1];
        let width = heads.value_heads * heads.value_dim;
        for dtype in [DType::F32, DType::F64] {
            let all = inputs(heads, lens[0] + lens[1], dtype);
            let mut caches = [SequenceCache::starting_at(0), SequenceCache::starting_at(0)];
            let mut got = [Vec::new(), Vec::new()];
            let mut done = [0, 0];
            for (call, &len) in calls.iter().enumerate() {
                let now = [len, len + usize::from(call == 0)];
                let first = all.rows(done[0]..done[0] + now[0]).unwrap();
                let second = all.rows(lens[0] + done[1]..lens[0] + done[1] + now[1]).unwrap();
                let both = |get: fn(&DeltaInputs) -> &Tensor| {
                    Tensor::cat(&[get(&first), get(&second)], 0).unwrap()
                };
                let call = DeltaInputs {
                    queries: both(|inputs| &inputs.queries),
                    keys: both(|inputs| &inputs.keys),
                    values: both(|inputs| &inputs.values),
                    decay: both(|inputs| &inputs.decay),
                    beta: both(|inputs| &inputs.beta),
                };
                let out = ops::to_vec(&heads.run(call, &now, &mut caches).unwrap()).unwrap();
                got[0].extend_from_slice(&out[..now[0] * width]);
                got[1].extend_from_slice(&out[now[0] * width..]);
                done = [done[0] + now[0], done[1] + now[1]];
            }
            for (sequence, got) in got.iter().enumerate() {
                let first = sequence * lens[0];
                let own = all.rows(first..first + lens[sequence]).unwrap();
                for head in 0..heads.value_heads {
                    for (i, want) in by_definition(heads, &own, head).iter().enumerate() {
                        let at = i / heads.value_dim * width
                            + head * heads.value_dim
                            + i % heads.value_dim;
                        assert!((f64::from(got[at]) - want).abs() < 1e-5, "{dtype:?} {head} {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn equals_the_definition() {
        let heads = |key_heads, value_heads, by_row| DeltaHeads {
            key_heads,
            value_heads,
            key_dim: 4,
            value_dim: 6,
            by_row,
        };
        check(heads(1, 1, false), &[5]);
        check(heads(2, 4, false), &[7]);
        check(heads(2, 4, false), &[3, 1, 4]);
        check(heads(3, 3, true), &[6, 1]);
        check(heads(1, 2, true), &[1, 1, 1]);
    }
}
