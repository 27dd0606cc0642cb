//! An imatrix of the experts that a pruned model has left.

use std::{collections::BTreeMap, io::Write};

use moeprune_files::ReadAt;

use super::{ImatrixError, gguf::read_header};
use crate::{Header, NewTensor, TensorInfo};

/// Bytes that are copied at once.
const CHUNK: u64 = 1 << 20;

/// The experts that a layer keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ExpertCut {
    /// How many it had.
    pub experts: usize,
    /// Those that stay, in the order in which the pruned model has them.
    pub kept: Vec<usize>,
}

/// Writes an imatrix of the GGUF form as that of a model with fewer experts. `cuts` are by layer, as
/// tensors are numbered; a layer that is not there keeps its experts.
///
/// Of tensors that hold all experts of a layer (`blk.N.ffn_…_exps.weight.in_sum2`, `.in_sum` and `.counts`)
/// the rows of the kept ones are written, and `.stats`, which sum up all experts, are left out; llama.cpp's
/// tools do without. Everything else is written byte for byte: the entries, the other tensors and their
/// order.
///
/// # Errors
/// If the file is no imatrix of the GGUF form, a tensor of a cut layer's experts is not of as many experts as
/// the cut says, the cut keeps none or one that was not there, or `out` fails; nothing is written before all
/// but the last is known.
pub fn cut_experts(
    file: &dyn ReadAt,
    cuts: &BTreeMap<usize, ExpertCut>,
    out: &mut dyn Write,
) -> Result<(), ImatrixError> {
    if &*file.read_at(0..file.len().min(4))? != b"GGUF" {
        return Err(ImatrixError::OlderForm);
    }
    let header = read_header(file)?;
    let mut pieces = Vec::new();
    for tensor in header.tensors() {
        pieces.extend(Piece::of(tensor, cuts)?);
    }
    let new = pieces.iter().map(Piece::described).collect();
    let cut = Header::new(header.version(), header.entries().clone(), new)?;
    out.write_all(&cut.to_bytes())?;
    let mut at = cut.data_start();
    for (piece, place) in pieces.iter().zip(cut.tensors()) {
        pad(at, place.range.start, out)?;
        piece.copy(file, out)?;
        at = place.range.end;
    }
    pad(at, cut.data_end(), out)?;
    Ok(())
}

/// A tensor of the file that is written, and the rows of it that are.
struct Piece<'a> {
    tensor: &'a TensorInfo,
    /// All, if there are no numbers.
    rows: Option<&'a [usize]>,
}

impl<'a> Piece<'a> {
    /// `None` of what is left out.
    fn of(
        tensor: &'a TensorInfo,
        cuts: &'a BTreeMap<usize, ExpertCut>,
    ) -> Result<Option<Self>, ImatrixError> {
        let whole = Some(Self { tensor, rows: None });
        let Some((layer, statistic)) = of_experts(&tensor.name) else { return Ok(whole) };
        let Some(ExpertCut { experts, kept }) = cuts.get(&layer) else { return Ok(whole) };
        if statistic == "stats" {
            return Ok(None);
        }
        let rows = match tensor.shape[..] {
            [rows, _] => rows,
            _ => 1,
        };
        if rows != *experts {
            let expected = format!("a row for each of {experts} experts");
            return Err(ImatrixError::tensor(&tensor.name, expected, rows));
        }
        match kept.iter().find(|&&expert| expert >= *experts) {
            None if kept.is_empty() => {
                Err(ImatrixError::tensor(&tensor.name, "an expert that stays", "none"))
            }
            None => Ok(Some(Self { tensor, rows: Some(kept) })),
            Some(bad) => {
                let expected = format!("experts below {experts} to keep");
                Err(ImatrixError::tensor(&tensor.name, expected, bad))
            }
        }
    }

    fn described(&self) -> NewTensor {
        let TensorInfo { name, dtype, shape, .. } = self.tensor;
        let mut shape = shape.clone();
        if let (Some(rows), Some(first)) = (self.rows, shape.first_mut()) {
            *first = rows.len();
        }
        NewTensor { name: name.clone(), dtype: *dtype, shape }
    }

    fn copy(&self, file: &dyn ReadAt, out: &mut dyn Write) -> Result<(), ImatrixError> {
        let range = self.tensor.range.clone();
        let Some(rows) = self.rows else { return copy(file, range.start, range.end, out) };
        let all = self.tensor.shape.first().copied().unwrap_or(1).max(1) as u64;
        let bytes = (range.end - range.start) / all;
        rows.iter().try_for_each(|&row| {
            let start = range.start + row as u64 * bytes;
            copy(file, start, start + bytes, out)
        })
    }
}

/// The layer of a statistic of all its experts, and which statistic.
fn of_experts(name: &str) -> Option<(usize, &str)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (_, statistic) = rest.split_once("_exps.weight.")?;
    Some((layer.parse().ok()?, statistic))
}

fn copy(file: &dyn ReadAt, start: u64, end: u64, out: &mut dyn Write) -> Result<(), ImatrixError> {
    let mut at = start;
    while at < end {
        let until = end.min(at + CHUNK);
        out.write_all(&file.read_at(at..until)?)?;
        at = until;
    }
    Ok(())
}

fn pad(from: u64, to: u64, out: &mut dyn Write) -> Result<(), ImatrixError> {
    let zeros = vec![0; to.saturating_sub(from) as usize];
    Ok(out.write_all(&zeros)?)
}
