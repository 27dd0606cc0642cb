//! Hidden states that experts still add to.

use candle_core::{Device, Tensor};

use crate::{
    Error,
    ops::{is_host, with_slice},
    sandwich::AfterExperts,
};

/// The unfinished output of a layer, `[tokens, hidden]`: the trunk's output, to which each
/// expert adds its gated output for the tokens routed to it. In layers with norms after their blocks it
/// is the experts' part alone, which is normed and added to the rest in the end.
#[derive(Debug)]
pub struct HiddenSum {
    sum: Sum,
    /// What the outputs of experts are multiplied by, beside their gates.
    multiplier: f64,
    after: Option<AfterExperts>,
}

#[derive(Debug)]
enum Sum {
    Host { values: Vec<f32>, cols: usize },
    Device(Tensor),
}

impl HiddenSum {
    /// Starts from `hidden`, `[tokens, hidden]`, to which outputs are added times `multiplier`.
    pub(crate) fn new(hidden: &Tensor, multiplier: f64) -> Result<Self, Error> {
        if is_host(hidden) {
            let values = with_slice(hidden, <[f32]>::to_vec)?;
            let sum = Sum::Host { values, cols: hidden.dim(1)? };
            return Ok(Self { sum, multiplier, after: None });
        }
        // A copy: on a device it is added to in place, and others may hold `hidden` too.
        Ok(Self { sum: Sum::Device(hidden.copy()?), multiplier, after: None })
    }

    /// Starts from `start`, what the experts' sum begins with, and goes through `after` in the end.
    pub(crate) fn normed_after(start: &Tensor, after: AfterExperts) -> Result<Self, Error> {
        Ok(Self { after: Some(after), ..Self::new(start, 1.0)? })
    }

    /// Adds `gates[i] · output[i]`, times the model's residual multiplier, to row `rows[i]`; the rows of one call are distinct. `output`
    /// is `[rows, hidden]`, of the type and on the device of the hidden states.
    ///
    /// A token's experts must be added in ascending order for the same bits every time.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn add(&mut self, rows: &[u32], gates: &[f32], output: &Tensor) -> Result<(), Error> {
        let scaled: Vec<f32>;
        let gates = if self.multiplier == 1.0 {
            gates
        } else {
            scaled = gates.iter().map(|gate| gate * self.multiplier as f32).collect();
            &scaled
        };
        match &mut self.sum {
            Sum::Host { values, cols } => with_slice(output, |output| {
                for ((&row, &gate), value) in rows.iter().zip(gates).zip(output.chunks(*cols)) {
                    let sum = &mut values[row as usize * *cols..][..*cols];
                    for (s, v) in sum.iter_mut().zip(value) {
                        *s += gate * v;
                    }
                }
            }),
            #[cfg(feature = "cuda")]
            Sum::Device(sum) if sum.device().is_cuda() => {
                crate::cuda::add_gated_rows(sum, output, rows, gates)
            }
            Sum::Device(sum) => {
                let device = output.device();
                let index = Tensor::from_slice(rows, rows.len(), device)?;
                let gates = Tensor::from_slice(gates, (rows.len(), 1), device)?;
                let weighted = output.broadcast_mul(&gates.to_dtype(output.dtype())?)?;
                *sum = sum.index_add(&index, &weighted, 0)?;
                Ok(())
            }
        }
    }

    /// The hidden states, `[tokens, hidden]`.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn into_tensor(self) -> Result<Tensor, Error> {
        let sum = match self.sum {
            Sum::Host { values, cols } => {
                let rows = values.len() / cols.max(1);
                Tensor::from_vec(values, (rows, cols), &Device::Cpu)?
            }
            Sum::Device(sum) => sum,
        };
        match self.after {
            None => Ok(sum),
            Some(after) => after.finish(&sum),
        }
    }
}
