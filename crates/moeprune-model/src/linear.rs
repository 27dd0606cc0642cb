//! Linears without bias, and reading them.

use candle_core::{DType, Device, Tensor};
use moeprune_core::{Dtype, TensorBytes, TensorId, TensorSource};

use crate::{
    Error,
    ops::{is_host, with_slice},
    product::{Rows, product},
};

/// `x · Wᵀ`
#[derive(Debug)]
pub(crate) struct Linear {
    /// `[inputs, outputs]`: stored so on the CPU, where a product with few rows then reads the
    /// weight front to back; a transposed view elsewhere.
    transposed: Tensor,
}

impl Linear {
    /// `[rows, inputs]` to `[rows, outputs]`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        if !is_host(&self.transposed) {
            return Ok(x.matmul(&self.transposed)?);
        }
        let rows = x.dim(0)?;
        let (inputs, outputs) = self.transposed.dims2()?;
        let y = with_slice(x, |x| {
            with_slice(&self.transposed, |w| {
                product(rows, outputs, inputs, Rows::dense(x, inputs), Rows::dense(w, outputs))
            })
        })??;
        Ok(Tensor::from_vec(y, (rows, outputs), &Device::Cpu)?)
    }
}

/// Reads weights in the type and to the place they are computed in.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) source: &'a dyn TensorSource,
    pub(crate) device: &'a Device,
    pub(crate) dtype: DType,
}

impl<'a> Weights<'a> {
    /// The same weights in another type.
    pub(crate) fn in_type(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// A vector, for example a norm's weight.
    pub(crate) fn vector(self, id: TensorId, len: usize) -> Result<Tensor, Error> {
        Ok(self.stored(id, &[len])?.to_dtype(self.dtype)?)
    }

    /// A tensor in the type it is stored in.
    pub(crate) fn stored(self, id: TensorId, shape: &[usize]) -> Result<Tensor, Error> {
        to_tensor(id, &self.read(id, shape)?, self.device)
    }

    /// Linears that read the same vector, as one: their outputs stand one after the other.
    /// `parts` are weights and their numbers of rows.
    pub(crate) fn linear(
        self,
        parts: &[(TensorId, usize)],
        inputs: usize,
    ) -> Result<Linear, Error> {
        if !(self.device.is_cpu() && self.dtype == DType::F32) {
            let read = |&(id, rows): &(TensorId, usize)| {
                Ok(self.stored(id, &[rows, inputs])?.to_dtype(self.dtype)?)
            };
            let weights = parts.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
            return Ok(Linear { transposed: Tensor::cat(&weights, 0)?.t()? });
        }
        let outputs = parts.iter().map(|(_, rows)| rows).sum();
        let mut transposed = vec![0.0; inputs * outputs];
        let mut offset = 0;
        for &(id, rows) in parts {
            let bytes = self.read(id, &[rows, inputs])?;
            transpose(&bytes, inputs, &mut transposed[offset..], outputs)
                .map_err(|source| Error::Read { tensor: id, source: source.into() })?;
            offset += rows;
        }
        Ok(Linear { transposed: Tensor::from_vec(transposed, (inputs, outputs), self.device)? })
    }

    fn read(self, id: TensorId, expected: &[usize]) -> Result<TensorBytes<'a>, Error> {
        let bytes = self.source.tensor(id).map_err(|source| Error::Read { tensor: id, source })?;
        if bytes.shape() != expected {
            let (expected, got) = (expected.to_vec(), bytes.shape().to_vec());
            return Err(Error::Shape { tensor: id, expected, got });
        }
        Ok(bytes)
    }
}

fn to_tensor(id: TensorId, bytes: &TensorBytes<'_>, device: &Device) -> Result<Tensor, Error> {
    let dtype = match bytes.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => {
            let source = moeprune_core::Error::NotFloat(other).into();
            return Err(Error::Read { tensor: id, source });
        }
    };
    Ok(Tensor::from_raw_buffer(bytes.bytes(), dtype, bytes.shape(), device)?)
}

/// Writes element `(r, c)` of a matrix with `cols` columns to `dst[c · stride + r]`.
fn transpose(
    bytes: &TensorBytes<'_>,
    cols: usize,
    dst: &mut [f32],
    stride: usize,
) -> Result<(), moeprune_core::Error> {
    // As many rows at a time as fill a cache line of the destination.
    const BAND: usize = 16;
    let rows = bytes.elements() / cols.max(1);
    let mut band = vec![0.0; BAND * cols];
    for first in (0..rows).step_by(BAND) {
        let height = BAND.min(rows - first);
        bytes.decode_f32(first * cols, &mut band[..height * cols])?;
        for c in 0..cols {
            let line = &mut dst[c * stride + first..][..height];
            for (r, value) in line.iter_mut().enumerate() {
                *value = band[r * cols + c];
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use moeprune_core::{LinearId, StageError};

    use super::*;

    /// Element i of every tensor is i.
    struct Counting(Vec<usize>, Dtype);

    impl TensorSource for Counting {
        fn tensor(&self, _: TensorId) -> Result<TensorBytes<'_>, StageError> {
            let len: usize = self.0.iter().product();
            if self.1 == Dtype::I32 {
                return Ok(TensorBytes::new(self.1, self.0.clone(), vec![0; len * 4])?);
            }
            let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
            Ok(TensorBytes::encode(self.1, self.0.clone(), &values)?)
        }
    }

    const ID: TensorId = TensorId::Embedding;

    fn weights(source: &Counting, dtype: DType) -> Weights<'_> {
        Weights { source, device: &Device::Cpu, dtype }
    }

    #[test]
    fn fused_linears_stand_side_by_side() {
        let source = Counting(vec![18, 5], Dtype::BF16);
        let x = Tensor::from_vec(vec![1.0_f32, 0.0, 0.0, 10.0, 0.0], (1, 5), &Device::Cpu).unwrap();
        let want: Vec<f32> = (0..18).chain(0..18).map(|r| (r * 55 + 30) as f32).collect();
        for dtype in [DType::F32, DType::F64] {
            let linear = weights(&source, dtype).linear(&[(ID, 18), (ID, 18)], 5).unwrap();
            let y = linear.forward(&x.to_dtype(dtype).unwrap()).unwrap();
            assert_eq!(crate::ops::to_vec(&y).unwrap(), want);
        }
    }

    #[test]
    fn errors_name_the_tensor() {
        let check = |source: Counting, id: TensorId, want: &str| {
            let error = weights(&source, DType::F32).linear(&[(id, 4)], 3).unwrap_err();
            assert!(error.to_string().starts_with(want), "{error}");
        };
        let router = TensorId::linear(2, LinearId::Router);
        check(
            Counting(vec![3, 4], Dtype::F16),
            router,
            "layer 2 router has shape [3, 4], expected [4, 3]",
        );
        check(Counting(vec![4, 3], Dtype::I32), ID, "cannot read embedding: cannot read I32");
    }
}
