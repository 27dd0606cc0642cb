//! What [`Container`] promises.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use moeprune_checkpoint::{Container, PlannedTensor, PlannedWeights, WeightRequest};
use moeprune_core::Dtype;
use moeprune_files::{Error, FileEntry, FileIdentity, Files, MemoryFiles, ReadAt};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{for_all, pure};

/// Holds a container to its contract:
///
/// * equal requests give equal plans;
/// * a plan has each tensor once, in a range of its length that is behind the header and overlaps
///   no other, in a file whose name has the container's ending; only a larger tensor makes a file
///   larger than the limit;
/// * its files, filled in, are found to be in this container, and read back as the tensors of the
///   request at the ranges of the plan, without reading any of their data;
/// * no tensors, a name that is given twice and sizes that cannot be counted are refused;
/// * files that are cut short, or begin with anything else, are refused, without a panic.
///
/// # Panics
/// If one of these is broken.
pub fn check(container: &dyn Container) {
    let nothing = MemoryFiles::new("nothing");
    assert!(!container.is_in(&nothing).expect("looks"), "it is found where nothing is");
    assert!(container.read(&nothing).is_err(), "it reads where nothing is");
    check_refusals(container);
    for_all(&requests(), |request| {
        let plan = pure(|| container.plan(request.clone()).map_err(|e| e.to_string()))?;
        let plan = plan.map_err(TestCaseError::fail)?;
        check_plan(container, &request, &plan)?;
        let files = filled(&plan);
        check_contents(container, &request, &plan, &files)?;
        check_damage(container, &plan, &files)
    });
}

fn check_refusals(container: &dyn Container) {
    let tensor = |name: &str, shape: &[usize]| PlannedTensor {
        name: name.to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    };
    let refused = |tensors: Vec<PlannedTensor>, what: &str| {
        let plan = container.plan(WeightRequest::new(tensors, 1 << 30));
        assert!(plan.is_err(), "a plan is made of {what}");
    };
    refused(Vec::new(), "no tensors");
    refused(vec![tensor("a", &[1]), tensor("b", &[1]), tensor("a", &[2])], "a name twice");
    refused(vec![tensor("a", &[usize::MAX, 2])], "a size that cannot be counted");
}

fn check_plan(
    container: &dyn Container,
    request: &WeightRequest,
    plan: &PlannedWeights,
) -> Result<(), TestCaseError> {
    let mut planned = Vec::new();
    for file in &plan.files {
        let ending = format!(".{}", container.extension());
        prop_assert!(file.name.ends_with(&ending), "{} does not end in {ending}", file.name);
        prop_assert_eq!(file.tensors.len(), file.ranges.len(), "a range a tensor");
        let mut end = file.header.len() as u64;
        for (tensor, range) in file.tensors.iter().zip(&file.ranges) {
            prop_assert!(
                range.start >= end,
                "`{}` at {range:?} overlaps what ends at {end}",
                tensor.name
            );
            let bytes =
                tensor.dtype.bytes_of_shape(&tensor.shape).expect("announced as whole bytes");
            prop_assert_eq!(range.end - range.start, bytes as u64, "bytes of `{}`", tensor.name);
            end = range.end;
            planned.push(tensor.clone());
        }
        prop_assert!(end <= file.bytes, "{} ends before its last tensor", file.name);
        let data: u64 = file.ranges.iter().map(|range| range.end - range.start).sum();
        let small = data <= request.max_file_bytes || file.tensors.len() == 1;
        prop_assert!(small, "{} has {data} bytes of data", file.name);
    }
    planned.sort_by(|a, b| a.name.cmp(&b.name));
    let mut asked = request.tensors.clone();
    asked.sort_by(|a, b| a.name.cmp(&b.name));
    prop_assert_eq!(planned, asked, "tensors of the plan");
    Ok(())
}

/// The files of a plan, their data not zero.
fn filled(plan: &PlannedWeights) -> MemoryFiles {
    let mut files = MemoryFiles::new("planned");
    for file in &plan.files {
        let mut bytes = file.header.clone();
        bytes.resize(file.bytes as usize, 0);
        for range in &file.ranges {
            bytes[range.start as usize..range.end as usize].fill(b'{');
        }
        files.insert(&file.name, bytes);
    }
    if let Some(index) = &plan.index {
        files.insert(&index.name, index.text.as_bytes());
    }
    files
}

