//! The block types of ggml, in which GGUF files store quantised tensors.

use std::fmt;

use super::Dtype;

/// A type of ggml whose elements are stored in blocks: so many elements of a row share so many bytes.
///
/// What is in a block is not known here. Rows begin at a block's beginning, so whole rows, and
/// whole experts, can be copied without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GgmlType {
    id: u32,
    block_elements: u32,
    block_bytes: u32,
}

/// Number, name, elements and bytes of a block: `enum ggml_type` of ggml.h with the structs of
/// ggml-common.h.
///
/// Numbers that are missing were withdrawn (4, 5, 31 to 33, 36 to 38) or are those of plain types.
/// 42 is left out on purpose: in ggml it is `Q2_0` with blocks of 64, and files of a fork that are as
/// common have blocks of 128 under the same number. As an unknown type it is sized by the file.
const BLOCK_TYPES: [(u32, &str, u32, u32); 26] = [
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (29, "IQ1_M", 256, 56),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

/// The plain types that ggml has too, with its numbers.
const PLAIN_TYPES: [(u32, Dtype); 8] = [
    (0, Dtype::F32),
    (1, Dtype::F16),
    (24, Dtype::I8),
    (25, Dtype::I16),
    (26, Dtype::I32),
    (27, Dtype::I64),
    (28, Dtype::F64),
    (30, Dtype::BF16),
];

impl GgmlType {
    /// The block type with this number; `None` for plain types and numbers that are not known.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        let &(id, _, block_elements, block_bytes) =
            BLOCK_TYPES.iter().find(|known| known.0 == id)?;
        Some(Self { id, block_elements, block_bytes })
    }

    /// A type that is not known here, of which a whole row counts as one block.
    ///
    /// `None` if the number is that of a known type, plain or not, or a size is 0 or above 32 bits.
    #[must_use]
    pub fn unknown(id: u32, row_elements: usize, row_bytes: usize) -> Option<Self> {
        let new = Dtype::from_ggml(id).is_none() && row_elements > 0 && row_bytes > 0;
        let block_elements = u32::try_from(row_elements).ok()?;
        let block_bytes = u32::try_from(row_bytes).ok()?;
        new.then_some(Self { id, block_elements, block_bytes })
    }

    /// Every block type that is known by number, in the order of the numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        BLOCK_TYPES.iter().filter_map(|known| Self::from_id(known.0))
    }

    /// ggml's number.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }

    /// ggml's name, such as `Q4_0`; `None` for an [unknown](Self::unknown) type.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        BLOCK_TYPES.iter().find(|known| known.0 == self.id).map(|known| known.1)
    }

    /// Elements of a block. A row has a multiple of them.
    #[must_use]
    pub fn block_elements(self) -> usize {
        self.block_elements as usize
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        self.block_bytes as usize
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {}", self.id),
        }
    }
}

impl Dtype {
    /// The type that ggml has under this number; `None` if it is not known.
    #[must_use]
    pub fn from_ggml(id: u32) -> Option<Self> {
        let plain = PLAIN_TYPES.iter().find(|plain| plain.0 == id).map(|plain| plain.1);
        plain.or_else(|| GgmlType::from_id(id).map(Self::Ggml))
    }

    /// The number under which ggml has this type; `None` if it lacks it.
    #[must_use]
    pub fn ggml_id(self) -> Option<u32> {
        match self {
            Self::Ggml(blocks) => Some(blocks.id),
            plain => PLAIN_TYPES.iter().find(|known| known.1 == plain).map(|known| known.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorBytes;

    #[test]
    fn numbers_name_one_type_each_both_ways() {
        let known: Vec<u32> = (0..1000).filter(|&id| Dtype::from_ggml(id).is_some()).collect();
        assert_eq!(known.len(), BLOCK_TYPES.len() + PLAIN_TYPES.len());
        for id in known {
            assert_eq!(Dtype::from_ggml(id).and_then(Dtype::ggml_id), Some(id));
        }
        assert!(BLOCK_TYPES.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(Dtype::U8.ggml_id(), None);
    }

    #[test]
    fn no_block_type_has_a_plain_types_name() {
        for blocks in GgmlType::all() {
            assert!(Dtype::ALL.iter().all(|plain| plain.to_string() != blocks.to_string()));
        }
    }

    #[test]
    fn bytes_are_counted_by_rows_of_whole_blocks() {
        let check = |id: u32, shape: &[usize], bytes: Option<usize>| {
            let dtype = Dtype::from_ggml(id).expect("known");
            assert_eq!(dtype.bytes_of_shape(shape), bytes, "{dtype} {shape:?}");
        };
        check(2, &[3, 64], Some(3 * 2 * 18));
        check(39, &[2, 3, 32], Some(6 * 17));
        check(12, &[0, 256], Some(0));
        check(2, &[32, 16], None);
        check(2, &[], None);
        check(2, &[usize::MAX, 32], None);
        check(0, &[], Some(4));
        check(30, &[3, 5], Some(30));
    }

    #[test]
    fn elements_and_bytes_of_blocks() {
        let q4 = Dtype::from_ggml(2).expect("known");
        assert_eq!((q4.bits(), q4.bytes_of(64), q4.bytes_of(33)), (None, Some(36), None));
        assert_eq!((q4.element_at(17), q4.element_at(18)), (0, 32));
        assert_eq!((Dtype::F4.bytes_of(3), Dtype::F4.element_at(3)), (None, 6));
    }

    #[test]
    fn tensors_have_rows_of_whole_blocks() {
        let check = |shape: &[usize], bytes: usize, expected: &str| {
            let q4 = Dtype::from_ggml(2).expect("known");
            let error = TensorBytes::new(q4, shape, vec![0; bytes]).expect_err("refused");
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(&[32, 16], 288, "Q4_0 cannot be of shape [32, 16]: rows must be whole blocks");
        check(&[2, 32], 35, "expected 36 values, got 35");
        check(&[usize::MAX, 32], 18, "rows must be whole blocks");
    }

    #[test]
    fn types_that_come_later_are_rows() {
        let later = GgmlType::unknown(47, 100, 7).expect("not known");
        assert_eq!((later.to_string().as_str(), later.name()), ("type 47", None));
        assert_eq!(Dtype::Ggml(later).bytes_of_shape(&[5, 3, 100]), Some(105));
        for (id, elements, bytes) in
            [(2, 32, 18), (30, 1, 2), (47, 0, 7), (47, 100, 0), (47, 1 << 32, 1)]
        {
            assert_eq!(GgmlType::unknown(id, elements, bytes), None);
        }
    }
}
