//! The conformance suites catch files, containers, sources and sinks that break their contract.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt, io,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use moeprune_checkpoint::{Container, Contents, PlannedWeights, Safetensors, WeightRequest};
use moeprune_core::{
    Dtype, LinearId, StageError, StoredRows, StoredWeight, TensorBytes, TensorId, TensorSink,
    TensorSource, encoding::Float,
};
use moeprune_files::{Error, FileEntry, FileIdentity, Files, MemoryFiles, ReadAt};
use moeprune_tests::conformance::{
    container, files,
    tensors::{Named, check_sink, check_source},
};

/// `suite` must panic, and say `message`.
#[track_caller]
fn caught(suite: impl FnOnce(), message: &str) {
    let payload = catch_unwind(AssertUnwindSafe(suite)).expect_err("the suite found nothing");
    let said = payload.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
    assert!(said.contains(message), "{said}");
}

/// What is wrong with [`BrokenFiles`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Order,
    Lengths,
    Missing,
    Outside,
    Has,
    Limits,
}

#[derive(Debug)]
struct BrokenFiles(Wrong, MemoryFiles);

impl Files for BrokenFiles {
    fn place(&self) -> &Path {
        self.1.place()
    }

    fn open(&self, name: &Path) -> Result<Option<Box<dyn ReadAt>>, Error> {
        let is_outside = name.is_absolute() || name.starts_with("..");
        match (self.0, self.1.open(name)) {
            (Wrong::Missing, Ok(None)) => self.1.open(Path::new("a")),
            (Wrong::Outside, _) if is_outside => self.1.open(Path::new("a")),
            (_, opened) => opened,
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<FileEntry>, Error> {
        let mut entries = self.1.list(folder)?;
        if self.0 == Wrong::Order {
            entries.reverse();
        }
        Ok(entries)
    }

    fn identity(&self, name: &Path) -> Result<FileIdentity, Error> {
        let identity = self.1.identity(name)?;
        let bytes = identity.bytes + u64::from(self.0 == Wrong::Lengths);
        Ok(FileIdentity { bytes, ..identity })
    }

    fn has(&self, name: &Path) -> Result<bool, Error> {
        Ok(self.0 != Wrong::Has && self.1.has(name)?)
    }

    fn read(&self, name: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let all = self.0 == Wrong::Limits;
        self.1.read(name, if all { u64::MAX } else { most })
    }
}

#[test]
fn files_that_break_their_contract() {
    let check = |wrong, message| {
        let mut memory = MemoryFiles::new("broken");
        memory.insert("a", "content");
        memory.insert("b", "");
        caught(|| files::check(&BrokenFiles(wrong, memory)), message);
    };
    check(Wrong::Order, "names are not in order");
    check(Wrong::Lengths, "bytes in the identity of \"a\"");
    check(Wrong::Missing, "does not open to None");
    check(Wrong::Outside, "leads out of the files");
    check(Wrong::Has, "is listed but not there");
    check(Wrong::Limits, "the first 0 bytes of \"a\"");
    caught(|| files::check(&MemoryFiles::new("empty")), "there are no files to look at");
}

/// An open file whose reading is a closure.
struct Reading<F>(F);

impl<F> fmt::Debug for Reading<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}

const CONTENT: &[u8] = b"0123456789";

impl<F> ReadAt for Reading<F>
where
    F: Fn(Range<usize>) -> io::Result<Vec<u8>> + Send + Sync,
{
    fn len(&self) -> u64 {
        CONTENT.len() as u64
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        (self.0)(range.start as usize..range.end as usize).map(Cow::Owned)
    }
}

fn eof<T>() -> io::Result<T> {
    Err(io::ErrorKind::UnexpectedEof.into())
}

#[test]
fn open_files_that_break_their_contract() {
    fn check<F>(read: F, message: &str)
    where
        F: Fn(Range<usize>) -> io::Result<Vec<u8>> + Send + Sync,
    {
        caught(|| files::check_open(&Reading(read), CONTENT), message);
    }
    check(|_| eof(), "0..0 of 10 bytes cannot be read");
    let clamped = |range: Range<usize>| {
        let end = range.end.min(CONTENT.len());
        Ok(CONTENT.get(range.start.min(end)..end).unwrap_or_default().to_vec())
    };
    check(clamped, "0..11 of 10 bytes is read");
    let get = |range: Range<usize>| CONTENT.get(range).map(<[u8]>::to_vec);
    check(move |range| get(range).ok_or_else(|| io::Error::other("no")), "kind of error");
    check(
        move |range| {
            get(range).map(|bytes| bytes.iter().map(|b| b + 1).collect()).map_or_else(eof, Ok)
        },
        "other bytes at 0..1",
    );
    let calls = AtomicU64::new(0);
    check(
        move |range| {
            let first = calls.fetch_add(1, Ordering::Relaxed) as u8;
            get(range).map(|bytes| bytes.iter().map(|_| first).collect()).map_or_else(eof, Ok)
        },
        "two calls differ",
    );
    caught(|| files::check_open(&Reading(move |r| get(r).map_or_else(eof, Ok)), b"0"), "length");
}

/// Leaves the memory of its caller as it is.
#[derive(Debug)]
struct Unfilled;

impl ReadAt for Unfilled {
    fn len(&self) -> u64 {
        CONTENT.len() as u64
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        self.check(&range)?;
        Ok(Cow::Borrowed(&CONTENT[range.start as usize..range.end as usize]))
    }

