//! The GGUF form.

use std::collections::BTreeMap;

use moeprune_core::Dtype;
use moeprune_files::ReadAt;

use super::{Imatrix, ImatrixEntry, ImatrixError, Tally, check_sums};
use crate::{Error, Header, TensorInfo};

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// Beyond this, counts in F32 have gaps and could not be told from an overflow.
const MOST_TOKENS: f32 = (1_u64 << 48) as f32;

pub(super) fn read(file: &dyn ReadAt) -> Result<Imatrix, ImatrixError> {
    let header = read_header(file)?;
    let named = header.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor));
    let tensors: BTreeMap<&str, &TensorInfo> = named.collect();
    let mut entries = BTreeMap::new();
    for (&name, sums) in &tensors {
        let Some(of) = name.strip_suffix(SUMS) else { continue };
        let counts = format!("{of}{COUNTS}");
        let Some(counts) = tensors.get(counts.as_str()) else {
            return Err(ImatrixError::tensor(counts, "a tensor", "none"));
        };
        entries.insert(of.to_owned(), entry(file, sums, counts)?);
    }
    let alone = tensors
        .keys()
        .find_map(|name| name.strip_suffix(COUNTS).filter(|of| !entries.contains_key(*of)));
    if let Some(of) = alone {
        return Err(ImatrixError::tensor(format!("{of}{SUMS}"), "a tensor", "none"));
    }
    if entries.is_empty() {
        return Err(ImatrixError::Other(format!("no tensor's name ends in `{SUMS}`")));
    }
    let number = |key| Ok::<_, Error>(header.entries().number(key)?.filter(|&number| number > 0));
    let datasets = header.entries().texts("imatrix.datasets")?.unwrap_or_default();
    Ok(Imatrix {
        datasets: datasets.into_iter().map(str::to_owned).collect(),
        chunk_count: number("imatrix.chunk_count")?,
        chunk_size: number("imatrix.chunk_size")?,
        entries,
    })
}

/// The header of a GGUF file that is an imatrix.
pub(super) fn read_header(file: &dyn ReadAt) -> Result<Header, ImatrixError> {
    let header = Header::read(file)?;
    let problem = match header.entries().text("general.type")? {
        Some("imatrix") => return Ok(header),
        Some(kind) => format!("it is a GGUF file whose `general.type` is `{kind:.40}`"),
        None => "it is a GGUF file without `general.type`".to_owned(),
    };
    Err(ImatrixError::Other(problem))
}

fn entry(
    file: &dyn ReadAt,
    sums: &TensorInfo,
    counts: &TensorInfo,
) -> Result<ImatrixEntry, ImatrixError> {
    // Dimensions of 1 that are outermost are left out.
    let (matrices, inputs) = match sums.shape[..] {
        [inputs] => (1, inputs),
        [matrices, inputs] => (matrices, inputs),
        ref shape => {
            let expected = "inputs, or matrices and inputs";
            return Err(ImatrixError::tensor(&sums.name, expected, format!("shape {shape:?}")));
        }
    };
    let counted = match counts.shape[..] {
        [1] => 1,
        [matrices, 1] => matrices,
        ref shape => {
            let expected = format!("shape [{matrices}, 1], a count per matrix");
            return Err(ImatrixError::tensor(&counts.name, expected, format!("shape {shape:?}")));
        }
    };
    if counted != matrices {
        let expected = format!("{matrices} counts, one per row of `{}`", sums.name);
        return Err(ImatrixError::tensor(&counts.name, expected, counted));
    }
    let values = values(file, sums)?;
    check_sums(&sums.name, &values)?;
    let tokens = self::values(file, counts)?;
    let is_count = |&count: &f32| (0.0..=MOST_TOKENS).contains(&count) && count.fract() == 0.0;
    if let Some(bad) = tokens.iter().find(|count| !is_count(count)) {
        return Err(ImatrixError::tensor(&counts.name, "whole numbers of tokens", bad));
    }
    let tokens = tokens.into_iter().map(|count| count as u64).collect();
    Ok(ImatrixEntry { matrices, inputs, sums: values, tally: Tally::Tokens(tokens) })
}

fn values(file: &dyn ReadAt, tensor: &TensorInfo) -> Result<Vec<f32>, ImatrixError> {
    if tensor.dtype != Dtype::F32 {
        return Err(ImatrixError::tensor(&tensor.name, "F32", tensor.dtype));
    }
    let bytes = file.read_at(tensor.range.clone())?;
    Ok(bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect())
}
