//! Hidden states that experts still add to.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use moeprune_core::MoeSpec;

use crate::{
    ActivationSink, Error,
    linear::Linear,
    ops::{self, is_host, with_slice},
    sandwich::AfterExperts,
};

/// The unfinished output of a layer, `[tokens, hidden]`: the trunk's output, to which each
/// expert adds its gated output for the tokens routed to it. In layers with norms after their blocks it
/// is the experts' part alone, which is normed and added to the rest in the end.
///
/// Experts of a latent width add to a sum of that width, which goes through one more Linear in the end.
#[derive(Debug)]
pub struct HiddenSum {
    /// `None` if only the latent sum is wanted.
    sum: Option<Sum>,
    latent: Option<LatentSum>,
    /// What the outputs of experts are multiplied by, beside their gates.
    multiplier: f64,
    /// What the sum goes through in the end.
    after: Option<AfterExperts>,
}

#[derive(Debug)]
enum Sum {
    Host { values: Vec<f32>, cols: usize },
    Device(Tensor),
}

/// What experts of a latent width add up to, `[tokens, latent]`.
#[derive(Debug)]
struct LatentSum {
    sum: Sum,
    /// What it goes through.
    output: Arc<Linear>,
}

impl HiddenSum {
    /// Starts from `hidden`, `[tokens, hidden]`, to which outputs are added times `multiplier`.
    pub(crate) fn new(hidden: &Tensor, multiplier: f64) -> Result<Self, Error> {
        Ok(Self { sum: Some(Sum::new(hidden)?), latent: None, multiplier, after: None })
    }

    /// Starts from `start`, what the experts' sum begins with, and goes through `after` in the end.
    pub(crate) fn normed_after(start: &Tensor, after: AfterExperts) -> Result<Self, Error> {
        Ok(Self { after: Some(after), ..Self::new(start, 1.0)? })
    }

    /// The same, to which outputs of experts are added by way of `output`, in the shape and type of
    /// `read`, which is what experts read.
    pub(crate) fn by_way_of(self, read: &Tensor, output: Arc<Linear>) -> Result<Self, Error> {
        let sum = Sum::new(&read.zeros_like()?)?;
        Ok(Self { latent: Some(LatentSum { sum, output }), ..self })
    }

    /// What is needed for statistics alone: the sum of a latent width, if there is one.
    #[must_use]
    pub fn statistics_alone(self) -> Option<Self> {
        let latent = self.latent?;
        let multiplier = self.multiplier;
        Some(Self { sum: None, latent: Some(latent), multiplier, after: None })
    }

