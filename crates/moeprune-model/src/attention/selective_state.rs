//! The selective state space of Mamba-2: what a matrix per head remembers and gives back.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::{
    Error,
    cache::SequenceCache,
    ops::{is_host, with_slice},
    product::is_parallel,
};

/// Shape of the heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct StateHeads {
    pub(super) heads: usize,
    /// Each shares keys and queries among as many neighbouring heads.
    pub(super) groups: usize,
    pub(super) head_dim: usize,
    /// Columns of the state.
    pub(super) state: usize,
}

/// What the heads read of all tokens, in f32 or wider.
pub(super) struct StateInputs {
    /// `x`, `[tokens, heads · head_dim]`
    pub(super) values: Tensor,
    /// `B`, `[tokens, groups · state]`
    pub(super) keys: Tensor,
    /// `C`, `[tokens, groups · state]`
    pub(super) queries: Tensor,
    /// What the state is multiplied by, `[tokens, heads]`.
    pub(super) decay: Tensor,
    /// What the value is multiplied by, `[tokens, heads]`.
    pub(super) steps: Tensor,
}

impl StateHeads {
    /// `S ← S · decay + step · value ⊗ key`, then `S · query`, over `lens[i]` tokens of sequence `i`, one
    /// sequence after the other; each continues the state in its cache, `[heads, head_dim, state]`.
    /// Returns `[tokens, heads · head_dim]`.
    pub(super) fn run(
        self,
        inputs: StateInputs,
        lens: &[usize],
        caches: &mut [SequenceCache],
    ) -> Result<Tensor, Error> {
        if is_host(&inputs.values) {
            return self.run_on_host(&inputs, lens, caches);
        }
        if lens.windows(2).all(|pair| pair[0] == pair[1]) {
            return self.run_together(&inputs, lens.first().copied().unwrap_or(0), caches);
        }
        let mut first = 0;
        let mut outputs = Vec::with_capacity(lens.len());
        for (cache, &len) in caches.chunks_mut(1).zip(lens) {
            outputs.push(self.run_together(&inputs.rows(first, len)?, len, cache)?);
            first += len;
        }
        Ok(Tensor::cat(&outputs, 0)?)
    }

    /// The state that a sequence continues.
    fn state_of(self, cache: &mut SequenceCache, like: &Tensor) -> Result<Tensor, Error> {
        match cache.running.state.take() {
            Some(state) => Ok(state),
            None => {
                let shape = (self.heads, self.head_dim, self.state);
                Ok(Tensor::zeros(shape, like.dtype(), like.device())?)
            }
        }
    }
}

impl StateInputs {
    fn rows(&self, first: usize, len: usize) -> Result<Self, Error> {
        Ok(Self {
            values: self.values.narrow(0, first, len)?,
            keys: self.keys.narrow(0, first, len)?,
            queries: self.queries.narrow(0, first, len)?,
            decay: self.decay.narrow(0, first, len)?,
            steps: self.steps.narrow(0, first, len)?,
        })
    }
}

/// On slices: a head of a sequence at a time.
impl StateHeads {
    fn run_on_host(
        self,
        inputs: &StateInputs,
        lens: &[usize],
        caches: &mut [SequenceCache],
    ) -> Result<Tensor, Error> {
        let Self { heads, head_dim, state, .. } = self;
        let mut runs = Vec::with_capacity(lens.len() * heads);
        let mut first = 0;
        for (cache, &len) in caches.iter_mut().zip(lens) {
            let all = self.state_of(cache, &inputs.values)?.flatten_all()?.to_vec1::<f32>()?;
            for (head, own) in all.chunks_exact(head_dim * state).enumerate() {
                runs.push(HeadRun { head, rows: first..first + len, state: own.to_vec() });
            }
            first += len;
        }
        let slices = |tensor: &Tensor| Ok::<_, Error>(tensor.flatten_all()?.to_vec1::<f32>()?);
        let (keys, queries) = (slices(&inputs.keys)?, slices(&inputs.queries)?);
        let (decay, steps) = (slices(&inputs.decay)?, slices(&inputs.steps)?);
        let work = 2 * first * heads * head_dim * state;
        let outputs: Vec<Vec<f32>> = with_slice(&inputs.values, |values| {
            let rows =
                HostRows { values, keys: &keys, queries: &queries, decay: &decay, steps: &steps };
            let run = |head: &mut HeadRun| head.run(self, &rows);
            if is_parallel(work) {
                runs.par_iter_mut().map(run).collect()
            } else {
                runs.iter_mut().map(run).collect()
            }
        })?;
        let width = heads * head_dim;
        let mut mixed = vec![0.0; first * width];
        for (run, output) in runs.iter().zip(&outputs) {
            for (row, output) in run.rows.clone().zip(output.chunks_exact(head_dim)) {
                let start = row * width + run.head * head_dim;
                mixed[start..start + head_dim].copy_from_slice(output);
            }
        }
        for (cache, own) in caches.iter_mut().zip(runs.chunks_exact(heads)) {
            let all = own.iter().flat_map(|run| &run.state).copied().collect::<Vec<_>>();
            let shape = (heads, head_dim, state);
            cache.running.state = Some(Tensor::from_vec(all, shape, &Device::Cpu)?);
        }
        Ok(Tensor::from_vec(mixed, (first, width), &Device::Cpu)?)
    }
}

