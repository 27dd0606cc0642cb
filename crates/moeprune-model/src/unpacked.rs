//! Weights on their way into panels.

use std::{cell::Cell, ops::Range};

use moeprune_core::{StageError, StoredRows, StoredWeight, TensorBytes, encoding::Float};
use moeprune_linalg::{PackedElements, Panel};

/// Rows that are read and packed together, so that what is read is still in a cache.
const TOGETHER: usize = 16;

/// A weight of a Linear that is to be packed.
#[derive(Debug)]
pub(crate) enum Unpacked<'a> {
    /// All of it, in memory.
    Whole(StoredWeight<'a>),
    /// Where it is stored. It is read while it is packed, some rows at a time.
    Rows(StoredRows<'a>),
}

impl Unpacked<'_> {
    /// How many outputs it has.
    pub(crate) fn outputs(&self) -> usize {
        match self {
            Self::Whole(weight) => weight.rows(),
            Self::Rows(rows) => rows.shape()[0],
        }
    }

    pub(crate) fn is_bf16(&self) -> bool {
        let float = match self {
            Self::Whole(weight) => weight.encoding().float(),
            Self::Rows(rows) => Some(rows.float()),
        };
        float == Some(Float::Bf16)
    }

    /// Puts some rows into a panel, as its outputs from `at` on.
    pub(crate) fn put(
        &self,
        rows: Range<usize>,
        panel: &mut Panel<'_>,
        at: usize,
    ) -> Result<(), StageError> {
        match self {
            Self::Whole(weight) => Ok(put(weight, rows, panel, at)?),
            Self::Rows(stored) => rows.clone().step_by(TOGETHER).try_for_each(|first| {
                let some = first..rows.end.min(first + TOGETHER);
                put_read(stored, some, panel, at + first - rows.start)
            }),
        }
    }
}

fn put(
    weight: &StoredWeight<'_>,
    rows: Range<usize>,
    panel: &mut Panel<'_>,
    at: usize,
) -> Result<(), moeprune_core::Error> {
    let cols = weight.cols();
    if panel.elements() == PackedElements::Bf16 {
        panel.put_bf16(at, &weight.main().bytes()[2 * rows.start * cols..2 * rows.end * cols]);
        return Ok(());
    }
    panel.put_f32(at, rows.len(), |numbers| weight.decode(rows.start * cols, numbers))
}

fn put_read(
    stored: &StoredRows<'_>,
    rows: Range<usize>,
    panel: &mut Panel<'_>,
    at: usize,
) -> Result<(), StageError> {
    let count = rows.len();
    with_bytes(count * stored.row_bytes(), |bytes| {
        stored.read(rows, bytes)?;
        if panel.elements() == PackedElements::Bf16 {
            panel.put_bf16(at, bytes);
            return Ok(());
        }
        let shape = [count, stored.shape()[1]];
        let read = TensorBytes::new(stored.float().dtype(), shape, &*bytes)?;
        Ok(panel.put_f32(at, count, |numbers| read.decode_f32(0, numbers))?)
    })
}

