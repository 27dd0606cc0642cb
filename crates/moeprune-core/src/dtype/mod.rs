//! Element types of stored tensors.

use std::fmt;

mod ggml;

pub use ggml::GgmlType;

/// Element type of a stored tensor, named as the safetensors format names it, or a block type of ggml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the type it names")]
#[expect(non_camel_case_types, reason = "the format's own names")]
#[non_exhaustive]
pub enum Dtype {
    BOOL,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    BF16,
    F32,
    F64,
    F8_E4M3,
    F8_E5M2,
    F8_E8M0,
    F4,
    F6_E2M3,
    F6_E3M2,
    C64,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    /// Elements in blocks, as GGUF files store them. No name in a safetensors file says so.
    Ggml(GgmlType),
}

impl Dtype {
    /// Every type that safetensors has, which is all but the block types of ggml, in no meaningful order.
    pub const ALL: [Self; 22] = [
        Self::BOOL,
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F16,
        Self::BF16,
        Self::F32,
        Self::F64,
        Self::F8_E4M3,
        Self::F8_E5M2,
        Self::F8_E8M0,
        Self::F4,
        Self::F6_E2M3,
        Self::F6_E3M2,
        Self::C64,
        Self::F8_E4M3FNUZ,
        Self::F8_E5M2FNUZ,
    ];

    /// Size of one element in bits; `None` for a type that stores elements in blocks.
    #[must_use]
    pub fn bits(self) -> Option<usize> {
        match self {
            Self::F4 => Some(4),
            Self::F6_E2M3 | Self::F6_E3M2 => Some(6),
            Self::BOOL
            | Self::U8
            | Self::I8
            | Self::F8_E4M3
            | Self::F8_E5M2
            | Self::F8_E8M0
            | Self::F8_E4M3FNUZ
            | Self::F8_E5M2FNUZ => Some(8),
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => Some(16),
            Self::U32 | Self::I32 | Self::F32 => Some(32),
            Self::U64 | Self::I64 | Self::F64 | Self::C64 => Some(64),
            Self::Ggml(_) => None,
        }
    }

    /// Bytes of so many elements that lie one after the other; `None` if they are no whole number of
    /// bytes or blocks, or cannot be counted.
    #[must_use]
    pub fn bytes_of(self, elements: usize) -> Option<usize> {
        let (unit_elements, unit_bytes) = self.unit();
        let whole = elements.is_multiple_of(unit_elements);
        whole.then(|| (elements / unit_elements).checked_mul(unit_bytes)).flatten()
    }

    /// Bytes of a tensor of this shape, outermost dimension first; `None` as of
    /// [`bytes_of`](Self::bytes_of), and where a row ends within a block.
    #[must_use]
    pub fn bytes_of_shape(self, shape: &[usize]) -> Option<usize> {
        let elements = shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim))?;
        if let Self::Ggml(blocks) = self {
            let row = shape.last().copied().unwrap_or(1);
            row.is_multiple_of(blocks.block_elements()).then_some(())?;
        }
        self.bytes_of(elements)
    }

    /// The element in which this byte is, of a block the first one; of the length of some bytes, how
    /// many elements they are.
    #[must_use]
    pub fn element_at(self, byte: usize) -> usize {
        let (unit_elements, unit_bytes) = self.unit();
        match self {
            Self::Ggml(_) => (byte / unit_bytes).saturating_mul(unit_elements),
            _ => byte.saturating_mul(unit_elements) / unit_bytes,
        }
    }

    /// The fewest elements that are a whole number of bytes, and those bytes.
    fn unit(self) -> (usize, usize) {
        match (self, self.bits()) {
            (Self::Ggml(blocks), _) => (blocks.block_elements(), blocks.block_bytes()),
            (_, Some(4)) => (2, 1),
            (_, Some(6)) => (4, 3),
            (_, bits) => (1, bits.unwrap_or(8) / 8),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ggml(blocks) => blocks.fmt(f),
            plain => fmt::Debug::fmt(plain, f),
        }
    }
}
