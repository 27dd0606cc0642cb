//! One number per element: BF16, F16 and F32, little-endian.

use std::{fmt, marker::PhantomData, ops::Range};

use half::{bf16, f16};

use super::{Comparison, Encoding, Rows, RowsMut};
use crate::{Dtype, Error, TensorBytes};

/// BF16: the upper half of an F32.
pub static BF16: Plain<bf16> = Plain(PhantomData);
/// F16: IEEE 754 binary16.
pub static F16: Plain<f16> = Plain(PhantomData);
/// F32: IEEE 754 binary32.
pub static F32: Plain<f32> = Plain(PhantomData);

/// The number types that weights are stored in one by one, for code that has a kernel per type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a kernel per type has to know every type")]
pub enum Float {
    /// The upper half of an F32.
    Bf16,
    /// IEEE 754 binary16.
    F16,
    /// IEEE 754 binary32.
    F32,
}

impl Float {
    /// The number type of a tensor; `None` if its elements are no such numbers.
    #[must_use]
    pub fn of(dtype: Dtype) -> Option<Self> {
        super::of(dtype).ok()?.float()
    }

    /// The same type as tensors name it.
    #[must_use]
    pub fn dtype(self) -> Dtype {
        match self {
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
            Self::F32 => Dtype::F32,
        }
    }

    /// Bytes of one number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// The encoding in which each element is an `E`.
pub struct Plain<E>(PhantomData<E>);

impl<E: Element> fmt::Debug for Plain<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(E::NAME)
    }
}

/// Elements per block. A block is gone through without leaving it early, which the compiler turns
/// into vector instructions, and is few enough to count in lanes of 16 bits.
const BLOCK: usize = 4096;

impl<E: Element> Encoding for Plain<E> {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn dtype(&self) -> Dtype {
        E::FLOAT.dtype()
    }

    fn shape(&self, main: &[usize], _: &[TensorBytes<'_>]) -> Result<Vec<usize>, Error> {
        Ok(main.to_vec())
    }

    fn row_bytes(&self, cols: usize) -> Option<usize> {
        Some(cols * E::SIZE)
    }

    fn float(&self) -> Option<Float> {
        Some(E::FLOAT)
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        let (mut cols, mut width, mut count) = (rows.cols(), columns.len(), rows.count);
        if width == cols {
            // Whole rows follow each other.
            (cols, width, count) = (cols * count, width * count, 1);
        }
        for row in 0..count {
            let bytes = &rows.main[(row * cols + columns.start) * E::SIZE..][..width * E::SIZE];
            let out = &mut out[row * width..(row + 1) * width];
            for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(E::SIZE)) {
                *out = E::decode(bytes);
            }
        }
    }

    fn encode(
        &self,
        values: &[f32],
        rows: RowsMut<'_>,
        columns: Range<usize>,
    ) -> Result<(), Error> {
        let (cols, width) = (rows.cols(), columns.len());
        for row in 0..rows.count {
            let bytes = &mut rows.main[(row * cols + columns.start) * E::SIZE..][..width * E::SIZE];
            let values = &values[row * width..(row + 1) * width];
            for (value, bytes) in values.iter().zip(bytes.chunks_exact_mut(E::SIZE)) {
                E::encode(*value, bytes);
            }
        }
        Ok(())
    }