/// Calls `use_it` with `len` bytes of any value, which stay with the thread for the next call.
fn with_bytes<R>(len: usize, use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    thread_local! {
        static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut bytes = KEPT.take();
    if bytes.len() < len {
        bytes.resize(len, 0);
    }
    let result = use_it(&mut bytes[..len]);
    KEPT.set(bytes);
    result
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::{Device, Tensor};
    use moeprune_core::{Dtype, TensorId, TensorSource};
    use proptest::prelude::*;

    use super::*;
    use crate::{Compute, Error, linear::Weights, ops};

    /// Matrices, given as a whole or row by row.
    struct Matrices {
        matrices: BTreeMap<TensorId, TensorBytes<'static>>,
        by_rows: bool,
        /// A row that cannot be read.
        torn: Option<usize>,
    }

    impl TensorSource for Matrices {
        fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
            Ok(StoredWeight::alone(self.matrices[&id].view())?)
        }

        fn stored_rows(&self, id: TensorId) -> Result<Option<StoredRows<'_>>, StageError> {
            let matrix = &self.matrices[&id];
            let float = Float::of(matrix.dtype()).filter(|_| self.by_rows);
            let (Some(float), &[rows, cols]) = (float, matrix.shape()) else { return Ok(None) };
            let read = move |rows: Range<usize>, bytes: &mut [u8]| {
                if self.torn.is_some_and(|torn| rows.contains(&torn)) {
                    return Err("the disk is gone".into());
                }
                let size = cols * float.size();
                bytes.copy_from_slice(&matrix.bytes()[rows.start * size..rows.end * size]);
                Ok(())
            };
            Ok(Some(StoredRows::new(float, [rows, cols], read)))
        }
    }

    const IDS: [TensorId; 2] = [TensorId::Embedding, TensorId::LmHead];

    fn matrices(rows: [usize; 2], cols: usize, dtypes: [Dtype; 2]) -> Matrices {
        let matrix = |rows: usize, dtype| {
            let values: Vec<f32> =
                (0..rows * cols).map(|i| ((i * 37 + 11) % 101) as f32 / 64.0 - 0.7).collect();
            TensorBytes::encode(dtype, [rows, cols], &values).expect("is encoded")
        };
        let matrices = [0, 1].map(|at| (IDS[at], matrix(rows[at], dtypes[at])));
        Matrices { matrices: matrices.into(), by_rows: false, torn: None }
    }

    fn product(source: &Matrices, rows: [usize; 2], cols: usize) -> Result<Vec<u32>, Error> {
        let x: Vec<f32> = (0..3 * cols).map(|i| (i % 13) as f32 / 7.0 - 0.9).collect();
        let x = Tensor::from_vec(x, (3, cols), &Device::Cpu)?;
        let weights = Weights { source, compute: &Compute::cpu() };
        let linear = weights.linear(&[(IDS[0], rows[0]), (IDS[1], rows[1])], cols)?;
        Ok(ops::to_vec(&linear.forward(&x)?)?.into_iter().map(f32::to_bits).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Weights that are read row by row give the bits of the same weights in memory.
        #[test]
        fn rows_give_what_the_whole_gives(
            rows in [1..70_usize, 1..70_usize],
            cols in 1..40_usize,
            dtypes in [0..3_usize, 0..3_usize],
        ) {
            let dtypes = dtypes.map(|at| [Dtype::BF16, Dtype::F16, Dtype::F32][at]);
            let whole = matrices(rows, cols, dtypes);
            let expected = product(&whole, rows, cols).unwrap();
            let by_rows = Matrices { by_rows: true, ..whole };
            prop_assert_eq!(product(&by_rows, rows, cols).unwrap(), expected);
        }

        /// A row that cannot be read fails, and the tensor is named.
        #[test]
        fn a_row_that_cannot_be_read(rows in [1..70_usize, 1..70_usize], torn in 0..70_usize) {
            let torn = Matrices {
                by_rows: true,
                torn: Some(torn),
                ..matrices(rows, 5, [Dtype::BF16; 2])
            };
            let at = torn.torn.unwrap_or_default();
            let failed = (0..2).find(|&part| at < rows[part]);
            match (product(&torn, rows, 5), failed) {
                (Ok(_), None) => {}
                (Err(Error::Read { tensor, source }), Some(part)) => {
                    prop_assert_eq!(tensor, IDS[part]);
                    prop_assert_eq!(source.to_string(), "the disk is gone");
                }
                (product, _) => prop_assert!(false, "{:?}", product),
            }
        }
    }

    #[test]
    fn a_matrix_of_another_shape() {
        let source = Matrices { by_rows: true, ..matrices([4, 4], 5, [Dtype::F32; 2]) };
        let failed = product(&source, [4, 3], 5).unwrap_err();
        assert!(matches!(failed, Error::Shape { tensor, .. } if tensor == IDS[1]), "{failed}");
    }
}
