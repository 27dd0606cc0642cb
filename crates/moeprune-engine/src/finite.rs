//! Refusing weights that are not numbers, wherever they are read.

use std::ops::Range;

use moeprune_checkpoint::{check_finite, check_finite_weight};
use moeprune_core::{StageError, StoredRows, StoredWeight, TensorBytes, TensorId, TensorSource};
use rayon::prelude::*;

use crate::Model;

/// A model that gives out a tensor only if all of it is finite, and names it otherwise: by
/// the time an activation is not a number, it cannot be told where it came from.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a view of a model")]
pub struct Finite<'a>(pub &'a dyn Model);

impl Finite<'_> {
    /// Decodes elements of a part from `start` on; only these must be finite.
    pub(crate) fn decode_f32(
        &self,
        id: TensorId,
        start: usize,
        out: &mut [f32],
    ) -> Result<(), StageError> {
        if self.0.is_in_codes(id) {
            self.0.weight(id)?.decode(start, out)?;
            if first_not_finite(out).is_some() {
                // Tells the tensor's name and the weight's place in it.
                self.weight(id)?;
            }
            return Ok(());
        }
        let elements = self.0.elements(id, start..start + out.len())?;
        if check_finite("", &elements).is_err() {
            // Tells the tensor's name and the weight's place in it.
            self.tensor(id)?;
        }
        Ok(elements.decode_f32(0, out)?)
    }
}

impl TensorSource for Finite<'_> {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        let weight = self.0.weight(id)?;
        check_finite_weight(&self.0.name_of(id)?, &weight)?;
        Ok(weight)
    }

    fn stored_rows(&self, id: TensorId) -> Result<Option<StoredRows<'_>>, StageError> {
        let Some(stored) = self.0.stored_rows(id)? else { return Ok(None) };
        let (float, shape) = (stored.float(), stored.shape());
        let read = move |rows: Range<usize>, bytes: &mut [u8]| {
            let shape = [rows.len(), shape[1]];
            stored.read(rows, bytes)?;
            if check_finite("", &TensorBytes::new(float.dtype(), shape, &*bytes)?).is_err() {
                // Tells the tensor's name and the weight's place in it.
                self.weight(id)?;
            }
            Ok(())
        };
        Ok(Some(StoredRows::new(float, shape, read)))
    }
}

/// Numbers that one thread looks at at a time.
const PIECE: usize = 1 << 16;

/// The first that is NaN or infinite. Pieces are gone through without leaving them early, as most often there
/// is none.
pub(crate) fn first_not_finite(numbers: &[f32]) -> Option<usize> {
    let is_finite = |piece: &[f32]| piece.iter().fold(true, |all, x| all & x.is_finite());
    let all = numbers.par_chunks(PIECE).all(is_finite);
    (!all).then(|| numbers.iter().position(|x| !x.is_finite())).flatten()
}
