//! Causal grouped-query attention with rotary positions, over sequences of any lengths laid end to
//! end.

use super::exponential::exp;
use super::product::{Existing, Matrix, multiply};
use super::{read, values};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// The sizes of the heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads.
    pub keys: usize,
    /// Values of one head.
    pub size: usize,
}

impl Heads {
    /// The width of queries, keys and values side by side.
    pub fn width(&self) -> usize {
        (self.queries + 2 * self.keys) * self.size
    }

    /// The key head of a query head.
    fn key_of(&self, query: usize) -> usize {
        query * self.keys / self.queries
    }
}

/// Cosines and sines of the rotary positions.
#[derive(Debug)]
pub struct Rotary {
    cosines: Vec<f32>,
    sines: Vec<f32>,
    half: usize,
}

impl Rotary {
    /// The table of `positions` positions for heads of `size` values.
    pub fn new(theta: f64, size: usize, positions: usize) -> Self {
        let half = size / 2;
        let mut table = Self {
            cosines: Vec::with_capacity(positions * half),
            sines: Vec::with_capacity(positions * half),
            half,
        };
        for position in 0..positions {
            for pair in 0..half {
                let angle = position as f64 * theta.powf(-(2.0 * pair as f64) / size as f64);
                table.cosines.push(angle.cos() as f32);
                table.sines.push(angle.sin() as f32);
            }
        }
        table
    }

    /// Turns one head's values; `direction` is 1 or, for the backward pass, -1.
    fn turn(&self, head: &mut [f32], position: usize, direction: f32) {
        let at = position * self.half..(position + 1) * self.half;
        let (low, high) = head.split_at_mut(self.half);
        let angles = self.cosines[at.clone()].iter().zip(&self.sines[at]);
        for ((low, high), (cosine, sine)) in low.iter_mut().zip(high).zip(angles) {
            let sine = sine * direction;
            (*low, *high) = (*low * cosine - *high * sine, *high * cosine + *low * sine);
        }
    }
}

/// Attention over `qkv` [n, width]; `starts` says where each sequence begins, and the end.
pub fn attention(
    qkv: &Tensor,
    heads: Heads,
    rotary: Arc<Rotary>,
    starts: Arc<Vec<usize>>,
) -> Result<Tensor> {
    let op = Attention { heads, rotary, starts, saved: Mutex::new(None) };
    qkv.apply_op1(op)
}

struct Attention {
    heads: Heads,
    rotary: Arc<Rotary>,
    starts: Arc<Vec<usize>>,
    /// What the backward pass needs again.
    saved: Mutex<Option<Saved>>,
}

struct Saved {
    /// The queries, keys and values, turned to their positions.
    turned: Vec<f32>,
    /// The probabilities of each sequence and head, one after the other.
    probabilities: Vec<f32>,
}

impl Attention {
    fn sequences(&self) -> impl Iterator<Item = Range<usize>> {
        self.starts.windows(2).map(|pair| pair[0]..pair[1])
    }

    fn turn_all(&self, qkv: &mut [f32], direction: f32) {
        let (width, size) = (self.heads.width(), self.heads.size);
        let turned = (self.heads.queries + self.heads.keys) * size;
        for range in self.sequences() {
            for (position, row) in range.enumerate() {
                for head in qkv[row * width..row * width + turned].chunks_exact_mut(size) {
                    self.rotary.turn(head, position, direction);
                }
            }
        }
    }

    /// Where the query, key and value of a head begin in a row.
    fn offsets(&self, query: usize) -> [usize; 3] {
        let Heads { queries, keys, size } = self.heads;
        let key = self.heads.key_of(query);
        [query * size, (queries + key) * size, (queries + keys + key) * size]
    }