    fn zero(&self, rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool {
        let at = (row * rows.cols() + col) * E::SIZE;
        rows.main[at..at + E::SIZE].fill(0);
        true
    }

    fn is_zero(&self, rows: Rows<'_>, row: usize, col: usize) -> bool {
        E::is_zero(&rows.main[(row * rows.cols() + col) * E::SIZE..][..E::SIZE])
    }

    /// Looks at exponent bits only, at the speed of memory.
    fn first_not_finite(&self, rows: Rows<'_>) -> Option<usize> {
        let bytes = &rows.main[..rows.elements() * E::SIZE];
        bytes.chunks(BLOCK * E::SIZE).enumerate().find_map(|(block, bytes)| {
            let elements = || bytes.chunks_exact(E::SIZE);
            let any = elements().fold(false, |any, bytes| any | E::is_not_finite(bytes));
            let at = any.then(|| elements().position(E::is_not_finite))??;
            Some(block * BLOCK + at)
        })
    }

    fn count_zeros(&self, rows: Rows<'_>) -> u64 {
        let block = |bytes: &[u8]| {
            let zeros = bytes.chunks_exact(E::SIZE).map(|bytes| u16::from(E::is_zero(bytes)));
            u64::from(zeros.sum::<u16>())
        };
        rows.main[..rows.elements() * E::SIZE].chunks(BLOCK * E::SIZE).map(block).sum()
    }

    /// Bit by bit, also where the bits are no number.
    fn compare(&self, was: Rows<'_>, now: &[u8]) -> Comparison {
        let mut zeroed = 0;
        let pairs = was.main.chunks_exact(E::SIZE).zip(now.chunks_exact(E::SIZE));
        for (element, (was, now)) in pairs.take(was.elements()).enumerate() {
            if was == now {
                continue;
            }
            if !E::is_zero(now) {
                return Comparison::Changed { first: element };
            }
            zeroed += u64::from(!E::is_zero(was));
        }
        Comparison::Zeroed { count: zeroed }
    }
}

/// A number type as it is stored. Methods receive exactly [`SIZE`](Self::SIZE) bytes.
pub trait Element: Send + Sync + 'static {
    /// Name for people.
    const NAME: &'static str;
    /// The type.
    const FLOAT: Float;
    /// Bytes of one number.
    const SIZE: usize;

    /// Exact.
    fn decode(bytes: &[u8]) -> f32;

    /// Rounds to nearest, ties to even.
    fn encode(value: f32, bytes: &mut [u8]);

    /// Of either sign.
    fn is_zero(bytes: &[u8]) -> bool;

    /// NaN or infinite: all bits of the exponent set.
    fn is_not_finite(bytes: &[u8]) -> bool;
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";
    const FLOAT: Float = Float::Bf16;
    const SIZE: usize = 2;

    #[inline(always)]
    fn decode(bytes: &[u8]) -> f32 {
        f32::from_bits(u32::from(bits_2(bytes)) << 16)
    }

    #[inline(always)]
    fn encode(value: f32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&Self::from_f32(value).to_le_bytes());
    }

    #[inline(always)]
    fn is_zero(bytes: &[u8]) -> bool {
        bits_2(bytes) & 0x7fff == 0
    }

    #[inline(always)]
    fn is_not_finite(bytes: &[u8]) -> bool {
        bits_2(bytes) & 0x7f80 == 0x7f80
    }
}

impl Element for f16 {
    const NAME: &'static str = "f16";
    const FLOAT: Float = Float::F16;
    const SIZE: usize = 2;

    #[inline(always)]
    fn decode(bytes: &[u8]) -> f32 {
        Self::from_bits(bits_2(bytes)).to_f32()
    }

    #[inline(always)]
    fn encode(value: f32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&Self::from_f32(value).to_le_bytes());
    }

    #[inline(always)]
    fn is_zero(bytes: &[u8]) -> bool {
        bits_2(bytes) & 0x7fff == 0
    }

    #[inline(always)]
    fn is_not_finite(bytes: &[u8]) -> bool {
        bits_2(bytes) & 0x7c00 == 0x7c00
    }
}

impl Element for f32 {
    const NAME: &'static str = "f32";
    const FLOAT: Float = Float::F32;
    const SIZE: usize = 4;

    #[inline(always)]
    fn decode(bytes: &[u8]) -> f32 {
        Self::from_bits(bits_4(bytes))
    }

    #[inline(always)]
    fn encode(value: f32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }

    #[inline(always)]
    fn is_zero(bytes: &[u8]) -> bool {
        bits_4(bytes) & 0x7fff_ffff == 0
    }

    #[inline(always)]
    fn is_not_finite(bytes: &[u8]) -> bool {
        bits_4(bytes) & 0x7f80_0000 == 0x7f80_0000
    }
}

#[inline(always)]
fn bits_2(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

#[inline(always)]
fn bits_4(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
