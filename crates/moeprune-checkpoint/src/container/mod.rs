//! How tensors lie in files: the seam between a checkpoint and the formats of weight files.

mod gguf;
mod metadata;
mod output_form;
mod plan;
mod safetensors;
mod weight_file;

use std::{fmt, ops::Range, path::Path};

use moeprune_core::Dtype;
use moeprune_files::Files;

pub use self::{
    gguf::Gguf,
    metadata::Metadata,
    output_form::OutputForm,
    plan::{PlannedFile, PlannedIndex, PlannedTensor, PlannedWeights, WeightRequest},
    safetensors::Safetensors,
    weight_file::WeightFile,
};
pub(crate) use self::{
    gguf::files_of_model,
    safetensors::{INDEX_FILE, beside_shards, names_in},
};
use crate::Error;

/// Every container that is known, in the order in which they are looked for.
static BUILT_IN: [&dyn Container; 2] = [&Safetensors, &Gguf];

/// A format of weight files: which tensors are where in a set of files, and what files hold a set
/// of tensors.
///
/// A checkpoint calls [`is_in`](Self::is_in) and [`read`](Self::read) once, when it is opened, and
/// then reads tensors by the ranges it received. A writer calls [`plan`](Self::plan) once, before
/// anything is written, and then puts bytes into the ranges it received. A container therefore
/// never touches the data of a tensor.
///
/// An implementation guarantees that
///
/// * ranges lie within their file, do not overlap, and have the length that element type and shape
///   ask for;
/// * what two readers of the format could understand differently is refused, naming the file;
/// * opening reads headers and no data, however large the files are;
/// * equal requests give equal plans, and the files of a plan, filled in, read back as the tensors
///   that were asked for.
///
/// Weights may be in one file or in several, with an index beside them or without. A file begins
/// with a header that the container makes whole; what it aligns by, the ranges show. Facts that the
/// format stores with the weights ([`Contents::metadata`]) pass through unread.
///
/// ```
/// use moeprune_checkpoint::{Container, PlannedTensor, Safetensors, WeightRequest};
/// use moeprune_core::Dtype;
/// use moeprune_files::MemoryFiles;
///
/// let tensor = PlannedTensor { name: "a".into(), dtype: Dtype::F32, shape: vec![2] };
/// let plan = Safetensors.plan(WeightRequest::new(vec![tensor], u64::MAX))?;
/// let [file] = &plan.files[..] else { panic!("fits into one") };
///
/// let mut bytes = file.header.clone();
/// bytes.resize(file.bytes as usize, 0);
/// let mut files = MemoryFiles::new("example");
/// files.insert(&file.name, bytes);
/// let contents = Safetensors.read(&files)?;
/// assert_eq!(contents.tensors[0].range, file.ranges[0]);
/// # Ok::<(), moeprune_checkpoint::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a container of weights",
    note = "implement `Container::name`, `extension`, `is_in`, `read` and `plan`: what the format is called, \
            whether files are of it, where their tensors are, and which files hold given tensors"
)]
pub trait Container: fmt::Debug + Send + Sync {
    /// What messages call it.
    fn name(&self) -> &'static str;

    /// What its weight files' names end in, after a dot.
    fn extension(&self) -> &'static str;

    /// Whether weights in this container are among the files, by their names.
    ///
    /// # Errors
    /// If the files cannot be looked at.
    fn is_in(&self, files: &dyn Files) -> Result<bool, Error>;

    /// The weight files, open, and the tensors in them.
    ///
    /// # Errors
    /// If a file is missing, damaged or contradicts another; the message names it.
    fn read(&self, files: &dyn Files) -> Result<Contents, Error>;

    /// Whether the weight files themselves say what `config.json` says elsewhere. The default says no.
    fn describes_model(&self) -> bool {
        false
    }

    /// What the files say of the model, of a container that [describes it](Self::describes_model); called once,
    /// with what [`read`](Self::read) returned. The default says nothing.
    ///
    /// # Errors
    /// If what they say is no model, or contradicts itself; the message names the file.
    fn describe(&self, contents: &Contents) -> Result<Option<DescribedModel>, Error> {
        let _ = contents;
        Ok(None)
    }

    /// The facts of a model like the one these are of, with so many experts in each layer that has some.
    /// Called once per pruned model whose container [describes it](Self::describes_model); the default
    /// changes nothing.
    ///
    /// # Errors
    /// If the format cannot say so, with what it can.
    fn with_counts(&self, metadata: &Metadata, counts: &PrunedCounts) -> Result<Metadata, String> {
        let _ = counts;
        Ok(metadata.clone())
    }

    /// The files that hold the tensors of a request, each with its header and the place of each
    /// tensor.
    ///
    /// # Errors
    /// If there are no tensors, a name is given twice, or the size of a tensor cannot be counted.
    fn plan(&self, request: WeightRequest) -> Result<PlannedWeights, Error>;
}

/// What a container holds.
#[derive(Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by implementations")]
pub struct Contents {
    /// The weight files in the order of their names.
    pub files: Vec<WeightFile>,
    /// All tensors in stored order: by file, then by place.
    pub tensors: Vec<ContainedTensor>,
    /// The index beside the files, if there is one.
    pub index: Option<ContainedIndex>,
    /// Facts that are stored with the weights.
    pub metadata: Metadata,
}

/// What weight files say of their model where there is no `config.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by implementations")]
pub struct DescribedModel {
    /// A config in the form of `config.json`.
    pub config: String,
    /// The descriptor of a family that reads it, as [`Family::from_toml`](crate::Family::from_toml) takes it.
    pub family: String,
}

/// What changes in the facts about a model when experts go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller")]
pub struct PrunedCounts {
    /// Experts of each layer that has some, those behind the decoder's included.
    pub experts: Vec<usize>,
    /// Whether the layers behind the decoder's are gone.
    pub drops_extra: bool,
}

/// A tensor as a container announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by implementations")]
pub struct ContainedTensor {
    /// Name on disk.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Which of the files it is in.
    pub file: usize,
    /// Its bytes, from the beginning of the file.
    pub range: Range<u64>,
}

/// An index beside weight files.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by implementations")]
pub struct ContainedIndex {
    /// Its file.
    pub name: String,
    /// Bytes of all tensors, as it announces them.
    pub total_bytes: Option<u64>,
}

/// The container that the weights of a model are in.
///
/// # Errors
/// If they are in none that is known.
pub(crate) fn find(files: &dyn Files) -> Result<&'static dyn Container, Error> {
    for container in BUILT_IN {
        if container.is_in(files)? {
            return Ok(container);
        }
    }
    let names: Vec<&str> = BUILT_IN.iter().map(|container| container.name()).collect();
    let reason = adapter(files).unwrap_or_else(|| {
        format!(
            "has neither {} nor {}; only {} weights are read",
            safetensors::SINGLE_FILE,
            INDEX_FILE,
            names.join(" and ")
        )
    });
    Err(Error::Weights { dir: files.place().to_owned(), reason })
}

/// What is said of a folder that holds an adapter and no model; `None` of any other.
pub(crate) fn adapter(files: &dyn Files) -> Option<String> {
    let names = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"];
    let found = names.into_iter().find(|name| files.has(Path::new(name)).unwrap_or(false))?;
    Some(format!(
        "is a PEFT adapter ({found}) and no model; merge it into the model that it was made for \
         (`merge_and_unload`) and save that"
    ))
}
