//! SwiGLU experts on sorted rows: each expert multiplies one contiguous block.

use super::exponential::sigmoid;
use super::product::{Existing, Matrix, multiply};
use super::{read, values};
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};
use std::{ops::Range, sync::Mutex};

/// Which rows go to which expert, sorted by expert.
#[derive(Debug, Clone)]
pub struct Routing {
    /// For each sorted row, its index in the [token, choice] table.
    slots: Vec<u32>,
    /// Where each expert's rows begin, and the end.
    starts: Vec<usize>,
    choices: usize,
}

impl Routing {
    /// The routing of `chosen`, which holds the experts of each token, `choices` per token.
    pub fn new(chosen: &[u32], choices: usize, experts: usize) -> Self {
        let mut starts = vec![0; experts + 1];
        for &expert in chosen {
            starts[expert as usize + 1] += 1;
        }
        for expert in 0..experts {
            starts[expert + 1] += starts[expert];
        }
        let mut next = starts.clone();
        let mut slots = vec![0; chosen.len()];
        for (slot, &expert) in chosen.iter().enumerate() {
            slots[next[expert as usize]] = slot as u32;
            next[expert as usize] += 1;
        }
        Self { slots, starts, choices }
    }

    /// Every one of `tokens` to the one expert there is.
    pub fn dense(tokens: usize) -> Self {
        Self { slots: (0..tokens as u32).collect(), starts: vec![0, tokens], choices: 1 }
    }

    /// The share of all slots that each expert got.
    pub fn shares(&self) -> Vec<f32> {
        let total = self.slots.len() as f32;
        let loads = self.starts.windows(2).map(|pair| pair[1] - pair[0]);
        loads.map(|load| load as f32 / total).collect()
    }

    fn token(&self, row: usize) -> usize {
        self.slots[row] as usize / self.choices
    }

    /// For each of these sorted rows, that of its token in `tokens` `[n, d]`.
    fn gather(&self, tokens: &[f32], range: Range<usize>, d: usize, into: &mut Vec<f32>) {
        into.clear();
        for row in range {
            let token = self.token(row);
            into.extend_from_slice(&tokens[token * d..(token + 1) * d]);
        }
    }

    /// Adds each of these sorted rows to that of its token in `tokens` `[n, d]`.
    fn scatter(&self, rows: &[f32], range: Range<usize>, d: usize, tokens: &mut [f32]) {
        for (values, row) in rows.chunks_exact(d).zip(range) {
            let token = self.token(row);
            add(&mut tokens[token * d..(token + 1) * d], values);
        }
    }

    /// The experts that have rows, with the range of those.
    fn blocks(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let ranges = self.starts.windows(2).map(|pair| pair[0]..pair[1]);
        ranges.enumerate().filter(|(_, range)| !range.is_empty())
    }
}

/// The sum over each token's experts of `share * w2(silu(w1 x) * w3 x)`.
///
/// `x` is `[n, d]`, `shares` `[n, choices]`, and `weights` `[experts, 3, f, d]`: w1, w3 and the transpose
/// of w2, so that all three have the same layout in memory.
pub fn experts(x: &Tensor, shares: &Tensor, weights: &Tensor, routing: Routing) -> Result<Tensor> {
    let op = Experts { routing, saved: Mutex::new(None) };
    x.apply_op3(shares, weights, op)
}

struct Experts {
    routing: Routing,
    /// What the backward pass needs again.
    saved: Mutex<Option<Saved>>,
}

struct Saved {
    /// The inputs, sorted by expert.
    rows: Vec<f32>,
    /// w1 x and w3 x of each row, side by side.
    inner: Vec<f32>,
}

/// The three matrices of one expert.
struct Expert<'a> {
    up: Matrix<'a>,
    down: Matrix<'a>,
}

impl<'a> Expert<'a> {
    fn of(weights: &'a [f32], index: usize, f: usize, d: usize) -> Self {
        let own = &weights[index * 3 * f * d..(index + 1) * 3 * f * d];
        let (up, down) = own.split_at(2 * f * d);
        Self { up: Matrix::new(up, 2 * f, d), down: Matrix::new(down, f, d) }
    }
}

