//! Linears, and reading them.

use std::ops::Range;

use candle_core::{Device, Tensor};
use moeprune_core::{
    Dtype, LayerTensor, LinearId, StoredWeight, TensorBytes, TensorId, TensorSource,
};

use crate::{
    Compute, Error,
    host_weights::HostWeights,
    ops::{self, with_slice},
    unpacked::Unpacked,
};

/// `x · Wᵀ + b`
#[derive(Debug)]
pub(crate) struct Linear {
    matrix: Matrix,
    /// `[outputs]`, in the type that is computed in.
    bias: Option<Tensor>,
}

#[derive(Debug)]
enum Matrix {
    /// For products in f32 on the CPU.
    Host(HostWeights),
    /// `[outputs, inputs]` in the type it is stored in.
    Device { weight: Tensor },
}

impl Linear {
    /// `[rows, inputs]` to `[rows, outputs]`, in the type of `x`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let y = self.matrix.forward(x)?;
        match &self.bias {
            None => Ok(y),
            Some(bias) => ops::add_to_rows(&y, bias),
        }
    }

    /// Bytes that its weight takes where it runs.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.matrix {
            Matrix::Host(weights) => weights.bytes(),
            Matrix::Device { weight } => {
                (weight.elem_count() * weight.dtype().size_in_bytes()) as u64
            }
        }
    }

    /// The stored weight, sharing its memory; `None` where it was packed.
    pub(crate) fn stored(&self) -> Result<Option<Tensor>, Error> {
        match &self.matrix {
            Matrix::Host(_) => Ok(None),
            Matrix::Device { weight } => Ok(Some(weight.clone())),
        }
    }

    /// The rows of one of the Linears that were read as one; `parts` are all of them with their numbers
    /// of rows.
    pub(crate) fn stored_part(
        &self,
        linear: LinearId,
        parts: &[(LinearId, usize)],
    ) -> Result<Option<Tensor>, Error> {
        let mut first = 0;
        for &(id, rows) in parts {
            if id == linear {
                return self.stored_rows(first..first + rows);
            }
            first += rows;
        }
        Ok(None)
    }

    /// Some rows of it.
    pub(crate) fn stored_rows(&self, rows: Range<usize>) -> Result<Option<Tensor>, Error> {
        match self.stored()? {
            None => Ok(None),
            Some(weight) => Ok(Some(weight.narrow(0, rows.start, rows.len())?)),
        }
    }
}

impl Matrix {
    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let weights = match self {
            Self::Host(weights) => weights,
            Self::Device { weight } => {
                return Ok(x.matmul(&weight.to_dtype(x.dtype())?.t()?)?);
            }
        };
        let rows = x.dim(0)?;
        let y = with_slice(x, |x| weights.product(rows, x))?;
        Ok(Tensor::from_vec(y, (rows, weights.outputs()), &Device::Cpu)?)
    }
}

/// Reads weights to the place they are computed in.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) source: &'a dyn TensorSource,
    pub(crate) compute: &'a Compute,
}

impl<'a> Weights<'a> {
    /// A vector, for example a norm's weight, in the type that is computed in.
    pub(crate) fn vector(self, id: TensorId, len: usize) -> Result<Tensor, Error> {
        Ok(self.stored(id, &[len])?.to_dtype(self.compute.dtype())?)
    }

    /// A tensor in f32, or in what is computed in if that is wider.
    pub(crate) fn wide(self, id: TensorId, shape: &[usize]) -> Result<Tensor, Error> {
        Ok(self.stored(id, shape)?.to_dtype(ops::wide(self.compute.dtype()))?)
    }

    /// A tensor in the type it is stored in; one in codes in the type that is computed in.
    pub(crate) fn stored(self, id: TensorId, shape: &[usize]) -> Result<Tensor, Error> {
        self.brought(vec![(id, self.read(id, shape)?)])
    }

    /// A tensor as numbers, wherever is computed.
    pub(crate) fn values(self, id: TensorId, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let mut values = vec![0.0; shape.iter().product()];
        self.read(id, shape)?
            .decode(0, &mut values)
            .map_err(|source| Error::Read { tensor: id, source: source.into() })?;
        Ok(values)
    }