    /// Adds `gates[i] · output[i]`, times the model's residual multiplier, to row `rows[i]`; the rows of one call are distinct. `output`
    /// is `[rows, width]`, of the type and on the device of the hidden states, and as wide as what experts
    /// read.
    ///
    /// A token's experts must be added in ascending order for the same bits every time.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn add(&mut self, rows: &[u32], gates: &[f32], output: &Tensor) -> Result<(), Error> {
        if let Some(latent) = &mut self.latent {
            return latent.sum.add(rows, gates, output);
        }
        let Some(sum) = &mut self.sum else { return Ok(()) };
        if self.multiplier == 1.0 {
            return sum.add(rows, gates, output);
        }
        let scaled: Vec<f32> = gates.iter().map(|gate| gate * self.multiplier as f32).collect();
        sum.add(rows, &scaled, output)
    }

    /// Shows `sink` the sum of a latent width, which a Linear reads; without one nothing. All experts must
    /// have added.
    ///
    /// # Errors
    /// If a tensor operation or the sink fails.
    pub fn show(&self, sink: &mut dyn ActivationSink) -> Result<(), Error> {
        match &self.latent {
            Some(latent) => sink.linear_input(MoeSpec::FROM_LATENT, &latent.sum.tensor()?),
            None => Ok(()),
        }
    }

    /// Has the sum of a latent width go through another Linear than the one it began with.
    pub(crate) fn leave_by(&mut self, output: Arc<Linear>) {
        if let Some(latent) = &mut self.latent {
            latent.output = output;
        }
    }

    /// What the hidden states, `[tokens, hidden]`, are if no expert adds anything more.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn so_far(&self) -> Result<Tensor, Error> {
        let copy = |sum: &Sum| -> Result<Sum, Error> {
            Ok(match sum {
                Sum::Host { values, cols } => Sum::Host { values: values.clone(), cols: *cols },
                Sum::Device(sum) => Sum::Device(sum.clone()),
            })
        };
        let latent = match &self.latent {
            None => None,
            Some(LatentSum { sum, output }) => {
                Some(LatentSum { sum: copy(sum)?, output: Arc::clone(output) })
            }
        };
        let sum = self.sum.as_ref().map(copy).transpose()?;
        let (multiplier, after) = (self.multiplier, self.after.clone());
        Self { sum, latent, multiplier, after }.into_tensor()
    }

    /// The hidden states, `[tokens, hidden]`; of [statistics alone](Self::statistics_alone) what experts
    /// add to them.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn into_tensor(self) -> Result<Tensor, Error> {
        let sum = self.sum.map(Sum::into_tensor).transpose()?;
        let added = match self.latent {
            Some(LatentSum { sum, output }) => {
                let output = output.forward(&sum.into_tensor()?)?;
                Some(ops::scaled(output, self.multiplier)?)
            }
            None => None,
        };
        let sum = match (sum, added) {
            (Some(sum), Some(added)) => ops::add(&sum, &added)?,
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => return Err(Error::Spec("a layer's output was not kept".to_owned())),
        };
        match self.after {
            None => Ok(sum),
            Some(after) => after.finish(&sum),
        }
    }
}

impl Sum {
    fn new(hidden: &Tensor) -> Result<Self, Error> {
        if is_host(hidden) {
            let values = with_slice(hidden, <[f32]>::to_vec)?;
            return Ok(Self::Host { values, cols: hidden.dim(1)? });
        }
        // A copy: on a device it is added to in place, and others may hold `hidden` too.
        Ok(Self::Device(hidden.copy()?))
    }

    fn add(&mut self, rows: &[u32], gates: &[f32], output: &Tensor) -> Result<(), Error> {
        match self {
            Self::Host { values, cols } => with_slice(output, |output| {
                for ((&row, &gate), value) in rows.iter().zip(gates).zip(output.chunks(*cols)) {
                    let sum = &mut values[row as usize * *cols..][..*cols];
                    for (s, v) in sum.iter_mut().zip(value) {
                        *s += gate * v;
                    }
                }
            }),
            #[cfg(feature = "cuda")]
            Self::Device(sum) if sum.device().is_cuda() => {
                crate::cuda::add_gated_rows(sum, output, rows, gates)
            }
            Self::Device(sum) => {
                let device = output.device();
                let index = Tensor::from_slice(rows, rows.len(), device)?;
                let gates = Tensor::from_slice(gates, (rows.len(), 1), device)?;
                let weighted = output.broadcast_mul(&gates.to_dtype(output.dtype())?)?;
                *sum = sum.index_add(&index, &weighted, 0)?;
                Ok(())
            }
        }
    }

    /// A copy.
    fn tensor(&self) -> Result<Tensor, Error> {
        match self {
            Self::Host { values, cols } => {
                let rows = values.len() / (*cols).max(1);
                Ok(Tensor::from_slice(values, (rows, *cols), &Device::Cpu)?)
            }
            // Never added to any more.
            Self::Device(sum) => Ok(sum.clone()),
        }
    }

    fn into_tensor(self) -> Result<Tensor, Error> {
        match self {
            Self::Host { values, cols } => {
                let rows = values.len() / cols.max(1);
                Ok(Tensor::from_vec(values, (rows, cols), &Device::Cpu)?)
            }
            Self::Device(sum) => Ok(sum),
        }
    }
}
