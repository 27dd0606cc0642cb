//! Copies and writes of many bytes.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use moeprune_files::{Stretch, Transfers, copy_bytes};
use proptest::prelude::*;

/// Folders on file systems of different kinds: a disk's, and one in memory.
fn folders() -> Vec<tempfile::TempDir> {
    let places = [std::env::temp_dir(), PathBuf::from("/dev/shm")];
    let places = places.iter().filter(|place| place.is_dir());
    places.filter_map(|place| tempfile::tempdir_in(place).ok()).collect()
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 / 3 + i / 4096) as u8).collect()
}

/// Writes a file and opens it for reading.
fn source(folder: &Path, name: &str, content: &[u8]) -> File {
    fs::write(folder.join(name), content).expect("writes");
    File::open(folder.join(name)).expect("opens")
}

/// A file of ones to write into.
fn target(folder: &Path, bytes: usize) -> File {
    fs::write(folder.join("to"), vec![1; bytes]).expect("writes");
    File::options().write(true).open(folder.join("to")).expect("opens")
}

/// Copies ranges of a file to places of another, one after the other behind `gap` bytes each.
#[track_caller]
fn check_copy(folder: &Path, transfers: &mut Transfers, ranges: &[(usize, usize)], gap: usize) {
    let content = content(ranges.iter().map(|(at, bytes)| at + bytes).max().unwrap_or(0));
    let from = source(folder, "from", &content);
    let (mut stretches, mut expected) = (Vec::new(), Vec::new());
    for &(at, bytes) in ranges {
        expected.resize(expected.len() + gap, 1);
        let to_at = expected.len() as u64;
        stretches.push(Stretch { from: &from, from_at: at as u64, to_at, bytes: bytes as u64 });
        expected.extend(&content[at..at + bytes]);
    }
    expected.extend([1; 5000]);
    let to = target(folder, expected.len());
    let mut copied = 0;
    transfers.copy(&stretches, &to, &mut |bytes| copied += bytes).expect("copies");
    assert_eq!(copied, stretches.iter().map(|stretch| stretch.bytes).sum::<u64>());
    assert!(fs::read(folder.join("to")).expect("reads") == expected, "{ranges:?} {gap}");
}

#[test]
fn stretches_of_any_alignment() {
    let mut cases = vec![
        vec![],
        vec![(0, 0)],
        vec![(0, 1)],
        vec![(3, 4096)],
        vec![(0, 8192), (8192, 1), (8193, 0), (8193, 20_000)],
        vec![(9000, 70_000), (5, 3), (100_000, 50_001)],
        vec![(1, 3 << 20)],
        vec![(4095, (4 << 20) + 2), (0, 4 << 20), (7, (1 << 20) - 1)],
    ];
    cases.push((0..300).map(|i| (i * 5000, 4999 - i)).collect());
    for folder in folders() {
        for ranges in &cases {
            for gap in [0, 1, 4096] {
                check_copy(folder.path(), &mut Transfers::default(), ranges, gap);
            }
        }
    }
}

#[test]
fn every_way_gives_the_same_bytes() {
    // So many bytes that each way is tried.
    for folder in folders() {
        let mut transfers = Transfers::default();
        for round in 0..3 {
            check_copy(folder.path(), &mut transfers, &[(round, 130 << 20), (5, 9 << 20)], 2);
        }
    }
}

#[test]
fn copies_between_file_systems() {
    let folders = folders();
    let content = content((5 << 20) + 1);
    for (from, to) in folders.iter().zip(folders.iter().skip(1)) {
        let (a, b) = (source(from.path(), "a", &content), source(to.path(), "b", &content));
        let bytes = content.len() as u64;
        let stretches = [
            Stretch { from: &a, from_at: 0, to_at: 0, bytes },
            Stretch { from: &b, from_at: 0, to_at: bytes, bytes },
        ];
        let into = target(to.path(), 0);
        Transfers::default().copy(&stretches, &into, &mut |_| ()).expect("copies");
        let written = fs::read(to.path().join("to")).expect("reads");
        assert!(written == [&content[..], &content].concat());
    }
}

#[test]
fn writes_from_memory() {
    for folder in folders() {
        let mut transfers = Transfers::default();
        for bytes in [0, 1, 4096, (1 << 20) + 1, 9 << 20, 100 << 20] {
            for at in [0, 3, 4096] {
                let content = content(bytes);
                let to = target(folder.path(), at);
                transfers.write(&content, &to, at as u64).expect("writes");
                let written = fs::read(folder.path().join("to")).expect("reads");
                assert!(written == [&vec![1; at], &content[..]].concat(), "{bytes} at {at}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_stretches(
        ranges in prop::collection::vec((0..3_000_000_usize, 0..2_000_000_usize), 0..6),
        gap in 0..5000_usize,
    ) {
        let folder = tempfile::tempdir().expect("temporary directory");
        check_copy(folder.path(), &mut Transfers::default(), &ranges, gap);
    }
}

fn failure(from_bytes: usize, to: impl FnOnce(&Path) -> File, bytes: u64) -> io::Error {
    let dir = tempfile::tempdir().expect("temporary directory");
    let from = source(dir.path(), "a", &vec![0; from_bytes]);
    copy_bytes((&from, 5), (&to(dir.path()), 0), bytes, &mut |_| ()).expect_err("fails")
}

#[test]
fn a_file_that_ends_early() {
    let create = |dir: &Path| File::create(dir.join("b")).expect("creates");
    for bytes in [10, 5 << 20, 100 << 20] {
        let error = failure(bytes, create, bytes as u64 - 4);
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{bytes}");
    }
}

#[test]
fn a_target_that_cannot_be_written() {
    let read_only = |dir: &Path| source(dir, "b", b"");
    for bytes in [10, 5 << 20, 100 << 20] {
        let error = failure(bytes, read_only, bytes as u64 - 5);
        assert_ne!(error.kind(), ErrorKind::UnexpectedEof, "{bytes}");
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    for bytes in [1, 40 << 20] {
        assert!(Transfers::default().write(&vec![0; bytes], &read_only(dir.path()), 0).is_err());
    }
}

#[test]
fn a_full_disk() {
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    for bytes in [1, 5 << 20, 40 << 20] {
        let error = Transfers::default().write(&vec![0; bytes], &full, 0).expect_err("is full");
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{bytes}");
    }
}

#[test]
fn a_caller_that_panics_leaves_no_thread_waiting() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let from = source(dir.path(), "a", &vec![0; 60 << 20]);
    let to = target(dir.path(), 0);
    let copied = std::panic::catch_unwind(|| {
        copy_bytes((&from, 0), (&to, 0), 60 << 20, &mut |_| panic!("as a caller may"))
    });
    assert!(copied.is_err());
}
