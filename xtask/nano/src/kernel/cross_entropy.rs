//! The output projection and the cross-entropy of its softmax, in one operation.

use super::exponential::exp;
use super::product::{Existing, Matrix, multiply};
use super::values;
use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor};
use std::sync::Mutex;

/// Rows taken at a time, so that their logits stay in the processor's cache.
const ROWS: usize = 128;

/// The mean cross-entropy of `targets` under the softmax of `hidden` `[n, d]` times the transpose of
/// `head` [vocabulary, d].
pub fn cross_entropy(hidden: &Tensor, head: &Tensor, targets: Vec<u32>) -> Result<Tensor> {
    let op = CrossEntropy { targets, gradients: Mutex::new(None) };
    hidden.apply_op2(head, op)
}

struct CrossEntropy {
    targets: Vec<u32>,
    /// Those of the hidden rows and the head: the forward pass has all they need.
    gradients: Mutex<Option<(Vec<f32>, Vec<f32>)>>,
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(
        &self,
        hidden: &CpuStorage,
        hidden_layout: &Layout,
        head: &CpuStorage,
        head_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, d) = hidden_layout.shape().dims2()?;
        let vocabulary = head_layout.shape().dims()[0];
        let head = Matrix::new(values(head, head_layout)?, vocabulary, d);
        let hidden = values(hidden, hidden_layout)?;
        let mut d_hidden = vec![0.0; n * d];
        let mut d_head = vec![0.0; vocabulary * d];
        let mut logits = vec![0.0; ROWS * vocabulary];
        let mut loss = 0.0;
        let blocks = hidden.chunks(ROWS * d).zip(d_hidden.chunks_mut(ROWS * d));
        for ((block, d_block), targets) in blocks.zip(self.targets.chunks(ROWS)) {
            let rows = targets.len();
            let logits = &mut logits[..rows * vocabulary];
            let block = Matrix::new(block, rows, d);
            multiply(logits, vocabulary, block, head.t(), Existing::Replace);
            for (row, &target) in logits.chunks_exact_mut(vocabulary).zip(targets) {
                loss += f64::from(softmax_less_target(row, target as usize, n));
            }
            let slopes = Matrix::new(logits, rows, vocabulary);
            multiply(d_block, d, slopes, head, Existing::Replace);
            multiply(&mut d_head, d, slopes.t(), block, Existing::Add);
        }
        *self.gradients.lock().expect("no panic holds this lock") = Some((d_hidden, d_head));
        Ok((CpuStorage::F32(vec![(loss / n as f64) as f32]), ().into()))
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        head: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let scale = f64::from(grad.to_scalar::<f32>()?);
        let gradients = self.gradients.lock().expect("no panic holds this lock").take();
        let (d_hidden, d_head) = gradients.expect("the forward pass runs first, the backward once");
        let d_hidden = Tensor::from_vec(d_hidden, hidden.shape(), &Device::Cpu)?;
        let d_head = Tensor::from_vec(d_head, head.shape(), &Device::Cpu)?;
        Ok((Some((d_hidden * scale)?), Some((d_head * scale)?)))
    }
}

/// Turns logits into the gradient of the mean over `n` rows and returns the row's own loss.
fn softmax_less_target(row: &mut [f32], target: usize, n: usize) -> f32 {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let target_logit = row[target] - highest;
    let mut sum = 0.0;
    for value in row.iter_mut() {
        *value = exp(*value - highest);
    }
    for value in row.iter() {
        sum += value;
    }
    let scale = 1.0 / (sum * n as f32);
    for value in row.iter_mut() {
        *value *= scale;
    }
    row[target] -= 1.0 / n as f32;
    sum.ln() - target_logit
}
