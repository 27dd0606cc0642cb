//! The selective state space of Mamba-2: what a matrix per head remembers and gives back.

use std::ops::Range;

use candle_core::Tensor;

use super::head_states::{HeadRun, HeadStates, in_equal_lengths};
use crate::{
    Error,
    cache::SequenceCache,
    ops::{is_host, with_slice},
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
        in_equal_lengths(lens, caches, &|rows, len, caches| {
            self.run_together(&inputs.rows(rows)?, len, caches)
        })
    }

    fn states(self) -> HeadStates {
        HeadStates { heads: self.heads, rows: self.head_dim, cols: self.state }
    }
}

impl StateInputs {
    fn rows(&self, rows: Range<usize>) -> Result<Self, Error> {
        let of = |x: &Tensor| x.narrow(0, rows.start, rows.len());
        Ok(Self {
            values: of(&self.values)?,
            keys: of(&self.keys)?,
            queries: of(&self.queries)?,
            decay: of(&self.decay)?,
            steps: of(&self.steps)?,
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
        let slices = |tensor: &Tensor| Ok::<_, Error>(tensor.flatten_all()?.to_vec1::<f32>()?);
        let (keys, queries) = (slices(&inputs.keys)?, slices(&inputs.queries)?);
        let (decay, steps) = (slices(&inputs.decay)?, slices(&inputs.steps)?);
        let work = 2 * lens.iter().sum::<usize>() * self.heads * self.head_dim * self.state;
        with_slice(&inputs.values, |values| {
            let rows =
                HostRows { values, keys: &keys, queries: &queries, decay: &decay, steps: &steps };
            let run = |head: &mut HeadRun| self.run_head(head, &rows);
            self.states().run_each(lens, caches, (self.head_dim, work), &run)
        })?
    }

    /// Returns `[tokens, head_dim]`.
    fn run_head(self, run: &mut HeadRun, rows: &HostRows<'_>) -> Vec<f32> {
        let Self { heads, groups, head_dim, state } = self;
        let group = run.head * groups / heads;
        let mut outputs = vec![0.0; run.rows.len() * head_dim];
        for (row, output) in run.rows.clone().zip(outputs.chunks_exact_mut(head_dim)) {
            let of_group = (row * groups + group) * state;
            let (key, query) =
                (&rows.keys[of_group..][..state], &rows.queries[of_group..][..state]);
            let at = row * heads + run.head;
            let (decay, step) = (rows.decay[at], rows.steps[at]);
            let value = &rows.values[at * head_dim..][..head_dim];
            for ((memory, v), o) in run.state.chunks_exact_mut(state).zip(value).zip(output) {
                *o = remember(memory, decay, step * v, (key, query));
            }
        }
        outputs
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
        let (states, all) = (self.states(), batch * heads);
        let values = states.by_token(&inputs.values, batch, heads, head_dim)?;
        let keys = states.by_token(&inputs.keys, batch, groups, state)?;
        let queries = states.by_token(&inputs.queries, batch, groups, state)?;
        let decay = states.by_token(&inputs.decay, batch, heads, 1)?;
        let steps = states.by_token(&inputs.steps, batch, heads, 1)?;
        let values = values.broadcast_mul(&steps)?;
        let mut memory = states.begin_all(caches, &inputs.values)?;
        let mut outputs = Vec::with_capacity(len);
        for t in 0..len {
            let value = values.get(t)?.reshape((all, head_dim, 1))?;
            let added = value.matmul(&keys.get(t)?.reshape((all, 1, state))?)?;
            memory = (memory.broadcast_mul(&decay.get(t)?.reshape((all, 1, 1))?)? + added)?;
            outputs.push(memory.matmul(&queries.get(t)?.reshape((all, state, 1))?)?);
        }
        states.keep_all(&memory, caches)?;
        let mixed = Tensor::cat(&outputs, 2)?.reshape((batch, heads, head_dim, len))?;
        Ok(mixed.permute((0, 3, 1, 2))?.reshape((batch * len, heads * head_dim))?)
    }
}