    /// Linears that read the same vector, as one: their outputs stand one after the other.
    /// `parts` are weights and their numbers of rows.
    pub(crate) fn linear(
        self,
        parts: &[(TensorId, usize)],
        inputs: usize,
    ) -> Result<Linear, Error> {
        self.linear_with(parts, inputs, false)
    }

    /// The same, of which each may have a bias.
    pub(crate) fn linear_with(
        self,
        parts: &[(TensorId, usize)],
        inputs: usize,
        biases: bool,
    ) -> Result<Linear, Error> {
        let bias = if biases { Some(self.biases(parts)?) } else { None };
        let compute = self.compute;
        let matrix = if compute.holds_stored() {
            self.held(parts, inputs)
        } else {
            self.packed(parts, inputs)
        };
        Ok(Linear { matrix: matrix?, bias })
    }

    fn biases(self, parts: &[(TensorId, usize)]) -> Result<Tensor, Error> {
        let bias = |&(id, rows): &(TensorId, usize)| match id {
            TensorId::Layer(layer, LayerTensor::Linear(linear)) => {
                self.vector(TensorId::Layer(layer, LayerTensor::Bias(linear)), rows)
            }
            other => Err(Error::Spec(format!("{other} has no bias"))),
        };
        let biases = parts.iter().map(bias).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::cat(&biases, 0)?)
    }

    fn held(self, parts: &[(TensorId, usize)], inputs: usize) -> Result<Matrix, Error> {
        let read = |&(id, rows): &(TensorId, usize)| Ok((id, self.read(id, &[rows, inputs])?));
        let weights = parts.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
        Ok(Matrix::Device { weight: self.brought(weights)? })
    }

    /// Weights where they are computed with, one below the other: in the type they are stored in, or,
    /// if one is in codes, decoded into the type that is computed in.
    fn brought(self, weights: Vec<(TensorId, StoredWeight<'a>)>) -> Result<Tensor, Error> {
        let in_codes = weights.iter().any(|(_, weight)| weight.encoding().float().is_none());
        let plain = |(tensor, weight): (TensorId, StoredWeight<'a>)| {
            let numbers = match in_codes {
                true => decoded(&weight, self.compute.decoded_type()),
                false => weight.into_plain(),
            };
            match numbers {
                Ok(numbers) => Ok((tensor, numbers)),
                Err(source) => Err(Error::Read { tensor, source: source.into() }),
            }
        };
        let weights = weights.into_iter().map(plain).collect::<Result<Vec<_>, Error>>()?;
        let (ids, weights): (Vec<TensorId>, Vec<TensorBytes<'_>>) = weights.into_iter().unzip();
        for (tensor, weight) in ids.iter().zip(&weights) {
            if weight.dtype() != weights[0].dtype() {
                return Err(Error::MixedTypes {
                    tensor: *tensor,
                    expected: weights[0].dtype(),
                    got: weight.dtype(),
                });
            }
        }
        self.compute.upload(&weights)
    }

    fn packed(self, parts: &[(TensorId, usize)], inputs: usize) -> Result<Matrix, Error> {
        let read = |&(id, rows): &(TensorId, usize)| Ok((id, self.unpacked(id, &[rows, inputs])?));
        let weights = parts.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
        Ok(Matrix::Host(HostWeights::pack(&weights, inputs, self.compute)?))
    }

    /// A weight to be packed: where it is stored, if it can be read row by row.
    fn unpacked(self, id: TensorId, expected: &[usize]) -> Result<Unpacked<'a>, Error> {
        let rows = self.source.stored_rows(id);
        let Some(rows) = rows.map_err(|source| Error::Read { tensor: id, source })? else {
            return Ok(Unpacked::Whole(self.read(id, expected)?));
        };
        check_shape(id, expected, &rows.shape())?;
        Ok(Unpacked::Rows(rows))
    }

    fn read(self, id: TensorId, expected: &[usize]) -> Result<StoredWeight<'a>, Error> {
        let weight = self.source.weight(id).map_err(|source| Error::Read { tensor: id, source })?;
        check_shape(id, expected, weight.shape())?;
        Ok(weight)
    }
}

