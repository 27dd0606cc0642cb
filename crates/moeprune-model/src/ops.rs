//! The row-wise operations of a layer.
//!
//! Each runs on plain slices for f32 tensors on the CPU ([`is_host`]) and through candle's own
//! operations for anything else: another device, or another type on the CPU.

use candle_core::{CpuStorage, D, DType, Device, Storage, Tensor};
use moeprune_core::ClampedSwiglu;

use crate::{
    Error,
    exponential::{exp, silu, sum_squares},
};

/// Whether a tensor is handled as a slice.
pub(crate) fn is_host(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32
}

/// The type in which sums that need care are taken.
pub(crate) fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Shows the elements of a host tensor, row-major.
pub(crate) fn with_slice<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R, Error> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        let message = format!("expected f32 on the CPU, got {:?}", tensor.dtype());
        return Err(candle_core::Error::Msg(message).into());
    };
    let start = layout.start_offset();
    Ok(f(&values[start..start + layout.shape().elem_count()]))
}

/// All elements as f32, wherever the tensor is.
pub(crate) fn to_vec(tensor: &Tensor) -> Result<Vec<f32>, Error> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// `a + b`
pub(crate) fn add(a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
    if !is_host(a) {
        return Ok((a + b)?);
    }
    let sums = with_slice(a, |a| {
        with_slice(b, |b| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>())
    })??;
    Ok(Tensor::from_vec(sums, a.shape(), &Device::Cpu)?)
}

/// `x + row` for each row of `x`.
pub(crate) fn add_to_rows(x: &Tensor, row: &Tensor) -> Result<Tensor, Error> {
    if !is_host(x) {
        return Ok(x.broadcast_add(row)?);
    }
    let sums = with_slice(x, |x| {
        with_slice(row, |row| {
            let sums =
                x.chunks_exact(row.len()).flat_map(|x| x.iter().zip(row).map(|(a, b)| a + b));
            sums.collect::<Vec<_>>()
        })
    })??;
    Ok(Tensor::from_vec(sums, x.shape(), &Device::Cpu)?)
}

/// Each row of `x` times the logistic function of its element of `gate`, `[rows, 1]`.
pub(crate) fn gated_rows(x: &Tensor, gate: &Tensor) -> Result<Tensor, Error> {
    let gate = gate.to_dtype(wide(gate.dtype()))?;
    let gate = ((gate.neg()?.exp()? + 1.0)?.recip()?).to_dtype(x.dtype())?;
    Ok(x.broadcast_mul(&gate)?)
}

/// `x / sqrt(mean(x²) + eps) ∘ weight` for each row of `x`, in f32 or wider.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, Error> {
    if x.device().is_cuda() {
        return Ok(candle_nn::ops::rms_norm(&x.contiguous()?, weight, eps as f32)?);
    }
    if !is_host(x) {
        let wide_x = x.to_dtype(wide(x.dtype()))?;
        let mean = wide_x.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = wide_x.broadcast_div(&(mean + eps)?.sqrt()?)?;
        return Ok(normed.to_dtype(x.dtype())?.broadcast_mul(weight)?);
    }
    let normed = with_slice(x, |x| {
        with_slice(weight, |weight| {
            let mut normed = Vec::with_capacity(x.len());
            for row in x.chunks_exact(weight.len()) {
                let mean = sum_squares(row) / row.len() as f32;
                let scale = 1.0 / (mean + eps as f32).sqrt();
                normed.extend(row.iter().zip(weight).map(|(x, w)| x * scale * w));
            }
            normed
        })
    })??;
    Ok(Tensor::from_vec(normed, x.shape(), &Device::Cpu)?)
}

