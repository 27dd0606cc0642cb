//! A product with a weight in [out, in] layout, without a bias.

use super::product::{Existing, Matrix, multiply};
use super::{read, values};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

/// `x` [n, in] times the transpose of `weight` [out, in].
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.apply_op2(weight, Linear)
}

struct Linear;

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, inputs) = x_layout.shape().dims2()?;
        let (outputs, _) = weight_layout.shape().dims2()?;
        let mut y = vec![0.0; n * outputs];
        multiply(
            &mut y,
            outputs,
            Matrix::new(values(x, x_layout)?, n, inputs),
            Matrix::new(values(weight, weight_layout)?, outputs, inputs).t(),
            Existing::Replace,
        );
        Ok((CpuStorage::F32(y), (n, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (n, inputs) = x.dims2()?;
        let outputs = weight.dim(0)?;
        let (x, weight, grad) = (read(x), read(weight), read(grad));
        let grad = Matrix::new(grad.values()?, n, outputs);
        let mut dx = vec![0.0; n * inputs];
        let weights = Matrix::new(weight.values()?, outputs, inputs);
        multiply(&mut dx, inputs, grad, weights, Existing::Replace);
        let mut dw = vec![0.0; outputs * inputs];
        let inner = Matrix::new(x.values()?, n, inputs);
        multiply(&mut dw, inputs, grad.t(), inner, Existing::Replace);
        let device = candle_core::Device::Cpu;
        Ok((
            Some(Tensor::from_vec(dx, (n, inputs), &device)?),
            Some(Tensor::from_vec(dw, (outputs, inputs), &device)?),
        ))
    }
}