fn check_shape(tensor: TensorId, expected: &[usize], got: &[usize]) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    Err(Error::Shape { tensor, expected: expected.to_vec(), got: got.to_vec() })
}

/// A weight's values, rounded to `dtype`.
fn decoded(
    weight: &StoredWeight<'_>,
    dtype: Dtype,
) -> Result<TensorBytes<'static>, moeprune_core::Error> {
    TensorBytes::encode(dtype, weight.shape(), &weight.to_f32())
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use moeprune_core::StageError;

    use super::*;

    /// Element i of every tensor is i.
    struct Counting(Vec<usize>, Dtype);

    impl Counting {
        fn read(&self, _: TensorId) -> Result<TensorBytes<'_>, StageError> {
            let len: usize = self.0.iter().product();
            if self.1 == Dtype::I32 {
                return Ok(TensorBytes::new(self.1, self.0.clone(), vec![0; len * 4])?);
            }
            let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
            Ok(TensorBytes::encode(self.1, self.0.clone(), &values)?)
        }
    }

    impl TensorSource for Counting {
        fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
            Ok(StoredWeight::alone(self.read(id)?)?)
        }
    }

    const ID: TensorId = TensorId::Embedding;

    #[test]
    fn fused_linears_stand_side_by_side() {
        let source = Counting(vec![18, 5], Dtype::BF16);
        let x = Tensor::from_vec(vec![1.0_f32, 0.0, 0.0, 10.0, 0.0], (1, 5), &Device::Cpu).unwrap();
        let want: Vec<f32> = (0..18).chain(0..18).map(|r| (r * 55 + 30) as f32).collect();
        let by_tiles = Compute::cpu_by_tiles().ok();
        let others =
            [Compute::cpu(), Compute::cpu().keeping_buffers(), Compute::cpu_in(DType::F64)];
        for compute in others.into_iter().chain(by_tiles) {
            let weights = Weights { source: &source, compute: &compute };
            let linear = weights.linear(&[(ID, 18), (ID, 18)], 5).unwrap();
            let y = linear.forward(&x.to_dtype(compute.dtype()).unwrap()).unwrap();
            assert_eq!(ops::to_vec(&y).unwrap(), want);
        }
    }

    #[test]
    fn biases_are_added_to_each_row() {
        let source = Counting(vec![3, 2], Dtype::BF16);
        let bias = |id| matches!(id, TensorId::Layer(_, LayerTensor::Bias(_)));
        struct WithBias<'a>(&'a Counting, fn(TensorId) -> bool);
        impl TensorSource for WithBias<'_> {
            fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
                if (self.1)(id) {
                    let bias = TensorBytes::encode(Dtype::F32, [3], &[10.0, 20.0, 30.0])?;
                    return Ok(StoredWeight::alone(bias)?);
                }
                self.0.weight(id)
            }
        }
        let x = Tensor::from_vec(vec![1.0_f32, 0.0, 0.0, 1.0], (2, 2), &Device::Cpu).unwrap();
        for dtype in [DType::F32, DType::F64] {
            let compute = Compute::cpu_in(dtype);
            let weights = Weights { source: &WithBias(&source, bias), compute: &compute };
            let router = TensorId::linear(2, LinearId::Router);
            let linear = weights.linear_with(&[(router, 3)], 2, true).unwrap();
            let y = linear.forward(&x.to_dtype(dtype).unwrap()).unwrap();
            assert_eq!(ops::to_vec(&y).unwrap(), [10.0, 22.0, 34.0, 11.0, 23.0, 35.0]);
        }
    }

    #[test]
    fn errors_name_the_tensor() {
        let check = |source: Counting, id: TensorId, want: &str| {
            let compute = Compute::cpu();
            let weights = Weights { source: &source, compute: &compute };
            let error = weights.linear(&[(id, 4)], 3).unwrap_err();
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