/// `(x − mean(x)) / sqrt(var(x) + eps) ∘ weight + bias` for each row of `x`, in f32 or wider.
pub(crate) fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor, Error> {
    let wide_x = x.to_dtype(wide(x.dtype()))?;
    let centred = wide_x.broadcast_sub(&wide_x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?.to_dtype(x.dtype())?;
    Ok(normed.broadcast_mul(weight)?.broadcast_add(bias)?)
}

/// `silu(gate) ∘ up` for rows that hold `gate` and then `up`.
pub(crate) fn gated_silu(gate_up: &Tensor) -> Result<Tensor, Error> {
    let (rows, both) = gate_up.dims2()?;
    let inner = both / 2;
    #[cfg(feature = "cuda")]
    if gate_up.device().is_cuda() {
        return crate::cuda::gated_silu(gate_up);
    }
    if !is_host(gate_up) {
        let gate = gate_up.narrow(1, 0, inner)?.silu()?;
        return Ok((gate * gate_up.narrow(1, inner, inner)?)?);
    }
    let hidden = with_slice(gate_up, |values| {
        let mut hidden = Vec::with_capacity(rows * inner);
        for row in values.chunks_exact(both) {
            let (gate, up) = row.split_at(inner);
            hidden.extend(gate.iter().zip(up).map(|(g, u)| silu(*g) * u));
        }
        hidden
    })?;
    Ok(Tensor::from_vec(hidden, (rows, inner), &Device::Cpu)?)
}

/// `(up' + 1) · gate' · sigmoid(alpha · gate')` for rows that hold `gate` and then `up`, both limited.
pub(crate) fn clamped_swiglu(gate_up: &Tensor, clamps: ClampedSwiglu) -> Result<Tensor, Error> {
    let (rows, both) = gate_up.dims2()?;
    let inner = both / 2;
    let ClampedSwiglu { alpha, limit } = clamps;
    if !is_host(gate_up) {
        let gate = gate_up.narrow(1, 0, inner)?.minimum(limit)?;
        let up = gate_up.narrow(1, inner, inner)?.clamp(-limit, limit)?;
        let share = (((&gate * -alpha)?.exp()? + 1.0)?.recip())?;
        return Ok(((up + 1.0)? * (gate * share)?)?);
    }
    let (alpha, limit) = (alpha as f32, limit as f32);
    let hidden = with_slice(gate_up, |values| {
        let mut hidden = Vec::with_capacity(rows * inner);
        for row in values.chunks_exact(both) {
            let (gate, up) = row.split_at(inner);
            // What is no number stays none.
            let at_most = |x: f32| if x > limit { limit } else { x };
            hidden.extend(gate.iter().zip(up).map(|(&g, &u)| {
                let (g, u) = (at_most(g), -at_most(-at_most(u)));
                (u + 1.0) * g / (1.0 + exp(-alpha * g))
            }));
        }
        hidden
    })?;
    Ok(Tensor::from_vec(hidden, (rows, inner), &Device::Cpu)?)
}

/// `max(x, 0)²`
pub(crate) fn relu_squared(x: &Tensor) -> Result<Tensor, Error> {
    if !is_host(x) {
        return Ok(x.relu()?.sqr()?);
    }
    // What is no number stays none.
    let square = |&x: &f32| if x < 0.0 { 0.0 } else { x * x };
    let squares = with_slice(x, |x| x.iter().map(square).collect::<Vec<_>>())?;
    Ok(Tensor::from_vec(squares, x.shape(), &Device::Cpu)?)
}

/// `factor · x`
pub(crate) fn scaled(x: Tensor, factor: f64) -> Result<Tensor, Error> {
    if factor == 1.0 { Ok(x) } else { Ok((x * factor)?) }
}

/// The rows of `x` with these indices.
pub(crate) fn gather_rows(x: &Tensor, rows: &[u32]) -> Result<Tensor, Error> {
    if !is_host(x) {
        let index = Tensor::from_slice(rows, rows.len(), x.device())?;
        return Ok(x.contiguous()?.index_select(&index, 0)?);
    }
    let cols = x.dim(1)?;
    let gathered = with_slice(x, |values| {
        let mut gathered = Vec::with_capacity(rows.len() * cols);
        for &row in rows {
            gathered.extend_from_slice(&values[row as usize * cols..][..cols]);
        }
        gathered
    })?;
    Ok(Tensor::from_vec(gathered, (rows.len(), cols), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(got: impl Fn(&Tensor) -> Tensor, rows: &[f32], cols: usize, expected: &[f64]) {
        for dtype in [DType::F32, DType::F64] {
            let x = Tensor::from_slice(rows, (rows.len() / cols, cols), &Device::Cpu);
            let got = to_vec(&got(&x.and_then(|x| x.to_dtype(dtype)).unwrap())).unwrap();
            assert_eq!(got.len(), expected.len());
            for (got, want) in got.iter().zip(expected) {
                assert!((f64::from(*got) - want).abs() < 1e-5, "{got} {want}");
            }
        }
    }

    #[test]
    fn clamped_gates() {
        let clamps = ClampedSwiglu { alpha: 1.5, limit: 2.0 };
        let of = |gate: f64, up: f64| (up + 1.0) * gate / (1.0 + (-1.5 * gate).exp());
        let rows = [1.0, 9.0, -9.0, 0.5, -8.0, 8.0];
        let expected = [of(1.0, 0.5), of(2.0, -2.0), of(-9.0, 2.0)];
        check(|x| clamped_swiglu(x, clamps).unwrap(), &rows, 6, &expected);
    }

    #[test]
    fn squares_of_what_is_positive() {
        check(|x| relu_squared(x).unwrap(), &[1.5, -2.0, 0.0, 3.0], 2, &[2.25, 0.0, 0.0, 9.0]);
    }

    #[test]
    fn norms_without_the_mean() {
        let vector = |values: &[f64; 2], like: &Tensor| {
            Tensor::new(values, &Device::Cpu).and_then(|v| v.to_dtype(like.dtype())).unwrap()
        };
        let norm = |x: &Tensor| {
            layer_norm(x, &vector(&[2.0, 3.0], x), &vector(&[0.5, 0.0], x), 0.0).unwrap()
        };
        check(norm, &[1.0, 5.0, 7.0, 7.5], 2, &[-1.5, 3.0, -1.5, 3.0]);
    }
}
