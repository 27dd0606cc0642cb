//! Models in several files.

use std::path::Path;

use moeprune_core::Dtype;
use moeprune_files::MemoryFiles;
use moeprune_gguf::{Entries, Header, NewTensor, SplitName, Value, open_set};

use crate::made::check_refused;

/// What a file says of its set, and its tensor.
#[derive(Clone, Copy)]
struct Part {
    number: u16,
    count: u16,
    tensors: Option<i32>,
    tensor: Option<&'static str>,
}

fn bytes(part: Part) -> Vec<u8> {
    let mut entries = Entries::new();
    entries.push("split.no", Value::U16(part.number)).unwrap();
    entries.push("split.count", Value::U16(part.count)).unwrap();
    if let Some(tensors) = part.tensors {
        entries.push("split.tensors.count", Value::I32(tensors)).unwrap();
    }
    let tensor =
        |name: &str| NewTensor { name: name.to_owned(), dtype: Dtype::F32, shape: vec![8] };
    let header = Header::new(3, entries, part.tensor.map(tensor).into_iter().collect()).unwrap();
    let mut file = header.to_bytes();
    file.resize(header.data_end() as usize, 0);
    file
}

/// Three files of a set, of which the first has no tensors.
fn parts() -> [Part; 3] {
    let part = |number, tensor| Part { number, count: 3, tensors: Some(2), tensor };
    [part(0, None), part(1, Some("a")), part(2, Some("b"))]
}

fn name(number: usize) -> String {
    format!("sub/m-{number:05}-of-00003.gguf")
}

fn files(parts: &[Part]) -> MemoryFiles {
    let mut files = MemoryFiles::new("model");
    for (number, &part) in (1..).zip(parts) {
        files.insert(name(number), bytes(part));
    }
    files
}

#[test]
fn a_set_is_opened_in_order() {
    let set = open_set(&files(&parts()), Path::new(&name(1))).unwrap();
    let names: Vec<&str> = set.iter().map(|file| file.name.to_str().unwrap()).collect();
    assert_eq!(names, [name(1), name(2), name(3)]);
    let tensors = set.iter().flat_map(|file| file.header.tensors());
    assert_eq!(tensors.map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let uncounted = parts().map(|part| Part { tensors: None, ..part });
    assert_eq!(open_set(&files(&uncounted), Path::new(&name(1))).unwrap().len(), 3);
}

#[test]
fn one_file_is_a_set_of_any_name() {
    let mut files = MemoryFiles::new("model");
    files.insert("any", bytes(Part { number: 0, count: 1, tensors: Some(1), tensor: Some("a") }));
    assert_eq!(open_set(&files, Path::new("any")).unwrap().len(), 1);
}

#[test]
fn sets_that_are_not_whole() {
    let check = |change: fn(&mut Vec<Part>), first: &str, expected: &str| {
        let mut parts = parts().to_vec();
        change(&mut parts);
        check_refused(open_set(&files(&parts), Path::new(first)), expected);
    };
    let first = &name(1);
    check(|_| (), "none.gguf", "model/none.gguf: is missing; download it");
    check(|parts| parts.truncate(2), first, "model/sub/m-00003-of-00003.gguf: is missing");
    check(|_| (), &name(2), "is not the first of 3 files; name m-00001-of-00003.gguf");
    let wrong = "m-00002-of-00003.gguf: says split.no 2, split.count 3, split.tensors.count 2, expected split.no 1";
    check(|parts| parts.swap(1, 2), first, wrong);
    check(|parts| parts[2].count = 4, first, "says split.no 2, split.count 4");
    check(|parts| parts[2].count = 1, first, "m-00003-of-00003.gguf: says that it stands alone");
    check(|parts| parts[0].count = 4, first, "expected a name like NAME-00001-of-00004.gguf");
    check(|parts| parts[0].number = 1, first, "m-00001-of-00003.gguf: says split.no 1");
    check(|parts| parts[1].tensors = Some(3), first, "m-00002-of-00003.gguf: says split.no 1");
    check(|parts| parts[1].tensors = Some(-1), first, "key `split.tensors.count`: is I32(-1)");
    check(
        |parts| parts[2].tensor = Some("a"),
        first,
        "tensor `a` is in sub/m-00002-of-00003.gguf too",
    );
    check(|parts| parts[2].tensor = None, first, "the 3 files have 1 tensors, expected 2");
}

#[test]
fn files_of_a_set_that_cannot_be_read() {
    let mut files = files(&parts());
    files.insert(name(2), "GGML");
    let expected = "model/sub/m-00002-of-00003.gguf: no GGUF file";
    check_refused(open_set(&files, Path::new(&name(1))), expected);
    let mut renamed = MemoryFiles::new("model");
    renamed.insert("m.gguf", bytes(parts()[0]));
    let expected = "model/m.gguf: says that it is one of 3 files, expected a name like NAME-00001-of-00003.gguf";
    check_refused(open_set(&renamed, Path::new("m.gguf")), expected);
}

#[test]
fn names_are_read_and_written() {
    let check = |name: &str, expected: Option<(&str, u64, u64)>| {
        let got = SplitName::of(name);
        let parts = got.as_ref().map(|got| (got.prefix.as_str(), got.number, got.count));
        assert_eq!(parts, expected, "{name}");
        if let Some(got) = got {
            assert_eq!(got.to_string(), name);
        }
    };
    check("m-00002-of-00003.gguf", Some(("m", 2, 3)));
    check("a-00001-of-00002-00002-of-00009.gguf", Some(("a-00001-of-00002", 2, 9)));
    check("m-100000-of-200000.gguf", Some(("m", 100_000, 200_000)));
    check("m-2-of-3.gguf", None);
    check("m-00002-of-00003.bin", None);
    check("m-+0002-of-00003.gguf", None);
    check("m.gguf", None);
    check("m-99999999999999999999-of-00003.gguf", None);
}
