//! Element types of stored tensors.

use std::fmt;

/// Element type of a stored tensor, named as the safetensors format names it.
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
}

impl Dtype {
    /// Every type, in no meaningful order.
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

    /// Size of one element in bits.
    #[must_use]
    pub fn bits(self) -> usize {
        match self {
            Self::F4 => 4,
            Self::F6_E2M3 | Self::F6_E3M2 => 6,
            Self::BOOL
            | Self::U8
            | Self::I8
            | Self::F8_E4M3
            | Self::F8_E5M2
            | Self::F8_E8M0
            | Self::F8_E4M3FNUZ
            | Self::F8_E5M2FNUZ => 8,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 16,
            Self::U32 | Self::I32 | Self::F32 => 32,
            Self::U64 | Self::I64 | Self::F64 | Self::C64 => 64,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
