//! Root-mean-square normalisation.

use super::{read, values};
use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor};

/// Rows of `x` `[n, d]` over their root mean square, times `weight` `[d]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    x.apply_op2(weight, RmsNorm { eps })
}

struct RmsNorm {
    eps: f32,
}

impl RmsNorm {
    fn inverse(&self, row: &[f32]) -> f32 {
        let squares: f32 = row.iter().map(|v| v * v).sum();
        1.0 / (squares / row.len() as f32 + self.eps).sqrt()
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let weight = values(weight, weight_layout)?;
        let mut y = values(x, x_layout)?.to_vec();
        for row in y.chunks_exact_mut(weight.len()) {
            let inverse = self.inverse(row);
            for (value, w) in row.iter_mut().zip(weight) {
                *value *= inverse * w;
            }
        }
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (n, d) = x.dims2()?;
        let (x, weight, grad) = (read(x), read(weight), read(grad));
        let (x, weight, grad) = (x.values()?, weight.values()?, grad.values()?);
        let mut dx = vec![0.0; n * d];
        let mut dw = vec![0.0; d];
        let rows = dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(grad.chunks_exact(d));
        for ((dx, x), grad) in rows {
            let inverse = self.inverse(x);
            let mut along = 0.0;
            for (((x, g), w), dw) in x.iter().zip(grad).zip(weight).zip(&mut dw) {
                along += x * g * w;
                *dw += g * x * inverse;
            }
            // The part of the gradient along x only changes the length that is divided away.
            let along = along * inverse * inverse * inverse / d as f32;
            for (((dx, x), g), w) in dx.iter_mut().zip(x).zip(grad).zip(weight) {
                *dx = g * w * inverse - x * along;
            }
        }
        Ok((
            Some(Tensor::from_vec(dx, (n, d), &Device::Cpu)?),
            Some(Tensor::from_vec(dw, d, &Device::Cpu)?),
        ))
    }
}