    fn read_into(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.check(&(at..at.saturating_add(bytes.len() as u64))).map(drop)
    }
}

#[test]
fn memory_that_is_not_filled() {
    caught(|| files::check_open(&Unfilled, CONTENT), "other bytes are read into memory at 0..1");
}

/// Safetensors with something wrong.
struct BrokenContainer<P, R> {
    plan: P,
    read: R,
    extension: &'static str,
}

impl<P, R> fmt::Debug for BrokenContainer<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BrokenContainer")
    }
}

type Planned = Result<PlannedWeights, moeprune_checkpoint::Error>;
type Read = Result<Contents, moeprune_checkpoint::Error>;

impl<P, R> Container for BrokenContainer<P, R>
where
    P: Fn(WeightRequest) -> Planned + Send + Sync,
    R: Fn(&dyn Files) -> Read + Send + Sync,
{
    fn name(&self) -> &'static str {
        "broken"
    }

    fn extension(&self) -> &'static str {
        self.extension
    }

    fn is_in(&self, files: &dyn Files) -> Result<bool, moeprune_checkpoint::Error> {
        Safetensors.is_in(files)
    }

    fn read(&self, files: &dyn Files) -> Read {
        (self.read)(files)
    }

    fn plan(&self, request: WeightRequest) -> Planned {
        (self.plan)(request)
    }
}

fn container_caught(
    plan: impl Fn(WeightRequest) -> Planned + Send + Sync,
    read: impl Fn(&dyn Files) -> Read + Send + Sync,
    message: &str,
) {
    let extension = "safetensors";
    caught(|| container::check(&BrokenContainer { plan, read, extension }), message);
}

#[test]
fn containers_that_plan_wrongly() {
    let read = |files: &dyn Files| Safetensors.read(files);
    let check = |plan: fn(WeightRequest) -> Planned, message| container_caught(plan, read, message);
    let changed = |change: fn(&mut PlannedWeights)| {
        move |request| {
            let mut plan = Safetensors.plan(request)?;
            change(&mut plan);
            Ok(plan)
        }
    };
    let twice = |mut request: WeightRequest| {
        request.tensors.sort_by(|a, b| a.name.cmp(&b.name));
        request.tensors.dedup_by(|a, b| a.name == b.name);
        Safetensors.plan(request)
    };
    check(twice, "a plan is made of a name twice");
    check(
        |request| Safetensors.plan(WeightRequest::new(request.tensors, u64::MAX)),
        "bytes of data",
    );
    container_caught(changed(|plan| plan.files[0].ranges[0].start = 0), read, "overlaps");
    container_caught(changed(|plan| plan.files[0].bytes -= 1), read, "ends before its last tensor");
    container_caught(changed(|plan| plan.files[0].header.push(b' ')), read, "overlaps");
    container_caught(
        changed(|plan| plan.files[0].tensors[0].name.push('x')),
        read,
        "tensors of the plan",
    );
    let calls = AtomicU64::new(0);
    let unsteady = move |request| {
        let mut plan = Safetensors.plan(request)?;
        plan.files[0].name = format!("{}.safetensors", calls.fetch_add(1, Ordering::Relaxed));
        Ok(plan)
    };
    container_caught(unsteady, read, "two calls differ");
    let plan = |request| Safetensors.plan(request);
    let extension = "gguf";
    caught(
        || container::check(&BrokenContainer { plan, read, extension }),
        "does not end in .gguf",
    );
}

#[test]
fn containers_that_read_wrongly() {
    let plan = |request| Safetensors.plan(request);
    let check = |read: fn(&dyn Files) -> Read, message| container_caught(plan, read, message);
    check(|_| Ok(Contents::default()), "it reads where nothing is");
    let reads_data = |files: &dyn Files| {
        let contents = Safetensors.read(files)?;
        for file in &contents.files {
            file.read(0..file.len())?;
        }
        Ok(contents)
    };
    check(reads_data, "is read to open it");
    let forgets = |files: &dyn Files| {
        let mut contents = Safetensors.read(files)?;
        contents.tensors.pop();
        Ok(contents)
    };
    check(forgets, "tensors read");
    let moves = |files: &dyn Files| {
        let mut contents = Safetensors.read(files)?;
        contents.tensors[0].range.start -= 1;
        Ok(contents)
    };
    check(moves, "range of");
    /// Takes a file that ends early for a longer one.
    fn trusting(files: &dyn Files) -> Read {
        Safetensors.read(files).or_else(|error| match error.to_string().contains("truncated") {
            true => Ok(Contents::default()),
            false => Err(error),
        })
    }
    check(trusting, "is read");
}