fn check_contents(
    container: &dyn Container,
    request: &WeightRequest,
    plan: &PlannedWeights,
    files: &MemoryFiles,
) -> Result<(), TestCaseError> {
    let watched = Watched { files: files.clone(), read: Arc::default() };
    let found = container.is_in(&watched).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert!(found, "files of its own plan are not found");
    let contents = container.read(&watched).map_err(|e| TestCaseError::fail(e.to_string()))?;
    let names: Vec<&str> = contents.files.iter().map(|file| file.name()).collect();
    prop_assert!(names.is_sorted_by(|a, b| a < b), "files are not in order: {names:?}");
    prop_assert_eq!(contents.tensors.len(), request.tensors.len(), "tensors read");
    for file in &plan.files {
        for (tensor, range) in file.tensors.iter().zip(&file.ranges) {
            let read = contents.tensors.iter().find(|read| read.name == tensor.name);
            let Some(read) = read else {
                return Err(TestCaseError::fail(format!("`{}` is not read back", tensor.name)));
            };
            prop_assert_eq!((&read.dtype, &read.shape), (&tensor.dtype, &tensor.shape));
            prop_assert_eq!(&read.range, range, "range of `{}`", tensor.name);
            prop_assert_eq!(names[read.file], &file.name, "file of `{}`", tensor.name);
            let touched = watched.touched(&file.name, range);
            prop_assert!(!touched, "the data of `{}` is read to open it", tensor.name);
        }
    }
    let index = contents.index.as_ref().map(|index| &index.name);
    prop_assert_eq!(index, plan.index.as_ref().map(|index| &index.name), "index");
    Ok(())
}

fn check_damage(
    container: &dyn Container,
    plan: &PlannedWeights,
    files: &MemoryFiles,
) -> Result<(), TestCaseError> {
    for file in &plan.files {
        let whole = files.read(Path::new(&file.name), u64::MAX).ok().flatten().unwrap_or_default();
        let with = |bytes: Vec<u8>| {
            let mut files = files.clone();
            files.insert(&file.name, bytes);
            container.read(&files)
        };
        let header = file.header.len();
        for length in [0, 1, header / 2, whole.len() - 1] {
            let cut = with(whole[..length].to_vec());
            prop_assert!(cut.is_err(), "{} cut to {length} bytes is read", file.name);
        }
        let mut other = whole.clone();
        other[..header].fill(b'?');
        prop_assert!(with(other).is_err(), "{} with another header is read", file.name);
    }
    Ok(())
}

/// Files that note which of their bytes are read.
#[derive(Debug)]
struct Watched {
    files: MemoryFiles,
    read: Arc<Mutex<BTreeSet<(PathBuf, u64, u64)>>>,
}

impl Watched {
    fn touched(&self, name: &str, range: &Range<u64>) -> bool {
        let read = self.read.lock().expect("no reader panics");
        read.iter().any(|(file, start, end)| {
            file == Path::new(name) && *start < range.end && range.start < *end
        })
    }
}

impl Files for Watched {
    fn place(&self) -> &Path {
        self.files.place()
    }

    fn open(&self, name: &Path) -> Result<Option<Box<dyn ReadAt>>, Error> {
        let Some(file) = self.files.open(name)? else { return Ok(None) };
        let (name, read) = (name.to_owned(), Arc::clone(&self.read));
        Ok(Some(Box::new(WatchedFile { name, file, read })))
    }

    fn list(&self, folder: &Path) -> Result<Vec<FileEntry>, Error> {
        self.files.list(folder)
    }

    fn identity(&self, name: &Path) -> Result<FileIdentity, Error> {
        self.files.identity(name)
    }
}

#[derive(Debug)]
struct WatchedFile {
    name: PathBuf,
    file: Box<dyn ReadAt>,
    read: Arc<Mutex<BTreeSet<(PathBuf, u64, u64)>>>,
}

impl ReadAt for WatchedFile {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        let mut read = self.read.lock().expect("no reader panics");
        read.insert((self.name.clone(), range.start, range.end));
        self.file.read_at(range)
    }
}

/// One to twelve tensors of several types and shapes, in one file or in many.
fn requests() -> impl Strategy<Value = WeightRequest> {
    let dtype = prop::sample::select(vec![Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::U8]);
    let shape = prop::collection::vec(1usize..6, 0..4);
    let tensors = prop::collection::btree_map("[a-z.]{1,8}", (dtype, shape), 1..12);
    let limit = prop_oneof![1u64..40, Just(200), Just(u64::MAX)];
    (tensors, limit).prop_map(|(tensors, limit)| {
        let tensor = |(name, (dtype, shape))| PlannedTensor { name, dtype, shape };
        WeightRequest::new(tensors.into_iter().map(tensor).collect(), limit)
    })
}
