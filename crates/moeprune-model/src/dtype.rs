//! Types of elements as candle and as core name them.

use candle_core::DType;
use moeprune_core::{Dtype, encoding::Float};

/// candle's name of a type whose elements are numbers by themselves, which alone can be computed
/// with as they are stored.
pub(crate) fn candle_dtype(dtype: Dtype) -> Result<DType, moeprune_core::Error> {
    match Float::of(dtype).ok_or(moeprune_core::Error::NotFloat(dtype))? {
        Float::F32 => Ok(DType::F32),
        Float::F16 => Ok(DType::F16),
        Float::Bf16 => Ok(DType::BF16),
    }
}

/// The same backwards; `None` for types that no weight is stored in.
pub(crate) fn stored_dtype(dtype: DType) -> Option<Float> {
    match dtype {
        DType::F32 => Some(Float::F32),
        DType::F16 => Some(Float::F16),
        DType::BF16 => Some(Float::Bf16),
        _ => None,
    }
}
