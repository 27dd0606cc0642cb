//! Hidden states on disk, between two layers.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use candle_core::{DType, Tensor};
use moeprune_capture::TokenBlocks;
use moeprune_model::Compute;

use super::{Pass, remove};
use crate::Error;

const PREFIX: &str = "hidden-";

/// Writes hidden states in their type, block after block, and makes them durable.
pub(super) fn save(state: &Path, pass: Pass, layer: usize, hidden: &[Tensor]) -> Result<(), Error> {
    let path = place(state, pass, layer);
    let failed = |e| Error::io(&path, "write", e);
    // One that is there is of a run that died before it was recorded.
    let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
    for batch in hidden {
        write(batch, &mut file)?.map_err(failed)?;
    }
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    moeprune_files::sync_file(&file).map_err(failed)
}

/// Writes a tensor's elements, little-endian.
fn write(tensor: &Tensor, file: &mut dyn Write) -> Result<io::Result<()>, Error> {
    if tensor.dtype() == DType::F32 && cfg!(target_endian = "little") {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        return Ok(file.write_all(bytemuck::cast_slice(&values)));
    }
    // One element at a time: fine for the types that only devices and tests use.
    let mut bytes = Vec::with_capacity(tensor.elem_count() * tensor.dtype().size_in_bytes());
    tensor.write_bytes(&mut bytes)?;
    Ok(file.write_all(&bytes))
}

/// What hidden states are of, and where they are needed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HiddenShape<'a> {
    pub(crate) blocks: &'a TokenBlocks,
    /// Numbers per token.
    pub(crate) width: usize,
    pub(crate) micro_batch: usize,
    pub(crate) compute: &'a Compute,
}

/// Reads what [`save`] wrote: one tensor `[blocks, tokens, width]` for each micro-batch.
pub(super) fn load(
    state: &Path,
    pass: Pass,
    layer: usize,
    shape: &HiddenShape<'_>,
) -> Result<Vec<Tensor>, Error> {
    let HiddenShape { blocks, width, micro_batch, compute } = *shape;
    let path = place(state, pass, layer);
    let failed = |e| Error::io(&path, "read", e);
    let mut file = File::open(&path).map_err(failed)?;
    let (device, dtype) = (compute.device(), compute.dtype());
    let size = dtype.size_in_bytes();
    let expected = blocks.tokens() * width as u64 * size as u64;
    let got = file.metadata().map_err(failed)?.len();
    if got != expected {
        return Err(Error::Resume(format!(
            "{} has {got} bytes instead of {expected}; delete the folder it is in to start over",
            path.display()
        )));
    }
    let mut hidden = Vec::new();
    for batch in blocks.batches(micro_batch) {
        let shape = [batch.len(), batch[0].len(), width];
        let mut bytes = vec![0; shape.iter().product::<usize>() * size];
        file.read_exact(&mut bytes).map_err(failed)?;
        hidden.push(Tensor::from_raw_buffer(&bytes, dtype, &shape, device)?);
    }
    Ok(hidden)
}

/// Removes all hidden states but those of one layer.
pub(super) fn remove_all_but(state: &Path, kept: Option<(Pass, usize)>) -> Result<(), Error> {
    let kept = kept.map(|(pass, layer)| place(state, pass, layer));
    for entry in fs::read_dir(state).map_err(|e| Error::io(state, "list", e))? {
        let entry = entry.map_err(|e| Error::io(state, "list", e))?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_hidden && kept.as_ref() != Some(&entry.path()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn place(state: &Path, pass: Pass, layer: usize) -> PathBuf {
    state.join(format!("{PREFIX}{pass}-{layer:04}"))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn comes_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = TokenBlocks::new(vec![vec![0; 3], vec![1; 3]], 5).unwrap();
        let values = [f32::MIN_POSITIVE, -0.0, 1e-45, 0.1, f32::MAX, 3.0];
        let tensor = |tokens: usize| {
            let values: Vec<f32> = values.iter().copied().cycle().take(tokens * 4).collect();
            Tensor::from_vec(values, (1, tokens, 4), &Device::Cpu).unwrap()
        };
        let hidden = [tensor(3), tensor(3)];
        save(dir.path(), Pass::Prune, 7, &hidden).unwrap();
        save(dir.path(), Pass::Prune, 6, &hidden).unwrap();
        remove_all_but(dir.path(), Some((Pass::Prune, 7))).unwrap();
        let compute = &Compute::cpu();
        let shape = HiddenShape { blocks: &blocks, width: 4, micro_batch: 1, compute };
        assert!(load(dir.path(), Pass::Prune, 6, &shape).is_err());
        let back = load(dir.path(), Pass::Prune, 7, &shape).unwrap();
        for (was, is) in hidden.iter().zip(&back) {
            assert_eq!(was.dims(), is.dims());
            let bits = |t: &Tensor| -> Vec<u32> {
                let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                values.into_iter().map(f32::to_bits).collect()
            };
            assert_eq!(bits(was), bits(is));
        }
        let wide = HiddenShape { width: 8, ..shape };
        let message = load(dir.path(), Pass::Prune, 7, &wide).unwrap_err().to_string();
        assert!(message.contains("96 bytes instead of 192"), "{message}");
        let two = HiddenShape { micro_batch: 2, ..shape };
        let together = load(dir.path(), Pass::Prune, 7, &two).unwrap();
        assert_eq!((together.len(), together[0].dims()), (1, &[2, 3, 4][..]));
        remove_all_but(dir.path(), None).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
