//! An open checkpoint.

mod decoding;
mod eos;
mod extra;
mod fingerprint;
mod fused;
mod fused_tensor;
mod head;
mod identity;
mod labels;
mod layout;
mod legacy_fingerprint;
mod modules;
mod open;
mod opened;
mod parts;
mod prefix;
mod pruned_config;
mod roles;
mod storage;
mod summary;

use std::{borrow::Cow, collections::BTreeMap, ops::Range, path::Path, sync::OnceLock};

use moeprune_core::{
    Fingerprint, ModelSpec, SameModel, StageError, StoredRows, StoredWeight, TensorBytes, TensorId,
    TensorSource,
    encoding::{Companion, Float, StoredForm},
};
use moeprune_files::{Files, StandIn};

use self::{
    decoding::{Decoding, NotRead},
    layout::Layout,
    modules::Module,
};
pub use self::{
    fused_tensor::FusedTensor,
    identity::ContentHash,
    layout::StoredTensor,
    modules::StoredPart,
    storage::{RoleStorage, Storage},
    summary::{RoleSummary, Summary},
};
use crate::{
    Error, Family,
    config::Config,
    container::{Container, OutputForm, PrunedCounts, WeightFile},
    family::Names,
    model_directory::ModelDirectory,
    place::Place,
};

pub(crate) const CONFIG_FILE: &str = "config.json";

/// A Hugging Face checkpoint whose files agree with each other: those of a directory, or any other
/// [`Files`].
///
/// Opening reads `config.json`, the index and the headers of the weight files, and checks them
/// against each other; weights are read when they are asked for. The directory is never written
/// to. With [`Access::MemoryMap`](crate::Access::MemoryMap), the default, the files must not be changed while the checkpoint
/// is open.
#[derive(Debug)]
pub struct Checkpoint {
    directory: ModelDirectory,
    config: Config,
    names: Names,
    spec: ModelSpec,
    layout: Layout,
    /// Where each part is.
    by_part: BTreeMap<TensorId, Place>,
    /// Parts that several tensors hold together, or codes.
    modules: BTreeMap<TensorId, Module>,
    /// In which form they do.
    forms: BTreeMap<TensorId, StoredForm>,
    /// What reads them, or why nothing does.
    decodings: BTreeMap<TensorId, Result<Decoding, NotRead>>,
    /// What contradicts each other, and what was made of it.
    notes: Vec<String>,
    /// Indices into the layout's tensors, in the order of their names.
    by_name: Vec<usize>,
    fingerprint: OnceLock<String>,
    declared_dtype: Option<String>,
}

