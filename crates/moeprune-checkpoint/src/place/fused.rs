//! Experts of a layer in one tensor.

use std::ops::Range;

use moeprune_core::Dtype;

use super::{Lines, Place, TensorForm, byte_len};
use crate::Error;

/// How one tensor holds the experts of a layer: as slabs of equal size, expert after expert. The
/// outermost dimension is the experts, or the experts times the first dimension of a slab.
///
/// A slab holds one matrix of the expert, or several of equal shape whose rows are the slab's
/// lines.
///
/// | stored | `matrices` | `transposed` | `interleaved` |
/// |---|---|---|---|
/// | `[experts, out, in]`, as Mixtral's parts are | 1 | no | |
/// | `[experts, 2 · out, in]`, gate before up | 2 | no | no |
/// | `[experts, in, 2 · out]`, gate before up | 2 | yes | no |
/// | `[experts, in, 2 · out]`, columns of gate and up in turn | 2 | yes | yes |
/// | `[experts, 2 · out]`, biases of gate and up in turn | 2 | no | yes |
/// | `[experts · out, in]` | 1 | no | |
///
/// ```
/// use moeprune_checkpoint::FusedExperts;
///
/// let gate_and_up = FusedExperts { experts: 32, matrices: 2, transposed: true, interleaved: true };
/// // Eight experts are left of it in this shape:
/// assert_eq!(gate_and_up.shape_with(&[32, 2880, 5760], 8)?, [8, 2880, 5760]);
/// # Ok::<(), moeprune_checkpoint::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller")]
pub struct FusedExperts {
    /// Experts in the tensor.
    pub experts: usize,
    /// Matrices in the slab of an expert.
    pub matrices: usize,
    /// Whether a matrix is stored as `[in, out]`.
    pub transposed: bool,
    /// Whether rows of the matrices take turns, and do not follow each other matrix by matrix.
    pub interleaved: bool,
}

impl FusedExperts {
    /// Where a matrix of an expert is, as `[out, in]`; or a vector of it, where a slab is one.
    ///
    /// # Errors
    /// If there is no such expert or matrix, or the tensor's shape cannot hold them.
    pub fn place(
        &self,
        tensor: TensorForm<'_>,
        expert: usize,
        matrix: usize,
    ) -> Result<Place, Error> {
        let TensorForm { tensor: index, dtype, shape } = tensor;
        let slab = self.slab_shape(shape)?;
        if expert >= self.experts || matrix >= self.matrices {
            return Err(self.bad(shape, format!("none at expert {expert}, matrix {matrix}")));
        }
        let (lines, cols) = match (&slab[..], self.transposed) {
            ([cols, lines], true) => (*lines, *cols),
            ([lines, row @ ..], false) => {
                (*lines, row.iter().fold(1_usize, |n, &dim| n.saturating_mul(dim)))
            }
            _ => return Err(self.bad(shape, "slabs that are no matrices".to_owned())),
        };
        let cells = (lines % self.matrices == 0).then(|| self.cells(dtype, cols)).flatten();
        let Some((cells, size)) = cells else {
            let what = format!("{lines} lines of {dtype} for {} matrices", self.matrices);
            return Err(self.bad(shape, what));
        };
        let rows = lines / self.matrices;
        let (first, step) =
            if self.interleaved { (matrix, self.matrices) } else { (matrix * rows, 1) };
        let part = match self.transposed {
            true => vec![rows, cols],
            false => [&[rows], &slab[1..]].concat(),
        };
        let all = self.slab_bytes(tensor, expert)?;
        let place = Place { tensor: index, dtype, shape: part, bytes: all.clone(), lines: None };
        if step == 1 && !self.transposed {
            let start = all.start + (first * cells * size) as u64;
            return Ok(Place { bytes: start..start + (rows * cells * size) as u64, ..place });
        }
        let (cols, of) = (cells, lines);
        let lines = Lines { rows, cols, size, first, step, of, transposed: self.transposed };
        Ok(Place { lines: Some(lines), ..place })
    }

    /// What a row of so many elements is moved in, elements or blocks: how many, and the bytes of
    /// each. `None` if they are no whole bytes, or a block would have to be taken apart.
    fn cells(&self, dtype: Dtype, cols: usize) -> Option<(usize, usize)> {
        match dtype {
            Dtype::Ggml(blocks) => {
                let whole = !self.transposed && cols.is_multiple_of(blocks.block_elements());
                whole.then(|| (cols / blocks.block_elements(), blocks.block_bytes()))
            }
            plain => Some((cols, plain.bytes_of(1)?)),
        }
    }