    fn scale(&self) -> f32 {
        1.0 / (self.heads.size as f32).sqrt()
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (width, size) = (self.heads.width(), self.heads.size);
        let out_width = self.heads.queries * size;
        let n = layout.shape().dims()[0];
        let mut turned = values(qkv, layout)?.to_vec();
        self.turn_all(&mut turned, 1.0);
        let squares: usize = self.sequences().map(|range| range.len() * range.len()).sum();
        let mut probabilities = vec![0.0; squares * self.heads.queries];
        let mut rest = probabilities.as_mut_slice();
        let mut y = vec![0.0; n * out_width];
        for range in self.sequences() {
            let len = range.len();
            for head in 0..self.heads.queries {
                let [q, k, v] = self.offsets(head).map(|offset| {
                    Matrix::strided(&turned[range.start * width + offset..], len, size, width)
                });
                let (scores, after) = rest.split_at_mut(len * len);
                rest = after;
                multiply(scores, len, q.scaled(self.scale()), k.t(), Existing::Replace);
                for (position, row) in scores.chunks_exact_mut(len).enumerate() {
                    let (seen, future) = row.split_at_mut(position + 1);
                    softmax(seen);
                    future.fill(0.0);
                }
                let target = &mut y[range.start * out_width + head * size..];
                let scores = Matrix::new(scores, len, len);
                multiply(target, out_width, scores, v, Existing::Replace);
            }
        }
        *self.saved.lock().expect("no panic holds this lock") =
            Some(Saved { turned, probabilities });
        Ok((CpuStorage::F32(y), (n, out_width).into()))
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (width, size) = (self.heads.width(), self.heads.size);
        let out_width = self.heads.queries * size;
        let saved = self.saved.lock().expect("no panic holds this lock").take();
        let Saved { turned, probabilities } =
            saved.expect("the forward pass runs first, the backward once");
        let grad = read(grad);
        let grad = grad.values()?;
        let mut d_turned = vec![0.0; turned.len()];
        let mut rest = probabilities.as_slice();
        let mut slopes = Vec::new();
        for range in self.sequences() {
            let len = range.len();
            for head in 0..self.heads.queries {
                let offsets = self.offsets(head).map(|offset| range.start * width + offset);
                let [q, k, v] =
                    offsets.map(|from| Matrix::strided(&turned[from..], len, size, width));
                let [d_q, d_k, d_v] = offsets;
                let (seen, after) = rest.split_at(len * len);
                rest = after;
                let out = &grad[range.start * out_width + head * size..];
                let out = Matrix::strided(out, len, size, out_width);
                slopes.resize(len * len, 0.0);
                multiply(&mut slopes, len, out, v.t(), Existing::Replace);
                for (slopes, seen) in slopes.chunks_exact_mut(len).zip(seen.chunks_exact(len)) {
                    softmax_backward(slopes, seen);
                }
                let seen = Matrix::new(seen, len, len);
                let slope = Matrix::new(&slopes, len, len);
                // Several query heads share a key head: its gradients add up.
                multiply(&mut d_turned[d_v..], width, seen.t(), out, Existing::Add);
                multiply(
                    &mut d_turned[d_q..],
                    width,
                    slope.scaled(self.scale()),
                    k,
                    Existing::Replace,
                );
                multiply(
                    &mut d_turned[d_k..],
                    width,
                    slope.t().scaled(self.scale()),
                    q,
                    Existing::Add,
                );
            }
        }
        self.turn_all(&mut d_turned, -1.0);
        Ok(Some(Tensor::from_vec(d_turned, qkv.shape(), &Device::Cpu)?))
    }
}

fn softmax(row: &mut [f32]) {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for value in row.iter_mut() {
        *value = exp(*value - highest);
    }
    let scale = 1.0 / row.iter().sum::<f32>();
    for value in row {
        *value *= scale;
    }
}

/// Turns the gradient of probabilities into that of their scores.
fn softmax_backward(slopes: &mut [f32], probabilities: &[f32]) {
    let mean: f32 = slopes.iter().zip(probabilities).map(|(slope, p)| slope * p).sum();
    for (slope, p) in slopes.iter_mut().zip(probabilities) {
        *slope = p * (*slope - mean);
    }
}
