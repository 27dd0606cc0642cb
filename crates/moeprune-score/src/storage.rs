//! Rows of weights in the bytes of a tensor.

use half::f16;
use moeprune_core::Dtype;

/// The element types weights are stored in, little-endian.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Storage {
    F32,
    F16,
    Bf16,
}

impl Storage {
    pub(crate) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// Bytes of one element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Decodes a row; exact.
    pub(crate) fn decode(self, row: &[u8], weights: &mut [f32]) {
        match self {
            Self::F32 => {
                for (w, b) in weights.iter_mut().zip(row.chunks_exact(4)) {
                    *w = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            Self::F16 => {
                for (w, b) in weights.iter_mut().zip(row.chunks_exact(2)) {
                    *w = f16::from_le_bytes([b[0], b[1]]).to_f32();
                }
            }
            Self::Bf16 => {
                for (w, b) in weights.iter_mut().zip(row.chunks_exact(2)) {
                    *w = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
                }
            }
        }
    }

    /// Writes plus zero where `mask` is set, which is all bits zero in every type.
    pub(crate) fn zero(self, row: &mut [u8], mask: &[bool]) {
        // Unconditional stores: they vectorise.
        match self {
            Self::F32 => {
                for (b, &gone) in row.chunks_exact_mut(4).zip(mask) {
                    let bits = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                    b.copy_from_slice(&(if gone { 0 } else { bits }).to_le_bytes());
                }
            }
            Self::F16 | Self::Bf16 => {
                for (b, &gone) in row.chunks_exact_mut(2).zip(mask) {
                    let bits = u16::from_le_bytes([b[0], b[1]]);
                    b.copy_from_slice(&(if gone { 0 } else { bits }).to_le_bytes());
                }
            }
        }
    }
}
