//! What [`Files`] and [`ReadAt`] promise.

use std::{
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use moeprune_files::{FileKind, Files, ReadAt};

use super::pure;

/// Holds a set of files to its contract, with the files that are in it:
///
/// * a list has each name once, in order, each a name and not a path;
/// * a file that is listed is there, and opens to the length that its identity has;
/// * it gives the same bytes each time and from any thread; a file's beginning is what reading it
///   up to a limit returns;
/// * an open file keeps to the contract of [`ReadAt`], see [`check_open`];
/// * nothing is not there: it opens to `None`, and has no identity;
/// * no name leads out of the set.
///
/// # Panics
/// If one of these is broken, or there are no files to look at.
pub fn check(files: &dyn Files) {
    let mut seen = 0;
    check_folder(files, Path::new(""), &mut seen);
    assert!(seen > 0, "there are no files to look at");
    check_missing(files, Path::new("no file has this name"));
    check_missing(files, Path::new("no folder/has this name"));
    for outside in ["..", "../x", "a/../../x", "/", "/etc/passwd", "/dev/null"] {
        let opened = files.open(Path::new(outside)).ok().flatten();
        assert!(opened.is_none(), "`{outside}` leads out of the files");
    }
    for outside in ["..", "/", "/etc", "no folder has this name"] {
        assert!(files.list(Path::new(outside)).is_err(), "`{outside}` is listed");
    }
}

fn check_folder(files: &dyn Files, folder: &Path, seen: &mut usize) {
    let entries = files.list(folder).unwrap_or_else(|e| panic!("cannot list {folder:?}: {e}"));
    let names: Vec<_> = entries.iter().map(|entry| &entry.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "names are not in order: {names:?}");
    for entry in &entries {
        assert_eq!(Path::new(&entry.name).components().count(), 1, "{:?} is a path", entry.name);
        let name = folder.join(&entry.name);
        assert!(files.has(&name).expect("looks"), "{name:?} is listed but not there");
        match entry.kind {
            FileKind::Folder => check_folder(files, &name, seen),
            FileKind::LinkToFolder => {}
            // A link that leads out of the set cannot be opened.
            FileKind::File => {
                if let Ok(file) = files.open(&name) {
                    let file = file.unwrap_or_else(|| panic!("{name:?} is listed but not there"));
                    check_file(files, &name, &*file);
                    *seen += 1;
                }
            }
        }
    }
}

fn check_file(files: &dyn Files, name: &Path, file: &dyn ReadAt) {
    let identity = pure(|| files.identity(name).map_err(|e| e.to_string()));
    let identity = identity.expect("is the same each time").expect("can be looked at");
    assert_eq!(identity.name, name.to_string_lossy(), "name in an identity");
    assert_eq!(identity.bytes, file.len(), "bytes in the identity of {name:?}");
    let bytes = pure(|| file.read_at(0..file.len()).expect("reads").into_owned());
    let bytes = bytes.expect("is the same each time");
    check_open(file, &bytes);
    let length = bytes.len() as u64;
    for most in [0, 1, length / 2, length, length + 1, u64::MAX] {
        let read = files.read(name, most).expect("reads");
        let expected = &bytes[..most.min(length) as usize];
        assert_eq!(read.as_deref(), Some(expected), "the first {most} bytes of {name:?}");
    }
}

fn check_missing(files: &dyn Files, name: &Path) {
    assert!(matches!(files.open(name), Ok(None)), "{name:?} does not open to None");
    assert!(matches!(files.read(name, 9), Ok(None)), "{name:?} does not read as None");
    assert!(files.identity(name).is_err(), "{name:?} has an identity");
    assert!(!files.has(name).unwrap_or(false), "{name:?} is there");
}

/// Holds an open file to its contract, given its content:
///
/// * it has the length of the content, and each range has exactly its bytes;
/// * a range that is reversed or ends behind the end is an error of the kind
///   [`ErrorKind::UnexpectedEof`], at any size;
/// * what is read into memory of the caller is the same, and fails in the same way;
/// * the file of this machine that it names, if any, has the same bytes at the same places.
///
/// # Panics
/// If one of these is broken.
pub fn check_open(file: &dyn ReadAt, content: &[u8]) {
    let length = content.len() as u64;
    assert_eq!(file.len(), length, "length");
    for (start, end) in ranges(length) {
        let read = pure(|| file.read_at(start..end).map_err(|e| e.kind()));
        let read = read.expect("is the same each time");
        let inside = start <= end && end <= length;
        match read {
            Ok(bytes) => {
                assert!(inside, "{start}..{end} of {length} bytes is read");
                let expected = &content[start as usize..end as usize];
                assert!(bytes == expected, "other bytes at {start}..{end}");
            }
            Err(kind) => {
                assert!(!inside, "{start}..{end} of {length} bytes cannot be read: {kind}");
                assert_eq!(kind, ErrorKind::UnexpectedEof, "kind of error at {start}..{end}");
            }
        }
    }
    for (start, end) in ranges(length).into_iter().filter(|(start, end)| start <= end) {
        check_read_into(file, content, start, end);
    }
    if let Some(mut local) = file.local().expect("opens") {
        let mut bytes = Vec::new();
        local.seek(SeekFrom::Start(0)).expect("seeks");
        local.read_to_end(&mut bytes).expect("reads");
        assert!(bytes == content, "the file of this machine has other bytes");
    }
}

/// As many bytes as a short range has are filled with those of the range.
fn check_read_into(file: &dyn ReadAt, content: &[u8], start: u64, end: u64) {
    let most = content.len() as u64 + 1;
    let Some(length) = (end - start <= most).then_some((end - start) as usize) else { return };
    // What is not written shows.
    let mut bytes: Vec<u8> = content.iter().cycle().take(length).map(|byte| !byte).collect();
    bytes.resize(length, 0);
    match (file.read_into(start, &mut bytes), content.get(start as usize..end as usize)) {
        (Ok(()), Some(expected)) => {
            assert!(bytes == expected, "other bytes are read into memory at {start}..{end}");
        }
        (Err(error), None) => {
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "kind of error from {start} on");
        }
        (read, _) => panic!("{length} bytes from {start} on, read into memory: {read:?}"),
    }
}

/// Ranges in, around and far behind so many bytes.
fn ranges(length: u64) -> Vec<(u64, u64)> {
    let ends =
        [0, 1, 7, length / 2, length.saturating_sub(1), length, length + 1, 1 << 62, u64::MAX];
    ends.iter().flat_map(|&start| ends.iter().map(move |&end| (start, end))).collect()
}
