//! Which bytes of a file its tensors are.

use std::collections::BTreeMap;

use moeprune_core::{Dtype, GgmlType};

use super::{
    parse::Listed,
    tensor::{NewTensor, TensorInfo},
};
use crate::Error;

/// The part of a file that tensors are in.
#[derive(Clone, Copy)]
pub(super) struct Data {
    /// From the beginning of the file.
    pub(super) start: u64,
    pub(super) file_end: u64,
    pub(super) alignment: u64,
}

impl Data {
    /// Gives each tensor its bytes, and checks that they are in the file, apart, and all that is there.
    pub(super) fn place(self, tensors: Vec<Listed>) -> Result<Vec<TensorInfo>, Error> {
        let mut starts =
            tensors.iter().map(|tensor| self.start_of(tensor)).collect::<Result<Vec<_>, _>>()?;
        starts.sort_unstable();
        starts.dedup();
        let place = |tensor: Listed| {
            let start = self.start_of(&tensor)?;
            let next = starts.get(starts.partition_point(|&other| other <= start));
            self.place_one(tensor, start, next.copied().unwrap_or(self.file_end))
        };
        let placed = tensors.into_iter().map(place).collect::<Result<Vec<_>, _>>()?;
        check_unknown(&placed)?;
        self.check_cover(&placed)?;
        Ok(placed)
    }

    fn start_of(self, tensor: &Listed) -> Result<u64, Error> {
        let Listed { name, offset, .. } = tensor;
        if !offset.is_multiple_of(self.alignment) {
            let alignment = self.alignment;
            return Err(Error::tensor(
                name,
                format!("begins at byte {offset} of the data, expected a multiple of {alignment}"),
            ));
        }
        let start = self.start.checked_add(*offset).filter(|&start| start <= self.file_end);
        start.ok_or_else(|| {
            let (start, end) = (self.start, self.file_end);
            let reason = format!(
                "begins at byte {offset} of the data, which begins at byte {start} of a file of {end}; download \
                 it again"
            );
            Error::tensor(name, reason)
        })
    }

    /// A tensor from `start` on; the next one begins, or the file ends, at `next`.
    fn place_one(self, tensor: Listed, start: u64, next: u64) -> Result<TensorInfo, Error> {
        let dtype = match Dtype::from_ggml(tensor.type_id) {
            Some(dtype) => dtype,
            None => self.unknown(&tensor, next - start)?,
        };
        let Listed { name, shape, .. } = tensor;
        let placed = TensorInfo::at(NewTensor { name, dtype, shape }, start)?;
        let (end, file_end) = (placed.range.end, self.file_end);
        if end > file_end {
            let reason = format!("ends at byte {end} of a file of {file_end}; download it again");
            return Err(Error::tensor(&placed.name, reason));
        }
        Ok(placed)
    }

    /// A type that is not known, as the room up to the next tensor tells it: with so many bytes in a row
    /// that less than the alignment is left.
    fn unknown(self, tensor: &Listed, room: u64) -> Result<Dtype, Error> {
        let Listed { name, shape, type_id, .. } = tensor;
        let bad = |reason: &str| {
            let reason = format!(
                "is of type {type_id}, which is not known, and {reason} of {shape:?} fits the {room} bytes up to \
                 the next tensor"
            );
            Error::tensor(name, reason)
        };
        let (&row, outer) = shape.split_last().unwrap_or((&1, &[]));
        let rows = outer.iter().try_fold(1_u64, |rows, &dim| rows.checked_mul(dim as u64));
        let rows = rows.filter(|&rows| rows > 0).ok_or_else(|| bad("no size"))?;
        let fits = |bytes: u64| bytes > 0 && room - bytes * rows < self.alignment;
        let most = room / rows;
        if !fits(most) {
            return Err(bad("no size"));
        }
        if fits(most - 1) {
            return Err(bad("more than one size"));
        }
        let blocks =
            usize::try_from(most).ok().and_then(|bytes| GgmlType::unknown(*type_id, row, bytes));
        blocks.map(Dtype::Ggml).ok_or_else(|| bad("no size"))
    }

    fn check_cover(self, tensors: &[TensorInfo]) -> Result<(), Error> {
        let mut order: Vec<&TensorInfo> = tensors.iter().collect();
        order.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
        let mut end = self.start;
        let mut before: Option<&TensorInfo> = None;
        for tensor in order {
            let start = tensor.range.start;
            if start < end {
                let other = before.map_or("", |before| &before.name);
                let reason =
                    format!("begins at byte {start} of the file, before `{other}` ends at {end}");
                return Err(Error::tensor(&tensor.name, reason));
            }
            if start - end >= self.alignment {
                let place = format!("before tensor `{}`", tensor.name);
                return Err(Error::Hole { start: end, end: start, place });
            }
            end = tensor.range.end;
            before = Some(tensor);
        }
        // A file without tensors may end before the padding.
        if self.file_end.saturating_sub(end) < self.alignment {
            return Ok(());
        }
        let place = match before {
            Some(last) => format!("behind the last tensor, `{}`", last.name),
            None => "behind a header without tensors".to_owned(),
        };
        Err(Error::Hole { start: end, end: self.file_end, place })
    }
}

/// Checks that tensors of a type that is not known say the same of it: so many bytes for so many elements.
fn check_unknown(tensors: &[TensorInfo]) -> Result<(), Error> {
    let mut seen: BTreeMap<u32, (&TensorInfo, GgmlType)> = BTreeMap::new();
    for tensor in tensors {
        let Dtype::Ggml(found) = tensor.dtype else { continue };
        if found.name().is_some() {
            continue;
        }
        let (first, other) = *seen.entry(found.id()).or_insert((tensor, found));
        let (elements, bytes) = (found.block_elements() as u128, found.block_bytes() as u128);
        if bytes * other.block_elements() as u128 != other.block_bytes() as u128 * elements {
            let reason = format!(
                "is of type {}, which is not known, with {bytes} bytes for {elements} elements, but `{}` has {} for \
                 {}; the file ends early or is damaged: download it again",
                found.id(),
                first.name,
                other.block_bytes(),
                other.block_elements()
            );
            return Err(Error::tensor(&tensor.name, reason));
        }
    }
    Ok(())
}
