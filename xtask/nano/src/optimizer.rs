//! AdamW in one pass over each weight, with the gradients clipped to a norm.
//!
//! candle-nn's makes a dozen passes, which is a tenth of a step at this size. This one implements
//! the same trait and takes the same parameters.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Var, bail};
use candle_nn::{Optimizer, ParamsAdamW};
use std::sync::Mutex;

/// AdamW with clipping.
#[derive(Debug)]
pub struct ClippedAdamW {
    weights: Vec<(Var, Mutex<Moments>)>,
    params: ParamsAdamW,
    steps: i32,
    norm: f64,
}

#[derive(Debug)]
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl ClippedAdamW {
    /// The longest gradient a step takes; longer ones are scaled down to it.
    const LONGEST: f64 = 1.0;

    /// The norm of the last gradient, before clipping.
    pub fn norm(&self) -> f64 {
        self.norm
    }

    fn gradient_norm(&self, grads: &GradStore) -> Result<f64> {
        let mut squares = 0.0;
        for (var, _) in &self.weights {
            if let Some(grad) = grads.get(var) {
                squares += f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?);
            }
        }
        Ok(squares.sqrt())
    }
}

impl Optimizer for ClippedAdamW {
    type Config = ParamsAdamW;

    fn new(vars: Vec<Var>, params: ParamsAdamW) -> Result<Self> {
        let weights = vars
            .into_iter()
            .map(|var| {
                let zeros = vec![0.0; var.elem_count()];
                let moments = Moments { first: zeros.clone(), second: zeros };
                (var, Mutex::new(moments))
            })
            .collect();
        Ok(Self { weights, params, steps: 0, norm: 0.0 })
    }

    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.norm = self.gradient_norm(grads)?;
        self.steps += 1;
        let ParamsAdamW { lr, beta1, beta2, eps, weight_decay } = self.params;
        for (var, moments) in &self.weights {
            let Some(grad) = grads.get(var) else {
                continue;
            };
            // Norm weights are pulled towards nothing.
            let decay = if var.rank() > 1 { weight_decay } else { 0.0 };
            let update = Update {
                moments,
                clip: (Self::LONGEST / self.norm).min(1.0) as f32,
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                rate: (lr / (1.0 - beta1.powi(self.steps))) as f32,
                correction: (1.0 / (1.0 - beta2.powi(self.steps))) as f32,
                eps: eps as f32,
                keep: (1.0 - lr * decay) as f32,
            };
            var.as_tensor().inplace_op2(&grad.contiguous()?, &update)?;
        }
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        self.params.lr
    }

    fn set_learning_rate(&mut self, lr: f64) {
        self.params.lr = lr;
    }
}

struct Update<'a> {
    moments: &'a Mutex<Moments>,
    clip: f32,
    beta1: f32,
    beta2: f32,
    rate: f32,
    correction: f32,
    eps: f32,
    keep: f32,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        weight: &mut CpuStorage,
        weight_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<()> {
        let CpuStorage::F32(weight) = weight else {
            bail!("weights are trained in f32");
        };
        let (Some((0, end)), Some((from, to))) =
            (weight_layout.contiguous_offsets(), grad_layout.contiguous_offsets())
        else {
            bail!("weights and gradients are contiguous");
        };
        let grad = &grad.as_slice::<f32>()?[from..to];
        let mut moments = self.moments.lock().expect("no panic holds this lock");
        let Moments { first, second } = &mut *moments;
        let states = first.iter_mut().zip(second.iter_mut());
        for ((weight, grad), (first, second)) in weight[..end].iter_mut().zip(grad).zip(states) {
            let grad = grad * self.clip;
            *first = self.beta1 * *first + (1.0 - self.beta1) * grad;
            *second = self.beta2 * *second + (1.0 - self.beta2) * grad * grad;
            let size = (*second * self.correction).sqrt() + self.eps;
            *weight = *weight * self.keep - self.rate * *first / size;
        }
        Ok(())
    }
}
