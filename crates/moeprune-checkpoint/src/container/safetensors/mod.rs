//! The safetensors format: one file, or several and an index.

mod dtype;
mod header;
mod index;
mod shards;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use moeprune_files::{FileEntry, Files};

pub(crate) use self::index::{INDEX_FILE, SINGLE_FILE};
use self::{
    header::{HeaderTensor, header_bytes, read_header},
    index::{Index, index_text},
};
use super::{
    ContainedIndex, ContainedTensor, Container, Contents, PlannedFile, PlannedIndex,
    PlannedWeights, WeightFile, WeightRequest, plan::Group,
};
use crate::Error;

/// Safetensors: `model.safetensors`, or several files that `model.safetensors.index.json` names; without an
/// index, shards that are numbered and all there, or else all files of the format. Several files are written with an
/// index.
///
/// Metadata is checked and then ignored: no reader of a model depends on it. Files that are
/// planned say `format: pt`, as those of Hugging Face libraries do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no choices")]
pub struct Safetensors;

impl Container for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn extension(&self) -> &'static str {
        "safetensors"
    }

    fn is_in(&self, files: &dyn Files) -> Result<bool, Error> {
        if has(files, SINGLE_FILE)? || has(files, INDEX_FILE)? {
            return Ok(true);
        }
        let entries = files.list(Path::new("")).map_err(Error::in_files(files))?;
        let is_other = |entry: &FileEntry| entry.name.to_string_lossy().ends_with(".gguf");
        Ok(!entries.iter().any(is_other) && !shards::present(files)?.is_empty())
    }

    fn read(&self, files: &dyn Files) -> Result<Contents, Error> {
        let bad = |reason: String| Error::Weights { dir: files.place().to_owned(), reason };
        if has(files, SINGLE_FILE)? && has(files, INDEX_FILE)? {
            return Err(bad(format!(
                "has both {SINGLE_FILE} and {INDEX_FILE}; remove the one that is not the model"
            )));
        }
        let index = Index::read(files)?;
        let names = match &index {
            Some(index) => index.shards().into_iter().map(str::to_owned).collect(),
            None => shards::without_index(&shards::present(files)?).map_err(bad)?,
        };
        let mut contents = Contents::default();
        for name in names {
            let Some(file) = WeightFile::open(files, &name)? else {
                return Err(bad(match &index {
                    Some(index) => missing(files, &name, index)?,
                    None => format!("{name} is missing"),
                }));
            };
            add_file(&mut contents, file)?;
        }
        check_names(&contents)?;
        if let Some(index) = index {
            let file = |tensor: &ContainedTensor| contents.files[tensor.file].name();
            index.check(contents.tensors.iter().map(|t| (t.name.as_str(), file(t))))?;
            let (name, total_bytes) = (INDEX_FILE.to_owned(), index.total_size);
            contents.index = Some(ContainedIndex { name, total_bytes });
        }
        Ok(contents)
    }

    fn plan(&self, request: WeightRequest) -> Result<PlannedWeights, Error> {
        let groups = request.groups()?;
        let count = groups.iter().filter(|group| group.name.is_none()).count();
        let is_whole = groups.len() == 1;
        let file = |(i, group): (usize, Group)| {
            let name = match &group.name {
                _ if is_whole => SINGLE_FILE.to_owned(),
                Some(own) => own.clone(),
                None => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            };
            planned_file(group, name)
        };
        let files = groups.into_iter().enumerate().map(file).collect::<Result<Vec<_>, _>>()?;
        let index = (!is_whole).then(|| planned_index(&files));
        Ok(PlannedWeights { files, index })
    }
}

/// What is said of a shard that is missing.
fn missing(files: &dyn Files, name: &str, index: &Index) -> Result<String, Error> {
    let shards = index.shards();
    let mut count = 0;
    for shard in &shards {
        count += usize::from(!has(files, shard)?);
    }
    let of_all = match count {
        1 => String::new(),
        count => format!(" ({count} of {} shards are missing)", shards.len()),
    };
    Ok(format!("{name} is missing, but {INDEX_FILE} names it{of_all}; download it again"))
}

/// Notes on safetensors files, given those that are read.
pub(crate) fn beside_shards(
    files: &dyn Files,
    read: &BTreeSet<&str>,
    has_index: bool,
) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    if !has_index && read.len() > 1 {
        let all = read.iter().copied().collect::<Vec<_>>().join(", ");
        notes.push(format!("there is no {INDEX_FILE}; the weights are {all}"));
    }
    let unnamed = shards::unnamed(&shards::present(files)?, read);
    if !unnamed.is_empty() {
        let (is, by) = match has_index {
            true => ("named", format!("by {INDEX_FILE}")),
            false => ("read", "beside the others".to_owned()),
        };
        notes.push(format!(
            "{} is not {is} {by}: what is in it is not part of the model",
            unnamed.join(", ")
        ));
    }
    Ok(notes)
}

/// The names of the tensors in a file, from its header; none if there is no such file.
pub(crate) fn names_in(files: &dyn Files, name: &str) -> Result<Vec<String>, Error> {
    let Some(file) = WeightFile::open(files, name)? else { return Ok(Vec::new()) };
    let (_, tensors) = read_header(&file)?;
    Ok(tensors.into_iter().map(|tensor| tensor.name).collect())
}

fn has(files: &dyn Files, name: &str) -> Result<bool, Error> {
    files.has(Path::new(name)).map_err(Error::in_files(files))
}

fn add_file(contents: &mut Contents, file: WeightFile) -> Result<(), Error> {
    let (data_start, tensors) = read_header(&file)?;
    let index = contents.files.len();
    let tensor = |HeaderTensor { name, dtype, shape, range }| {
        let range = data_start + range.start..data_start + range.end;
        ContainedTensor { name, dtype, shape, file: index, range }
    };
    contents.tensors.extend(tensors.into_iter().map(tensor));
    contents.files.push(file.with_data_at(data_start));
    Ok(())
}

fn check_names(contents: &Contents) -> Result<(), Error> {
    let mut seen = BTreeMap::new();
    for tensor in &contents.tensors {
        if let Some(other) = seen.insert(tensor.name.as_str(), tensor.file) {
            let other = contents.files[other].name();
            let reason = format!("tensor `{}` is also in {other}", tensor.name);
            let path = contents.files[tensor.file].path().to_owned();
            return Err(Error::Shard { path, reason });
        }
    }
    Ok(())
}

fn planned_file(group: Group, name: String) -> Result<PlannedFile, Error> {
    let data_bytes = group.end();
    let Group { tensors, mut ranges, .. } = group;
    let header = header_bytes(&tensors).map_err(|reason| Error::Order { reason })?;
    let data_start = header.len() as u64;
    for range in &mut ranges {
        *range = data_start + range.start..data_start + range.end;
    }
    Ok(PlannedFile { name, header, tensors, ranges, bytes: data_start + data_bytes })
}

fn planned_index(files: &[PlannedFile]) -> PlannedIndex {
    let mut weight_map = BTreeMap::new();
    let mut tensor_bytes = 0;
    for PlannedFile { name, header, tensors, bytes, .. } in files {
        weight_map.extend(tensors.iter().map(|tensor| (tensor.name.as_str(), name.as_str())));
        tensor_bytes += bytes - header.len() as u64;
    }
    let text = index_text(tensor_bytes, &weight_map);
    PlannedIndex { name: INDEX_FILE.to_owned(), text }
}
