//! Hidden states on disk, between two layers.

use std::{
    fs::{self, File},
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use moeprune_capture::TokenBlocks;

use super::{Pass, remove};
use crate::Error;

const PREFIX: &str = "hidden-";

/// Writes hidden states as f32, block after block, and makes them durable.
pub(super) fn save(state: &Path, pass: Pass, layer: usize, hidden: &[Tensor]) -> Result<(), Error> {
    let path = place(state, pass, layer);
    let failed = |e| Error::io(&path, "write", e);
    // One that is there is of a run that died before it was recorded.
    let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
    for block in hidden {
        let values = block.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        file.write_all(bytemuck::cast_slice(&values)).map_err(failed)?;
    }
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)
}

/// Reads what [`save`] wrote: one tensor `[1, tokens, width]` a block.
pub(super) fn load(
    state: &Path,
    pass: Pass,
    layer: usize,
    blocks: &TokenBlocks,
    width: usize,
) -> Result<Vec<Tensor>, Error> {
    let path = place(state, pass, layer);
    let failed = |e| Error::io(&path, "read", e);
    let mut file = File::open(&path).map_err(failed)?;
    let expected = blocks.tokens() * width as u64 * 4;
    let got = file.metadata().map_err(failed)?.len();
    if got != expected {
        return Err(Error::Resume(format!(
            "{} has {got} bytes instead of {expected}; delete the folder it is in to start over",
            path.display()
        )));
    }
    let mut hidden = Vec::with_capacity(blocks.blocks().len());
    for block in blocks.blocks() {
        let mut values = vec![0_f32; block.len() * width];
        file.read_exact(bytemuck::cast_slice_mut(&mut values)).map_err(failed)?;
        hidden.push(Tensor::from_vec(values, (1, block.len(), width), &Device::Cpu)?);
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
        assert!(load(dir.path(), Pass::Prune, 6, &blocks, 4).is_err());
        let back = load(dir.path(), Pass::Prune, 7, &blocks, 4).unwrap();
        for (was, is) in hidden.iter().zip(&back) {
            assert_eq!(was.dims(), is.dims());
            let bits = |t: &Tensor| -> Vec<u32> {
                let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                values.into_iter().map(f32::to_bits).collect()
            };
            assert_eq!(bits(was), bits(is));
        }
        let message = load(dir.path(), Pass::Prune, 7, &blocks, 8).unwrap_err().to_string();
        assert!(message.contains("96 bytes instead of 192"), "{message}");
        remove_all_but(dir.path(), None).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
