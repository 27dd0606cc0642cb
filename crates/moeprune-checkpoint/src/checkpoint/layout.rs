//! The weight files of a checkpoint and the tensors in them.

use std::{borrow::Cow, ops::Range, sync::Arc};

use moeprune_core::{Dtype, TensorBytes, TensorId};
use moeprune_files::Files;

use super::{CONFIG_FILE, fused_tensor::FusedTensor};
use crate::{
    Error,
    container::{
        self, ContainedIndex, ContainedTensor, Container, Contents, DescribedModel, Metadata,
        WeightFile, beside_shards,
    },
    family::Slab,
    model_directory::ModelDirectory,
    place::{Place, TensorForm},
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
    pub file: Arc<str>,
    /// Size of its data in bytes.
    pub bytes: u64,
    /// The part it plays; `None` if it holds [many](Self::experts), or the family knows none, and
    /// the tensor is carried over as it is.
    pub part: Option<TensorId>,
    /// What its name has after that of its module, if it is one of several tensors that hold the part
    /// together, or holds it in codes.
    pub suffix: Option<String>,
    /// Whether it holds the codes of such a module.
    pub(crate) is_main: bool,
    /// The layer of whose experts it holds something, and what, by its name.
    pub(crate) slab: Option<(usize, Slab)>,
    /// What it holds, if it has all experts of a layer.
    pub experts: Option<FusedTensor>,
    /// Its number among all tensors.
    index: usize,
    shard: usize,
    /// From the beginning of the file.
    range: Range<u64>,
}

impl StoredTensor {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&dim| dim as u64).product()
    }

    /// The layer that its parts are of; `None` outside of the layers, and of a tensor that plays no
    /// part.
    #[must_use]
    pub fn layer(&self) -> Option<usize> {
        match (self.part, &self.experts) {
            (Some(TensorId::Layer(layer, _)), _) => Some(layer),
            (_, Some(experts)) => Some(experts.layer()),
            _ => None,
        }
    }

    /// What a [`Place`] needs to know of it.
    #[must_use]
    pub fn form(&self) -> TensorForm<'_> {
        TensorForm { tensor: self.index, dtype: self.dtype, shape: &self.shape }
    }
}

/// All weight files, and all tensors in stored order.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) container: &'static dyn Container,
    pub(super) files: Vec<WeightFile>,
    pub(super) tensors: Vec<StoredTensor>,
    pub(super) index: Option<ContainedIndex>,
    pub(super) metadata: Metadata,
    /// What the files say of the model, where there is no `config.json`.
    pub(super) model: Option<DescribedModel>,
}

impl Layout {
    pub(super) fn open(directory: &ModelDirectory) -> Result<Self, Error> {
        let container = container::find(directory.files())?;
        let contents = container.read(directory.files())?;
        let model = container.describe(&contents)?;
        let names: Vec<Arc<str>> = contents.files.iter().map(|file| file.name().into()).collect();
        let stored = |(index, tensor): (usize, ContainedTensor)| StoredTensor {
            index,
            bytes: tensor.range.end - tensor.range.start,
            name: tensor.name,
            dtype: tensor.dtype,
            shape: tensor.shape,
            file: Arc::clone(&names[tensor.file]),
            part: None,
            suffix: None,
            is_main: false,
            slab: None,
            experts: None,
            shard: tensor.file,
            range: tensor.range,
        };
        let tensors = contents.tensors.into_iter().enumerate().map(stored).collect();
        let Contents { files, index, metadata, .. } = contents;
        Ok(Self { container, files, tensors, index, metadata, model })
    }

    /// What is said of files beside those that are read.
    pub(super) fn notes(&self, files: &dyn Files) -> Result<Vec<String>, Error> {
        match self.model {
            Some(_) => Ok(Vec::new()),
            None => {
                let read = self.files.iter().map(WeightFile::name).collect();
                beside_shards(files, &read, self.index.is_some())
            }
        }
    }

    /// What messages call the place of what is said of the model.
    pub(super) fn config_name(&self) -> &'static str {
        if self.model.is_some() { "its metadata" } else { CONFIG_FILE }
    }

    /// The same, of this model and no other.
    pub(super) fn said_by(&self) -> &'static str {
        if self.model.is_some() { "its metadata" } else { "this config.json" }
    }

    /// The numbers of all tensors in the order of their names.
    pub(super) fn order_of_names(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.tensors.len()).collect();
        order.sort_by(|&a, &b| self.tensors[a].name.cmp(&self.tensors[b].name));
        order
    }

    /// All tensors in the order of their names.
    pub(super) fn by_name(&self) -> Vec<&StoredTensor> {
        self.order_of_names().into_iter().map(|at| &self.tensors[at]).collect()
    }

    pub(super) fn read(&self, tensor: usize) -> Result<TensorBytes<'_>, Error> {
        let tensor = &self.tensors[tensor];
        let bytes = self.files[tensor.shard].read(tensor.range.clone())?;
        Ok(TensorBytes::new(tensor.dtype, tensor.shape.clone(), bytes)?)
    }

    /// A part, from the tensor that it is in.
    pub(super) fn read_part(&self, place: &Place) -> Result<TensorBytes<'_>, Error> {
        let bytes = place.gather(self.read_range(place.tensor(), place.bytes())?);
        Ok(TensorBytes::new(place.dtype(), place.shape(), bytes)?)
    }

    /// Some elements of a part, counted row by row, as a vector.
    pub(super) fn read_elements(
        &self,
        place: &Place,
        elements: Range<usize>,
    ) -> Result<TensorBytes<'_>, Error> {
        let dtype = place.dtype();
        let (expected, got) = (elements.end, place.elements());
        if elements.start > elements.end || expected > got {
            return Err(moeprune_core::Error::Length { what: "tensor range", expected, got }.into());
        }
        let byte = |element: usize| dtype.bytes_of(element);
        let (Some(start), Some(end)) = (byte(elements.start), byte(elements.end)) else {
            return Err(moeprune_core::Error::Unaligned { dtype, range: elements }.into());
        };
        let bytes = if place.is_contiguous() {
            let at = place.bytes().start;
            self.read_range(place.tensor(), at + start as u64..at + end as u64)?
        } else {
            let all = place.gather(self.read_range(place.tensor(), place.bytes())?);
            Cow::Owned(all[start..end].to_vec())
        };
        Ok(TensorBytes::new(dtype, [elements.len()], bytes)?)
    }

    /// Fills `bytes` with those of a tensor from `at` on.
    pub(super) fn read_into(&self, tensor: usize, at: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let tensor = &self.tensors[tensor];
        self.files[tensor.shard].read_into(tensor.range.start + at, bytes)
    }

    /// Where a range of a tensor begins in its file.
    pub(super) fn offset(&self, tensor: &StoredTensor, at: u64) -> (usize, u64) {
        (tensor.shard, tensor.range.start + at)
    }

    /// Some bytes of a tensor.
    pub(super) fn read_range(
        &self,
        tensor: usize,
        bytes: Range<u64>,
    ) -> Result<Cow<'_, [u8]>, Error> {
        let tensor = &self.tensors[tensor];
        let at = tensor.range.start;
        self.files[tensor.shard].read(at + bytes.start..at + bytes.end)
    }
}