/// A source that is a closure.
struct Source<F>(F);

impl<F> TensorSource for Source<F>
where
    F: Fn(TensorId) -> Result<u8, String> + Send + Sync,
{
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        let value = f32::from((self.0)(id)?);
        Ok(StoredWeight::alone(TensorBytes::encode(Dtype::F32, [1], &[value])?)?)
    }
}

#[test]
fn sources_that_break_their_contract() {
    fn check<F>(source: F, message: &str)
    where
        F: Fn(TensorId) -> Result<u8, String> + Send + Sync,
    {
        let missing = TensorId::linear(7, LinearId::Router);
        caught(|| check_source(&Source(source), &[TensorId::Embedding], &[missing]), message);
    }
    check(|_| Ok(1), "there is a layer 7 router");
    check(|id| if id == TensorId::Embedding { Ok(1) } else { Err("?".into()) }, "does not name");
    check(|id| Err(id.to_string()), "cannot be read");
    let calls = AtomicU64::new(0);
    check(move |_| Ok(calls.fetch_add(1, Ordering::Relaxed) as u8), "two calls differ");
}

/// A source of one matrix, whose rows are read by a function.
struct Matrix(fn(Range<usize>, &mut [u8]) -> Result<(), StageError>, [usize; 2]);

impl TensorSource for Matrix {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        match id {
            TensorId::Embedding => {
                Ok(StoredWeight::alone(TensorBytes::new(Dtype::BF16, [2, 1], vec![1; 4])?)?)
            }
            _ => Err(format!("there is no {id}").into()),
        }
    }

    fn stored_rows(&self, _: TensorId) -> Result<Option<StoredRows<'_>>, StageError> {
        Ok(Some(StoredRows::new(Float::Bf16, self.1, self.0)))
    }
}

#[test]
fn rows_that_are_not_those_of_the_tensor() {
    let check = |source: Matrix, message| {
        let missing = TensorId::linear(7, LinearId::Router);
        caught(|| check_source(&source, &[TensorId::Embedding], &[missing]), message);
    };
    check(Matrix(|_, _| Ok(()), [2, 1]), "other rows 1..2");
    check(Matrix(|_, _| Ok(()), [1, 2]), "form of");
    check(Matrix(|_, _| Err("?".into()), [2, 1]), "rows 1..2 of embedding cannot be read");
}

/// A sink that keeps what it receives, and does something wrong.
struct Sink {
    announced: usize,
    held: Mutex<BTreeMap<String, TensorBytes<'static>>>,
    wrong: WrongSink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WrongSink {
    Nothing,
    TakesTwice,
    ReplacesAndFails,
    LooksFinished,
    InOrderOnly,
}

impl TensorSink for Sink {
    fn put(&mut self, name: &str, tensor: &TensorBytes<'_>) -> Result<(), StageError> {
        let mut held = self.held.lock().unwrap();
        let is_there = held.contains_key(name);
        if is_there && matches!(self.wrong, WrongSink::Nothing | WrongSink::LooksFinished) {
            return Err("is there".into());
        }
        let last = held.last_key_value();
        if self.wrong == WrongSink::InOrderOnly && last.is_some_and(|(last, _)| &**last >= name) {
            return Err("comes too late".into());
        }
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        let tensor = TensorBytes::new(dtype, shape, tensor.bytes().to_vec())?;
        held.insert(name.to_owned(), tensor);
        let fails = is_there && self.wrong == WrongSink::ReplacesAndFails;
        if fails { Err("is there".into()) } else { Ok(()) }
    }
}

#[test]
fn sinks_that_break_their_contract() {
    let suite = |wrong| {
        check_sink(
            |tensors: &[Named]| Sink { announced: tensors.len(), held: Mutex::default(), wrong },
            |sink| {
                let held: Vec<Named> = sink.held.into_inner().unwrap().into_iter().collect();
                let finished = held.len() == sink.announced || wrong == WrongSink::LooksFinished;
                finished.then_some(held).ok_or_else(|| "some are missing".to_owned())
            },
        );
    };
    suite(WrongSink::Nothing);
    caught(|| suite(WrongSink::TakesTwice), "is taken twice");
    caught(|| suite(WrongSink::ReplacesAndFails), "what it holds");
    caught(|| suite(WrongSink::LooksFinished), "it is finished without");
    caught(|| suite(WrongSink::InOrderOnly), "is not taken: comes too late");
}
