//! The GGUF format: one file, or several that are numbered.

mod descriptor;
mod facts;
mod files;
mod pruned;
mod roles;

use std::path::Path;

use moeprune_files::Files;
use moeprune_gguf::{SetFile, open_set};

pub(crate) use self::files::files_of_model;
use self::{
    descriptor::descriptor,
    facts::{Facts, config},
    pruned::{Source, SourceFile},
    roles::LayerTensors,
};
use super::{
    ContainedTensor, Container, Contents, DescribedModel, Metadata, PlannedWeights, PrunedCounts,
    WeightFile, WeightRequest,
};
use crate::Error;

/// What names of files end in.
const EXTENSION: &str = "gguf";

/// GGUF, the format of llama.cpp: all that is known of a model and its weights, in one file or in several
/// that are numbered.
///
/// Tensors may be of any type; those of types that are not known are copied and cut as they are. All
/// experts of a layer are in one tensor with the experts outermost, so that no byte of an expert changes when
/// others go. Metadata stay as they are but for the number of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no choices")]
pub struct Gguf;

impl Container for Gguf {
    fn name(&self) -> &'static str {
        "GGUF"
    }

    fn extension(&self) -> &'static str {
        EXTENSION
    }

    fn is_in(&self, files: &dyn Files) -> Result<bool, Error> {
        Ok(!weight_files(files)?.is_empty())
    }

    fn read(&self, files: &dyn Files) -> Result<Contents, Error> {
        let mut contents = Contents::default();
        let mut source = Source::default();
        let names = weight_files(files)?;
        let bad = |reason: String| Error::Weights { dir: files.place().to_owned(), reason };
        let first = names.first().ok_or_else(|| bad("has no GGUF file".to_owned()))?;
        let set = open_set(files, Path::new(first)).map_err(|e| bad(e.to_string()))?;
        if set.len() != names.len() {
            let (all, own) = (names.len(), set.len());
            return Err(bad(format!("has {all} GGUF files, but {own} belong to {first}")));
        }
        for (name, SetFile { header, .. }) in names.into_iter().zip(set) {
            let file = open(files, &name)?;
            let number = contents.files.len();
            contents.tensors.extend(header.tensors().iter().map(|tensor| ContainedTensor {
                name: tensor.name.clone(),
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
                file: number,
                range: tensor.range.clone(),
            }));
            let bytes = file.len();
            contents.files.push(file.with_data_at(header.data_start()));
            let entries = header.entries().clone();
            source.files.push(SourceFile { name, header, entries, bytes });
        }
        contents.tensors.sort_by_key(|tensor| (tensor.file, tensor.range.start));
        contents.metadata = Metadata::new(source);
        Ok(contents)
    }

    fn describes_model(&self) -> bool {
        true
    }

    fn describe(&self, contents: &Contents) -> Result<Option<DescribedModel>, Error> {
        let (Some(source), Some(first)) =
            (contents.metadata.get::<Source>(), contents.files.first())
        else {
            return Ok(None);
        };
        let model = describe(source, &contents.tensors);
        model.map(Some).map_err(|reason| refuse(first, reason))
    }

    fn with_counts(&self, metadata: &Metadata, counts: &PrunedCounts) -> Result<Metadata, String> {
        let source = metadata.get::<Source>().ok_or("the metadata are of another format")?;
        Ok(Metadata::new(source.with_counts(counts)?))
    }

    fn plan(&self, request: WeightRequest) -> Result<PlannedWeights, Error> {
        let bad = |reason: String| Error::Order { reason };
        let WeightRequest { tensors, metadata, .. } = request;
        let source = metadata
            .get::<Source>()
            .ok_or_else(|| bad("GGUF files are made of the metadata of others".to_owned()))?;
        source.plan(tensors).map_err(bad)
    }
}

/// The weight files among these, in order.
fn weight_files(files: &dyn Files) -> Result<Vec<String>, Error> {
    let entries = files.list(Path::new("")).map_err(Error::in_files(files))?;
    let names = entries.into_iter().filter_map(|entry| entry.name.into_string().ok());
    let ending = format!(".{EXTENSION}");
    let is_weights = |name: &String| name.to_ascii_lowercase().ends_with(&ending);
    let mut names: Vec<String> = names.filter(is_weights).collect();
    names.sort();
    Ok(names)
}

fn open(files: &dyn Files, name: &str) -> Result<WeightFile, Error> {
    WeightFile::open(files, name)?.ok_or_else(|| Error::Weights {
        dir: files.place().to_owned(),
        reason: format!("{name} is missing; download it again"),
    })
}

fn refuse(file: &WeightFile, reason: String) -> Error {
    Error::Shard { path: file.path().to_owned(), reason }
}

/// What the files say of the model.
fn describe(source: &Source, tensors: &[ContainedTensor]) -> Result<DescribedModel, String> {
    let (architecture, said) = source.said()?;
    let shape = |name: &str| tensors.iter().find(|tensor| tensor.name == name).map(|t| &*t.shape);
    let embedding = shape("token_embd.weight").ok_or("`token_embd.weight` is missing")?;
    let of_layers = LayerTensors::of(tensors);
    let stored = of_layers.count();
    if stored != said.layers {
        return Err(format!(
            "`{architecture}.block_count` is {}, but there are tensors of {stored} layers",
            said.layers
        ));
    }
    if let Some(rest) = of_layers.shapes.keys().find(|rest| roles::is_unknown_of_experts(rest)) {
        return Err(format!(
            "`{}N.{rest}` belongs to experts in a way that is not known, so it cannot be told what \
             becomes of it when experts go; convert the model again with a current llama.cpp if it \
             is an old file",
            roles::LAYER
        ));
    }
    let has_head = shape("output.weight").is_some();
    let facts = Facts::read(&of_layers, (embedding, has_head), said.layers - said.behind)?;
    let family = descriptor(&facts, &of_layers, &architecture)?;
    Ok(DescribedModel { config: config(&facts, &architecture, &said).to_string(), family })
}