impl Checkpoint {
    /// What the model is made of.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Where the config and the tensors, or files of the model, contradict each other, and what was gone by.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str)
    }

    /// The family whose descriptor was used.
    #[must_use]
    pub fn family(&self) -> &Family {
        self.names.family()
    }

    /// The directory as it was given, or what messages call the files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.directory.path
    }

    /// The files of the model.
    #[must_use]
    pub fn files(&self) -> &dyn Files {
        self.directory.files()
    }

    /// The bytes of a file of the model, given its path relative to it; `None` if there is none.
    ///
    /// # Errors
    /// If that is not a regular file, or a link to a place that a model must not name: only the
    /// directory itself, and in the Hugging Face cache the blobs of the same repository, may be
    /// led to. Also if the file is longer than `most` bytes, or cannot be read.
    pub fn read_file(&self, relative: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let bytes = self.directory.read(relative, most.saturating_add(1))?;
        if bytes.as_ref().is_some_and(|bytes| bytes.len() as u64 > most) {
            let path = self.files().path_of(relative);
            let reason = format!("{} is larger than {most} bytes", path.display());
            return Err(moeprune_files::Error::Unreadable { path, reason }.into());
        }
        let beginning = |bytes: &Vec<u8>| bytes[..bytes.len().min(StandIn::BYTES)].to_vec();
        if let Some(stand_in) = bytes.as_ref().and_then(|bytes| StandIn::pointer(&beginning(bytes)))
        {
            let path = self.files().path_of(relative);
            let reason = format!("{} {stand_in}", path.display());
            return Err(moeprune_files::Error::Unreadable { path, reason }.into());
        }
        Ok(bytes)
    }

    /// All tensors in the order they are stored: by shard name, then by offset.
    pub fn tensors(&self) -> impl Iterator<Item = &StoredTensor> {
        self.layout.tensors.iter()
    }

    /// The tensor with this name on disk.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn tensor_by_name(&self, name: &str) -> Result<TensorBytes<'_>, Error> {
        self.layout.read(self.index_of(name)?)
    }

    /// Some elements of a part, counted row by row, as a vector. No others are read.
    ///
    /// # Errors
    /// If the model has no such part, the part has no such elements, or they cannot be read.
    pub fn elements(&self, id: TensorId, elements: Range<usize>) -> Result<TensorBytes<'_>, Error> {
        self.layout.read_elements(self.place_of(id)?, elements)
    }

    /// Where a part is: which tensor, and which of its elements. Of a quantised part, where its codes
    /// are; [`stored_part`](Self::stored_part) says what is beside them.
    ///
    /// # Errors
    /// [`Error::NoSuchPart`] if the model has no such part.
    pub fn place_of(&self, id: TensorId) -> Result<&Place, Error> {
        self.by_part.get(&id).ok_or_else(|| {
            let reason = match self.names.name_of(id) {
                Some(name) => Cow::Owned(format!("there is no `{name}`")),
                None => Cow::Borrowed("its family has no name for it"),
            };
            let reason = format!("{reason} in {}", self.dir().display());
            Error::NoSuchPart { part: id.to_string(), reason }
        })
    }

    /// What is at a place of this checkpoint.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_place(&self, place: &Place) -> Result<TensorBytes<'_>, Error> {
        self.layout.read_part(place)
    }

    /// The tensor that a place is in.
    #[must_use]
    pub fn tensor_at(&self, place: &Place) -> &StoredTensor {
        &self.layout.tensors[place.tensor()]
    }

    /// The name on disk of the tensor that a part is in; of experts that this model lacks, the name
    /// that it would have as a tensor of its own.
    ///
    /// # Errors
    /// [`Error::NoSuchPart`] if the family has no name for it.
    pub fn name_of(&self, id: TensorId) -> Result<String, Error> {
        if let Some(place) = self.by_part.get(&id) {
            return Ok(self.tensor_at(place).name.clone());
        }
        self.names.name_of(id).ok_or_else(|| Error::NoSuchPart {
            part: id.to_string(),
            reason: format!("the family `{}` has no name for it", self.family().name()),
        })
    }

    /// The text of `config.json`.
    #[must_use]
    pub fn config_text(&self) -> &str {
        self.config.text()
    }

    /// The same as JSON that any parser takes: without a byte order mark, and with other words of the same length
    /// in place of NaN and infinity.
    #[must_use]
    pub fn config_json(&self) -> &str {
        self.config.json()
    }

    /// The storage type the config declares, as it spells it.
    #[must_use]
    pub fn declared_dtype(&self) -> Option<&str> {
        self.declared_dtype.as_deref()
    }

    /// Bytes of tensor data in the largest weight file.
    #[must_use]
    pub fn max_shard_bytes(&self) -> u64 {
        self.layout.files.iter().map(WeightFile::data_bytes).max().unwrap_or_default()
    }

    /// Bytes of all weight files, headers included.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.layout.files.iter().map(WeightFile::len).sum()
    }

    /// The weight files in the order of their names.
    pub fn shard_files(&self) -> impl Iterator<Item = &str> {
        self.layout.files.iter().map(WeightFile::name)
    }

    /// The [`Fingerprint`](moeprune_core::Fingerprint) as text: what the model is, and how it is
    /// stored.
    ///
    /// Two models whose first part is the same have the same form and route alike; experts that
    /// were changed under unchanged routers do not show. Reads the routers the first time.
    ///
    /// # Errors
    /// If a router cannot be read.
    pub fn fingerprint(&self) -> Result<String, Error> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(known.clone());
        }
        let read = |id| self.layout.read_part(self.place_of(id)?);
        let computed = fingerprint::compute(&self.layout, &self.spec, &read)?.to_string();
        Ok(self.fingerprint.get_or_init(|| computed).clone())
    }

    /// Whether a fingerprint that a file holds is this model's, those of version 0.1.0 included.
    ///
    /// # Errors
    /// If a router cannot be read.
    pub fn is_of(&self, fingerprint: &str) -> Result<SameModel, Error> {
        let same = Fingerprint::compare(fingerprint, &self.fingerprint()?);
        if same == SameModel::No
            && !fingerprint.contains('+')
            && fingerprint == legacy_fingerprint::compute(&self.layout)?
        {
            return Ok(SameModel::Yes);
        }
        Ok(same)
    }

    /// Sizes and counts, from the headers alone.
    #[must_use]
    pub fn summary(&self) -> Summary {
        summary::summarize(self)
    }

    /// Whether the files have the layout of a single file, of which no index is kept.
    #[must_use]
    pub fn is_single_file(&self) -> bool {
        self.layout.index.is_none()
    }

    /// Bytes of all tensors as the index announces them, if there is one and it does.
    pub(crate) fn announced_size(&self) -> Option<u64> {
        self.layout.index.as_ref().and_then(|index| index.total_bytes)
    }

    /// The form of the weights: the same container, with files as large, and the layers behind the
    /// decoder's in files of their own if they are in such.
    #[must_use]
    pub fn output_form(&self) -> OutputForm<'static> {
        let metadata = self.layout.metadata.clone();
        OutputForm {
            container: self.layout.container,
            max_file_bytes: self.max_shard_bytes(),
            metadata,
            own_files: self.files_of_extra(),
        }
    }

    /// As [`output_form`](Self::output_form), for a model made of this one.
    ///
    /// # Errors
    /// If weight files that [describe their model](Self::describes_itself) cannot say what it is.
    pub fn pruned_form(&self, pruned: &ModelSpec) -> Result<OutputForm<'static>, Error> {
        let layers = (0..pruned.extra_layers().end).filter_map(|layer| pruned.moe_of(layer));
        let counts = PrunedCounts {
            experts: layers.map(|moe| moe.experts).collect(),
            drops_extra: self.spec.extra.is_some() && pruned.extra.is_none(),
        };
        let form = self.output_form();
        let metadata = form.container.with_counts(&form.metadata, &counts);
        let metadata =
            metadata.map_err(|reason| Error::Experts { dir: self.dir().to_owned(), reason })?;
        Ok(OutputForm { metadata, ..form })
    }

    /// The format of the weight files.
    #[must_use]
    pub fn container(&self) -> &'static dyn Container {
        self.layout.container
    }

    /// Whether the weight files say what the model is, so that there is no `config.json`: GGUF. Whole experts
    /// of such a model can go; it is not run.
    #[must_use]
    pub fn describes_itself(&self) -> bool {
        self.layout.model.is_some()
    }

    /// Whether the model is a single file that [describes itself](Self::describes_itself), and no directory.
    #[must_use]
    pub fn is_one_file(&self) -> bool {
        self.describes_itself() && self.layout.files.len() == 1
    }

    /// Name of the index, if there is one.
    pub(crate) fn index_file(&self) -> Option<&str> {
        self.layout.index.as_ref().map(|index| index.name.as_str())
    }

    pub(crate) fn read(&self, tensor: &StoredTensor) -> Result<TensorBytes<'_>, Error> {
        self.tensor_by_name(&tensor.name)
    }

    /// What the headers say of the tensor with this name on disk.
    pub(crate) fn stored(&self, name: &str) -> Result<&StoredTensor, Error> {
        Ok(&self.layout.tensors[self.index_of(name)?])
    }

    /// The weight file of a tensor, and where one of the tensor's bytes is in it.
    pub(crate) fn offset(&self, tensor: &StoredTensor, at: u64) -> (usize, u64) {
        self.layout.offset(tensor, at)
    }

    /// A weight file by its number.
    pub(crate) fn weight_file(&self, file: usize) -> &WeightFile {
        &self.layout.files[file]
    }

    fn unreadable(&self, id: TensorId, reason: String) -> Error {
        let name = self.name_of(id).unwrap_or_else(|_| id.to_string());
        Error::Tensor { dir: self.dir().to_owned(), name, reason }
    }

    fn index_of(&self, name: &str) -> Result<usize, Error> {
        self.named(name).ok_or_else(|| Error::Tensor {
            dir: self.dir().to_owned(),
            name: name.to_owned(),
            reason: "is not in this checkpoint".to_owned(),
        })
    }

    fn named(&self, name: &str) -> Option<usize> {
        let name_of = |&at: &usize| self.layout.tensors[at].name.as_str();
        let found = self.by_name.binary_search_by(|at| name_of(at).cmp(name));
        found.ok().map(|at| self.by_name[at])
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&StoredTensor> {
        self.named(name).map(|at| &self.layout.tensors[at])
    }
}

