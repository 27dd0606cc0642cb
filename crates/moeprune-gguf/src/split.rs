//! Models that are split over several files.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use moeprune_files::{Files, ReadAt};

use crate::{Entries, Error, Header};

/// A file of a set, open.
#[derive(Debug)]
#[non_exhaustive]
pub struct SetFile {
    /// Its name in the set.
    pub name: PathBuf,
    /// Its header.
    pub header: Header,
    /// The file.
    pub file: Box<dyn ReadAt>,
}

/// The name of one of several files, such as `model-00002-of-00003.gguf`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller")]
pub struct SplitName {
    /// What all files begin with.
    pub prefix: String,
    /// Which one it is, from 1.
    pub number: u64,
    /// How many there are.
    pub count: u64,
}

impl SplitName {
    /// The parts of a file's name; `None` if it is not of this form.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let (prefix, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (prefix, number) = prefix.rsplit_once('-')?;
        let (number, count) = (number.parse().ok()?, count.parse().ok()?);
        let parts = Self { prefix: prefix.to_owned(), number, count };
        (parts.to_string() == name).then_some(parts)
    }
}

impl fmt::Display for SplitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:05}-of-{:05}.gguf", self.prefix, self.number, self.count)
    }
}

/// What a file says of its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Membership {
    /// Which one it is, from 0 as the format counts.
    number: u64,
    count: u64,
    /// Tensors of all files.
    tensors: Option<u64>,
}

impl Membership {
    /// `None` for a file that stands alone.
    fn of(entries: &Entries) -> Result<Option<Self>, Error> {
        let Some(count) = entries.number("split.count")?.filter(|&count| count > 1) else {
            return Ok(None);
        };
        let number =
            entries.number("split.no")?.ok_or_else(|| Error::key("split.no", "is missing"))?;
        Ok(Some(Self { number, count, tensors: entries.number("split.tensors.count")? }))
    }
}

/// Opens all files of a model in their order, given the name of the first, and reads their headers.
/// A model in one file is that file.
///
/// # Errors
/// If a file is missing, has no header that can be read, or is not the one that its name says; if the
/// files have not as many tensors as they say, or two have one in common.
pub fn open_set(files: &dyn Files, first: &Path) -> Result<Vec<SetFile>, Error> {
    let start = open(files, first)?;
    let member = Membership::of(start.header.entries()).map_err(|e| in_file(files, first, e))?;
    let Some(member) = member else { return Ok(vec![start]) };
    let bad = |name: &Path, reason: String| {
        Err(Error::Split { file: files.path_of(name).display().to_string(), reason })
    };
    let count = member.count;
    let name = first.file_name().and_then(|name| name.to_str()).and_then(SplitName::of);
    let Some(name) = name.filter(|name| name.count == count) else {
        let example = SplitName { prefix: "NAME".to_owned(), number: 1, count };
        return bad(
            first,
            format!("says that it is one of {count} files, expected a name like {example}"),
        );
    };
    if name.number != 1 {
        let all = SplitName { number: 1, ..name };
        return bad(first, format!("is not the first of {count} files; name {all}"));
    }
    let mut set = vec![start];
    for number in 2..=count {
        set.push(open(
            files,
            &first.with_file_name(SplitName { number, ..name.clone() }.to_string()),
        )?);
    }
    for (number, SetFile { name, header, .. }) in (0..).zip(&set) {
        let got = Membership::of(header.entries()).map_err(|e| in_file(files, name, e))?;
        let expected = Membership { number, ..member };
        if got != Some(expected) {
            return bad(name, format!("says {}, expected {expected}", shown(got)));
        }
    }
    check_tensors(files, &set, member)?;
    Ok(set)
}

/// Checks that the files have all tensors, each once.
fn check_tensors(files: &dyn Files, set: &[SetFile], member: Membership) -> Result<(), Error> {
    let mut holders: BTreeMap<&str, &Path> = BTreeMap::new();
    for SetFile { name: file, header, .. } in set {
        for tensor in header.tensors() {
            let Some(other) = holders.insert(&tensor.name, file) else { continue };
            let reason = format!("tensor `{}` is in {} too", tensor.name, other.display());
            return Err(Error::Split { file: files.path_of(file).display().to_string(), reason });
        }
    }
    let got = holders.len() as u64;
    match (member.tensors, set.first()) {
        (Some(expected), Some(first)) if expected != got => Err(Error::Split {
            file: files.path_of(&first.name).display().to_string(),
            reason: format!("the {} files have {got} tensors, expected {expected}", set.len()),
        }),
        _ => Ok(()),
    }
}

fn open(files: &dyn Files, name: &Path) -> Result<SetFile, Error> {
    let Some(file) = files.open(name)? else {
        let file = files.path_of(name).display().to_string();
        return Err(Error::Split { file, reason: "is missing; download it".to_owned() });
    };
    let header = Header::read(&*file).map_err(|e| in_file(files, name, e))?;
    Ok(SetFile { name: name.to_owned(), header, file })
}

fn in_file(files: &dyn Files, name: &Path, error: Error) -> Error {
    Error::In { file: files.path_of(name).display().to_string(), source: Box::new(error) }
}

fn shown(member: Option<Membership>) -> String {
    member.map_or_else(|| "that it stands alone".to_owned(), |member| member.to_string())
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, count, tensors } = self;
        write!(f, "split.no {number}, split.count {count}")?;
        tensors.map_or(Ok(()), |tensors| write!(f, ", split.tensors.count {tensors}"))
    }
}