impl CustomOp3 for Experts {
    fn name(&self) -> &'static str {
        "experts"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        shares: &CpuStorage,
        shares_layout: &Layout,
        weights: &CpuStorage,
        weights_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, d) = x_layout.shape().dims2()?;
        let f = weights_layout.shape().dims()[2];
        let x = values(x, x_layout)?;
        let shares = values(shares, shares_layout)?;
        let weights = values(weights, weights_layout)?;
        let total = self.routing.slots.len();
        let mut rows = Vec::with_capacity(total * d);
        self.routing.gather(x, 0..total, d, &mut rows);
        let mut inner = vec![0.0; total * 2 * f];
        let mut y = vec![0.0; n * d];
        let mut gated = Vec::new();
        let mut out = Vec::new();
        for (index, range) in self.routing.blocks() {
            let expert = Expert::of(weights, index, f, d);
            let count = range.len();
            let own = Matrix::new(&rows[range.start * d..range.end * d], count, d);
            let block = &mut inner[range.start * 2 * f..range.end * 2 * f];
            multiply(block, 2 * f, own, expert.up.t(), Existing::Replace);
            gated.resize(count * f, 0.0);
            for ((inner, gated), row) in
                block.chunks_exact(2 * f).zip(gated.chunks_exact_mut(f)).zip(range.clone())
            {
                let share = shares[self.routing.slots[row] as usize];
                let (a, b) = inner.split_at(f);
                for ((gated, a), b) in gated.iter_mut().zip(a).zip(b) {
                    *gated = share * a * sigmoid(*a) * b;
                }
            }
            out.resize(count * d, 0.0);
            let hidden = Matrix::new(&gated, count, f);
            multiply(&mut out, d, hidden, expert.down, Existing::Replace);
            self.routing.scatter(&out, range, d, &mut y);
        }
        *self.saved.lock().expect("no panic holds this lock") = Some(Saved { rows, inner });
        Ok((CpuStorage::F32(y), (n, d).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        shares: &Tensor,
        weights: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (n, d) = x.dims2()?;
        let f = weights.dim(2)?;
        let saved = self.saved.lock().expect("no panic holds this lock").take();
        let Saved { rows, mut inner } =
            saved.expect("the forward pass runs first, the backward once");
        let (shares_shape, weights_shape) = (shares.shape(), weights.shape());
        let (shares, weights, grad) = (read(shares), read(weights), read(grad));
        let (shares, weights, grad) = (shares.values()?, weights.values()?, grad.values()?);
        let mut dx = vec![0.0; n * d];
        let mut d_shares = vec![0.0; shares.len()];
        let mut d_weights = vec![0.0; weights.len()];
        let (mut slopes, mut gated, mut d_gated, mut out) = (vec![], vec![], vec![], vec![]);
        for (index, range) in self.routing.blocks() {
            let expert = Expert::of(weights, index, f, d);
            let count = range.len();
            self.routing.gather(grad, range.clone(), d, &mut slopes);
            let slope = Matrix::new(&slopes, count, d);
            d_gated.resize(count * f, 0.0);
            multiply(&mut d_gated, f, slope, expert.down.t(), Existing::Replace);
            gated.resize(count * f, 0.0);
            let block = &mut inner[range.start * 2 * f..range.end * 2 * f];
            for (at, row) in range.clone().enumerate() {
                let slot = self.routing.slots[row] as usize;
                d_shares[slot] = swiglu_backward(
                    &mut block[at * 2 * f..(at + 1) * 2 * f],
                    &mut gated[at * f..(at + 1) * f],
                    &d_gated[at * f..(at + 1) * f],
                    shares[slot],
                );
            }
            let own = &mut d_weights[index * 3 * f * d..(index + 1) * 3 * f * d];
            let (d_up, d_down) = own.split_at_mut(2 * f * d);
            let hidden = Matrix::new(&gated, count, f);
            multiply(d_down, d, hidden.t(), slope, Existing::Replace);
            let d_inner = Matrix::new(block, count, 2 * f);
            let own_rows = Matrix::new(&rows[range.start * d..range.end * d], count, d);
            multiply(d_up, d, d_inner.t(), own_rows, Existing::Replace);
            out.resize(count * d, 0.0);
            multiply(&mut out, d, d_inner, expert.up, Existing::Replace);
            self.routing.scatter(&out, range, d, &mut dx);
        }
        Ok((
            Some(Tensor::from_vec(dx, (n, d), &Device::Cpu)?),
            Some(Tensor::from_vec(d_shares, shares_shape, &Device::Cpu)?),
            Some(Tensor::from_vec(d_weights, weights_shape, &Device::Cpu)?),
        ))
    }
}

/// Replaces w1 x and w3 x by their gradients, writes the gated row that the forward pass made, and
/// returns the gradient of the share.
fn swiglu_backward(inner: &mut [f32], gated: &mut [f32], d_gated: &[f32], share: f32) -> f32 {
    let (a, b) = inner.split_at_mut(gated.len());
    for (((a, b), gated), slope) in a.iter_mut().zip(b).zip(gated.iter_mut()).zip(d_gated) {
        let gate = sigmoid(*a);
        let silu = *a * gate;
        let scaled = share * slope;
        *gated = silu * *b;
        *a = scaled * *b * gate * (1.0 + *a * (1.0 - gate));
        *b = scaled * silu;
    }
    let d_share = gated.iter().zip(d_gated).map(|(h, g)| h * g).sum();
    for gated in gated {
        *gated *= share;
    }
    d_share
}

fn add(target: &mut [f32], values: &[f32]) {
    for (target, value) in target.iter_mut().zip(values) {
        *target += value;
    }
}