/// As [`StateInputs`].
struct HostRows<'a> {
    values: &'a [f32],
    keys: &'a [f32],
    queries: &'a [f32],
    decay: &'a [f32],
    steps: &'a [f32],
}

/// A head of a sequence.
struct HeadRun {
    head: usize,
    /// Rows of the batch.
    rows: std::ops::Range<usize>,
    /// `[head_dim, state]`
    state: Vec<f32>,
}

impl HeadRun {
    /// Returns `[rows, head_dim]`.
    fn run(&mut self, shape: StateHeads, rows: &HostRows<'_>) -> Vec<f32> {
        let StateHeads { heads, groups, head_dim, state } = shape;
        let group = self.head * groups / heads;
        let mut outputs = vec![0.0; self.rows.len() * head_dim];
        for (row, output) in self.rows.clone().zip(outputs.chunks_exact_mut(head_dim)) {
            let of_group = (row * groups + group) * state;
            let (key, query) =
                (&rows.keys[of_group..][..state], &rows.queries[of_group..][..state]);
            let at = row * heads + self.head;
            let (decay, step) = (rows.decay[at], rows.steps[at]);
            let value = &rows.values[at * head_dim..][..head_dim];
            for ((memory, v), o) in self.state.chunks_exact_mut(state).zip(value).zip(output) {
                *o = remember(memory, decay, step * v, (key, query));
            }
        }
        outputs
    }
}

/// `memory ← memory · decay + added · key`; returns `memory · query`, summed in an order that a vector unit
/// can follow.
fn remember(memory: &mut [f32], decay: f32, added: f32, (key, query): (&[f32], &[f32])) -> f32 {
    const LANES: usize = 8;
    let mut lanes = [0.0; LANES];
    let pieces = key.chunks(LANES).zip(query.chunks(LANES));
    for (memory, (key, query)) in memory.chunks_mut(LANES).zip(pieces) {
        for (((m, k), q), lane) in memory.iter_mut().zip(key).zip(query).zip(&mut lanes) {
            *m = *m * decay + added * k;
            *lane += *m * q;
        }
    }
    lanes.into_iter().sum()
}

/// Through candle's operations: all heads of all sequences, token by token.
impl StateHeads {
    /// All sequences have `len` tokens.
    fn run_together(
        self,
        inputs: &StateInputs,
        len: usize,
        caches: &mut [SequenceCache],
    ) -> Result<Tensor, Error> {
        let Self { heads, groups, head_dim, state } = self;
        let batch = caches.len();
        if batch == 0 || len == 0 {
            return Ok(inputs.values.clone());
        }
        let all = batch * heads;
        let values = self.by_token(&inputs.values, batch, heads, head_dim)?;
        let keys = self.by_token(&inputs.keys, batch, groups, state)?;
        let queries = self.by_token(&inputs.queries, batch, groups, state)?;
        let decay = self.by_token(&inputs.decay, batch, heads, 1)?;
        let steps = self.by_token(&inputs.steps, batch, heads, 1)?;
        let values = values.broadcast_mul(&steps)?;
        let states = caches.iter_mut().map(|cache| self.state_of(cache, &inputs.values));
        let mut memory = Tensor::cat(&states.collect::<Result<Vec<_>, Error>>()?, 0)?;
        let mut outputs = Vec::with_capacity(len);
        for t in 0..len {
            let value = values.get(t)?.reshape((all, head_dim, 1))?;
            let added = value.matmul(&keys.get(t)?.reshape((all, 1, state))?)?;
            memory = (memory.broadcast_mul(&decay.get(t)?.reshape((all, 1, 1))?)? + added)?;
            outputs.push(memory.matmul(&queries.get(t)?.reshape((all, state, 1))?)?);
        }
        for (sequence, cache) in caches.iter_mut().enumerate() {
            let own = memory.narrow(0, sequence * heads, heads)?.force_contiguous()?;
            cache.running.state = Some(own);
        }
        let mixed = Tensor::cat(&outputs, 2)?.reshape((batch, heads, head_dim, len))?;
        Ok(mixed.permute((0, 3, 1, 2))?.reshape((batch * len, heads * head_dim))?)
    }

    /// From `[batch · len, of · width]`, `of` being heads or groups, to `[len, batch · heads, width]`.
    fn by_token(self, x: &Tensor, batch: usize, of: usize, width: usize) -> Result<Tensor, Error> {
        let each = self.heads / of;
        let x = x.reshape((batch, (), of, 1, width))?;
        let len = x.dim(1)?;
        let x = x.broadcast_as((batch, len, of, each, width))?.transpose(0, 1)?;
        Ok(x.reshape((len, batch * self.heads, width))?)
    }
}
