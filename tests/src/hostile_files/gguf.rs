//! A GGUF file.

use std::path::Path;

use moeprune_core::Dtype;
use moeprune_files::MemoryFiles;
use moeprune_gguf::{Entries, Header, NewTensor, TensorInfo, Value, ValueType, open_set};

use super::{Target, bounded};

const FIRST: &str = "m-00001-of-00002.gguf";
const SECOND: &str = "m-00002-of-00002.gguf";

/// A GGUF file, alone or as the first of two.
#[derive(Debug)]
pub struct Gguf {
    second: Vec<u8>,
}

impl Target for Gguf {
    const NAME: &'static str = "gguf";

    fn new() -> Self {
        Self { second: file(of_set(1), vec![tensor("b", Dtype::F32, &[8])]) }
    }

    fn valid(&self) -> Vec<(&'static str, Vec<u8>)> {
        let q4 = Dtype::from_ggml(2).expect("known");
        let tensors = vec![tensor("a", Dtype::F32, &[3]), tensor("experts", q4, &[2, 3, 32])];
        let first = file(of_set(0), tensors.clone());
        vec![("one", file(one_of_each(), tensors)), ("split", first)]
    }

    fn run(&self, bytes: &[u8]) -> Result<(), String> {
        let mut files = MemoryFiles::new("DIR");
        files.insert(FIRST, bytes);
        files.insert(SECOND, &self.second[..]);
        let length = bytes.len() + self.second.len();
        let set = bounded(length, || open_set(&files, Path::new(FIRST)));
        let header = &set.map_err(|error| error.to_string())?[0].header;
        look_through(header, bytes);
        written_back(header, bytes);
        laid_out_again(header);
        Ok(())
    }
}

/// Every value is as long as it says, and every tensor is in the file, apart from the others.
fn look_through(header: &Header, bytes: &[u8]) {
    let values = header.entries().iter().map(|(_, value)| check_value(value)).count();
    assert_eq!(values, header.entries().len());
    let mut tensors: Vec<&TensorInfo> = header.tensors().iter().collect();
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    let mut end = header.data_start();
    for tensor in tensors {
        assert!(tensor.range.start >= end, "{tensor:?} before {end}");
        end = tensor.range.end;
        let size = tensor.dtype.bytes_of_shape(&tensor.shape).expect("has a size") as u64;
        assert_eq!(end - tensor.range.start, size);
    }
    assert!(header.tensors().is_empty() || end <= bytes.len() as u64);
}

fn check_value(value: Value<'_>) {
    if let Value::Array(array) = value {
        assert_eq!(array.iter().map(check_value).count(), array.len());
    }
}

/// The same bytes, but for padding.
fn written_back(header: &Header, bytes: &[u8]) {
    let written = header.to_bytes();
    assert_eq!(written.len() as u64, header.data_start());
    let padding = header.alignment() as usize - 1;
    let same = written.len().saturating_sub(padding).min(bytes.len());
    assert_eq!(&written[..same], &bytes[..same]);
    let rest = written[same..].iter().zip(&bytes[same..]);
    assert!(rest.into_iter().all(|(written, read)| written == read || *written == 0));
}

/// Other offsets, the same tensors. Padding may make the size of an unknown type uncertain.
fn laid_out_again(header: &Header) {
    let tensors =
        header.tensors().iter().map(|known| tensor(&known.name, known.dtype, &known.shape));
    let again = Header::new(header.version(), header.entries().clone(), tensors.collect());
    let again = again.expect("it was read");
    let mut file = again.to_bytes();
    file.resize(again.data_end() as usize, 0);
    let mut files = MemoryFiles::new("DIR");
    files.insert(FIRST, file);
    files.insert(SECOND, "");
    let read = moeprune_files::Files::open(&files, Path::new(FIRST)).expect("in memory");
    match Header::read(&*read.expect("is there")) {
        Ok(read) => assert_eq!(read, again),
        Err(error) => assert!(error.to_string().contains("more than one size"), "{error}"),
    }
}

fn of_set(number: u16) -> Entries {
    let mut entries = Entries::new();
    let known = [("split.no", Value::U16(number)), ("split.count", Value::U16(2))];
    for (key, value) in known.into_iter().chain([("split.tensors.count", Value::I32(3))]) {
        entries.push(key, value).expect("keys differ");
    }
    entries
}

/// A key of each kind of value.
fn one_of_each() -> Entries {
    let mut entries = Entries::new();
    let values = [
        ("general.architecture", Value::String(b"llama")),
        ("general.alignment", Value::U32(32)),
        ("llama.expert_count", Value::U8(2)),
        ("a", Value::I8(-1)),
        ("b", Value::F64(0.5)),
        ("c", Value::Bool(true)),
        ("d", Value::U64(1)),
    ];
    for (key, value) in values {
        entries.push(key, value).expect("keys differ");
    }
    let tokens = [Value::String(b"x"), Value::String(b"")];
    entries.push_array("tokens", ValueType::String, &tokens).expect("strings");
    let scores = [Value::F32(1.0), Value::F32(2.0)];
    entries.push_array("scores", ValueType::F32, &scores).expect("numbers");
    let mut inner = Entries::new();
    inner.push_array("scores", ValueType::F32, &scores).expect("numbers");
    let inner = inner.get("scores").expect("was pushed");
    entries.push_array("nested", ValueType::Array, &[inner, inner]).expect("arrays");
    entries
}

fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> NewTensor {
    NewTensor { name: name.to_owned(), dtype, shape: shape.to_vec() }
}

fn file(entries: Entries, tensors: Vec<NewTensor>) -> Vec<u8> {
    let header = Header::new(3, entries, tensors).expect("is right");
    let mut file = header.to_bytes();
    file.resize(header.data_end() as usize, 7);
    file
}
