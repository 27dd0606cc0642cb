//! The weight files of a checkpoint and the tensors in them.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use moeprune_core::{Dtype, TensorBytes, TensorId};

use crate::{
    Access, Error,
    index::{INDEX_FILE, Index, SINGLE_FILE},
    model_directory::ModelDirectory,
    shard::Shard,
};

/// A tensor of a checkpoint, known from a header.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredTensor {
    /// Name on disk.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Name of the file it is in.
    pub file: String,
    /// Size of its data in bytes.
    pub bytes: u64,
    /// The part it plays; `None` if the family knows none, and the tensor is carried over as it
    /// is.
    pub part: Option<TensorId>,
    shard: usize,
    range: Range<u64>,
}

impl StoredTensor {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&dim| dim as u64).product()
    }
}

/// All weight files, and all tensors in stored order.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) shards: Vec<Shard>,
    pub(super) tensors: Vec<StoredTensor>,
    pub(super) index: Option<Index>,
}

impl Layout {
    pub(super) fn open(directory: &ModelDirectory, access: Access) -> Result<Self, Error> {
        let bad = |reason: String| Error::Weights { dir: directory.path.clone(), reason };
        let index = match (directory.has(SINGLE_FILE), directory.has(INDEX_FILE)) {
            (true, false) => None,
            (false, true) => {
                let path = plain_file(directory, INDEX_FILE)?;
                Some(Index::read(&path)?)
            }
            (true, true) => {
                return Err(bad(format!(
                    "has both {SINGLE_FILE} and {INDEX_FILE}; remove the one that is not the model"
                )));
            }
            (false, false) => {
                return Err(bad(format!(
                    "has neither {SINGLE_FILE} nor {INDEX_FILE}; only safetensors weights are read"
                )));
            }
        };
        let names = match &index {
            Some(index) => index.shards().into_iter().map(str::to_owned).collect(),
            None => vec![SINGLE_FILE.to_owned()],
        };
        let mut layout = Self { shards: Vec::new(), tensors: Vec::new(), index };
        for name in names {
            if !directory.has(&name) {
                return Err(bad(format!(
                    "{name} is missing, but {INDEX_FILE} names it; download it again"
                )));
            }
            let path = plain_file(directory, &name)?;
            layout.add_shard(&path, name, access)?;
        }
        layout.check_names()?;
        if let Some(index) = &layout.index {
            let held = layout.tensors.iter().map(|t| (t.name.as_str(), t.file.as_str()));
            index.check(held)?;
        }
        Ok(layout)
    }

    pub(super) fn read(&self, tensor: usize) -> Result<TensorBytes<'_>, Error> {
        let tensor = &self.tensors[tensor];
        let bytes = self.shards[tensor.shard].bytes(&tensor.range)?;
        Ok(TensorBytes::new(tensor.dtype, tensor.shape.clone(), bytes)?)
    }

    /// Some elements of a tensor, as a vector.
    pub(super) fn read_elements(
        &self,
        tensor: usize,
        elements: Range<usize>,
    ) -> Result<TensorBytes<'_>, Error> {
        let tensor = &self.tensors[tensor];
        let (expected, got) = (elements.end, tensor.shape.iter().product());
        let bits = tensor.dtype.bits();
        if elements.start > elements.end || expected > got || !bits.is_multiple_of(8) {
            return Err(moeprune_core::Error::Length { what: "tensor range", expected, got }.into());
        }
        let byte = |element: usize| tensor.range.start + (element * bits / 8) as u64;
        let range = byte(elements.start)..byte(elements.end);
        let bytes = self.shards[tensor.shard].bytes(&range)?;
        Ok(TensorBytes::new(tensor.dtype, [elements.len()], bytes)?)
    }

    /// The shard of a tensor, and where the tensor begins in that file.
    pub(super) fn offset(&self, tensor: &StoredTensor) -> (usize, u64) {
        (tensor.shard, self.shards[tensor.shard].offset(&tensor.range))
    }

    fn add_shard(&mut self, path: &Path, name: String, access: Access) -> Result<(), Error> {
        let (shard, tensors) = Shard::open(path, &name, access)?;
        let index = self.shards.len();
        self.tensors.extend(tensors.into_iter().map(|tensor| StoredTensor {
            bytes: tensor.range.end - tensor.range.start,
            name: tensor.name,
            dtype: tensor.dtype,
            shape: tensor.shape,
            file: name.clone(),
            part: None,
            shard: index,
            range: tensor.range,
        }));
        self.shards.push(shard);
        Ok(())
    }

    fn check_names(&self) -> Result<(), Error> {
        let mut seen = BTreeMap::new();
        for tensor in &self.tensors {
            if let Some(other) = seen.insert(tensor.name.as_str(), tensor.file.as_str()) {
                let reason = format!("tensor `{}` is also in {other}", tensor.name);
                let path = self.shards[tensor.shard].path.clone();
                return Err(Error::Shard { path, reason });
            }
        }
        Ok(())
    }
}

fn plain_file(directory: &ModelDirectory, name: &str) -> Result<PathBuf, Error> {
    let dir = directory.path.clone();
    directory.file(Path::new(name)).map_err(|reason| Error::Weights { dir, reason })
}