    /// Where the slab of an expert is, as it is stored.
    ///
    /// # Errors
    /// If there is no such expert, or the tensor's shape cannot hold them.
    pub fn slab_place(&self, tensor: TensorForm<'_>, expert: usize) -> Result<Place, Error> {
        let TensorForm { tensor: index, dtype, shape } = tensor;
        let (shape, bytes) = (self.slab_shape(shape)?, self.slab_bytes(tensor, expert)?);
        Ok(Place { tensor: index, dtype, shape, bytes, lines: None })
    }

    /// The bytes of an expert's slab in the tensor: what is copied where an expert stays as it is.
    ///
    /// # Errors
    /// If there is no such expert, or the tensor's shape cannot hold the experts.
    pub fn slab_bytes(&self, tensor: TensorForm<'_>, expert: usize) -> Result<Range<u64>, Error> {
        let TensorForm { dtype, shape, .. } = tensor;
        let bytes = byte_len(dtype, &self.slab_shape(shape)?);
        let all = bytes.and_then(|bytes| bytes.checked_mul(self.experts as u64));
        let (Some(bytes), Some(_)) = (bytes, all) else {
            return Err(self.bad(shape, format!("{dtype} slabs of no whole number of bytes")));
        };
        if expert >= self.experts {
            return Err(self.bad(shape, format!("none at expert {expert}")));
        }
        let start = bytes * expert as u64;
        Ok(start..start + bytes)
    }

    /// The shape of a tensor like one of this shape, with so many experts.
    ///
    /// # Errors
    /// If the shape cannot hold the experts.
    pub fn shape_with(&self, shape: &[usize], experts: usize) -> Result<Vec<usize>, Error> {
        self.slab_shape(shape)?;
        let mut shape = shape.to_vec();
        shape[0] = (shape[0] / self.experts).saturating_mul(experts);
        Ok(shape)
    }

    /// The dimensions of a slab.
    fn slab_shape(&self, shape: &[usize]) -> Result<Vec<usize>, Error> {
        let Some((&outer, inner)) = shape.split_first() else {
            return Err(self.bad(shape, "no dimension of experts".to_owned()));
        };
        if self.experts == 0 || self.matrices == 0 || outer % self.experts != 0 {
            return Err(self.bad(shape, "another number of experts".to_owned()));
        }
        let rows = outer / self.experts;
        Ok(if rows == 1 { inner.to_vec() } else { [&[rows], inner].concat() })
    }

    fn bad(&self, shape: &[usize], what: String) -> Error {
        Error::Weight {
            operation: "finding experts",
            reason: format!(
                "a tensor {shape:?} that is to hold {} matrices of {} experts has {what}",
                self.matrices, self.experts
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    /// Of an expert's second matrix in Q8_0, with 68 bytes in a row of 64 elements: where the bytes begin that
    /// hold it, and which rows of those are its own.
    fn second_matrix(fused: FusedExperts, shape: &[usize]) -> Result<(u64, Vec<u8>), String> {
        let dtype = Dtype::from_ggml(8).expect("known");
        let place = fused.place(TensorForm { tensor: 0, dtype, shape }, 2, 1);
        let place = place.map_err(|e| e.to_string())?;
        assert_eq!(place.shape(), [2, 64]);
        let slab = (0..place.bytes().end - place.bytes().start).map(|byte| (byte / 68) as u8);
        let part = place.gather(Cow::Owned(slab.collect()));
        assert_eq!(part.len(), 2 * 68);
        Ok((place.bytes().start, part.chunks(68).map(|row| row[0]).collect()))
    }

    #[test]
    fn blocks_are_moved_whole() {
        let check = |fused: FusedExperts, shape: &[usize], start: u64, rows: &[u8]| {
            assert_eq!(second_matrix(fused, shape), Ok((start, rows.to_vec())), "{fused:?}");
        };
        let fused = FusedExperts { experts: 3, matrices: 2, transposed: false, interleaved: false };
        check(fused, &[3, 4, 64], 2 * 4 * 68 + 2 * 68, &[0, 1]);
        check(fused, &[12, 64], 2 * 4 * 68 + 2 * 68, &[0, 1]);
        check(FusedExperts { interleaved: true, ..fused }, &[3, 4, 64], 2 * 4 * 68, &[1, 3]);
    }

    #[test]
    fn blocks_are_not_taken_apart() {
        let check = |fused: FusedExperts, shape: &[usize]| {
            let error = second_matrix(fused, shape).expect_err("refused");
            assert!(error.contains("4 lines of Q8_0 for 2 matrices"), "{error}");
        };
        let fused = FusedExperts { experts: 3, matrices: 2, transposed: false, interleaved: false };
        check(fused, &[3, 4, 48]);
        check(fused, &[3, 4]);
        check(FusedExperts { transposed: true, ..fused }, &[3, 64, 4]);
    }
}