impl TensorSource for Checkpoint {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        Ok(self.stored_weight(id)?)
    }

    fn stored_rows(&self, id: TensorId) -> Result<Option<StoredRows<'_>>, StageError> {
        let place = self.place_of(id)?;
        let is_plain = place.is_contiguous() && !self.decodings.contains_key(&id);
        let float = Float::of(place.dtype()).filter(|_| is_plain);
        let (Some(float), &[rows, cols]) = (float, place.shape()) else { return Ok(None) };
        let (tensor, begin, row) = (place.tensor(), place.bytes().start, cols * float.size());
        let read = move |rows: Range<usize>, bytes: &mut [u8]| {
            let at = begin + (rows.start * row) as u64;
            Ok(self.layout.read_into(tensor, at, bytes)?)
        };
        Ok(Some(StoredRows::new(float, [rows, cols], read)))
    }
}

impl Checkpoint {
    /// Whether a part is in codes that can be read.
    pub(crate) fn is_decoded(&self, id: TensorId) -> bool {
        matches!(self.decodings.get(&id), Some(Ok(_)))
    }

    /// The tensors that a part's codes are read with; none of one that is not decoded.
    pub(crate) fn companions_of(&self, id: TensorId) -> &'static [Companion] {
        match self.decodings.get(&id) {
            Some(Ok(decoding)) => decoding.companions(),
            _ => &[],
        }
    }

    /// A part as it is stored.
    pub(crate) fn stored_weight(&self, id: TensorId) -> Result<StoredWeight<'_>, Error> {
        let read = match self.decodings.get(&id) {
            None => return Ok(StoredWeight::alone(self.layout.read_part(self.place_of(id)?)?)?),
            Some(Ok(decoding)) => decoding.read(&self.layout).map_err(|e| e.to_string()),
            Some(Err(not_read)) => Err(not_read.reason.clone()),
        };
        read.map_err(|reason| self.unreadable(id, reason))
    }
}
