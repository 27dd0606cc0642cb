//! What a place may be, and what becomes of it.
#![cfg(unix)]

use std::{
    fs,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use moeprune_files::{Error, OutputKind, RunFiles};
use tempfile::TempDir;

const EARLIER: &str = r#"{"task":"gsm8k","n":1,"fewshot":5,"answers":[]}"#;
const KIND: OutputKind = OutputKind::Evaluation;

/// A folder with a model, an input beside it, and an earlier evaluation.
fn scratch() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("m/sub")).unwrap();
    for name in ["m/config.json", "m/sub/notes", "data", "other", "blob"] {
        fs::write(path(name), name).unwrap();
    }
    for name in ["earlier", "m/earlier", "also-data"] {
        fs::write(path(name), EARLIER).unwrap();
    }
    let report = r#"{"format":1,"tool":"moeprune 0.1.0","model":{},"sparsity":{},"layers":[],"stages":[],"recipe":{}}"#;
    fs::write(path("m/moeprune-report.json"), report).unwrap();
    fs::write(path("empty"), "").unwrap();
    symlink("../blob", path("m/weights")).unwrap();
    symlink("earlier", path("link")).unwrap();
    symlink("m/config.json", path("link-to-config")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    symlink("loop", path("loop")).unwrap();
    fs::hard_link(path("data"), path("hard")).unwrap();
    mkfifo(&path("fifo"));
    folder
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn files(folder: &Path) -> RunFiles {
    let mut files = RunFiles::new();
    files.reads_model(folder.join("m"));
    files.reads_all(["data", "also-data", "not-there"].map(|name| folder.join(name)));
    files.makes(folder.join("out"));
    files
}

/// Every file below a folder, links as what they lead to.
fn contents(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let metadata = entry.symlink_metadata().unwrap();
        if metadata.is_dir() {
            found.extend(contents(&entry));
        } else if metadata.is_symlink() {
            found.push((entry.clone(), fs::read_link(&entry).unwrap().display().to_string()));
        } else if metadata.is_file() {
            found.push((entry.clone(), fs::read_to_string(&entry).unwrap()));
        }
    }
    found.sort();
    found
}

/// A place is refused with these words, and nothing changes.
fn refused(name: &str, kind: OutputKind, expected: &str) {
    let folder = scratch();
    let before = contents(folder.path());
    let error = files(folder.path()).claim("--json", &folder.path().join(name), kind);
    let error = error.err().unwrap_or_else(|| panic!("{name} was not refused")).to_string();
    assert!(error.contains(expected), "{name}: `{expected}` is not in: {error}");
    assert_eq!(contents(folder.path()), before, "{name}");
}

#[test]
fn what_is_refused() {
    let input = "it is an input of this run; choose another name for --json";
    let check = |name, expected| refused(name, KIND, expected);
    for name in [
        "data",
        "also-data",
        "hard",
        "m/../data",
        "m/config.json",
        "link-to-config",
        "m/sub/notes",
        "m/weights",
        "blob",
        "m/moeprune-report.json",
    ] {
        check(name, input);
    }
    refused("m/moeprune-report.json", OutputKind::Report, input);
    check("other", "it exists and is not an earlier evaluation");
    check("empty", "it exists and is not an earlier evaluation");
    refused("earlier", OutputKind::Comparison, "is not an earlier comparison");
    refused("earlier", OutputKind::Plan, "it exists; remove it");
    check("dangling", "nowhere, which does not exist");
    check("loop", "a link that leads to itself");
    check("m", "it is a folder");
    check("new/", "no name of a file");
    check("", "it is a folder");
    check("missing/new", "make it first");
    check("data/new", "Not a directory");
    refused(&"n".repeat(300), KIND, "name too long");
    check("out", "something that this run makes");
}

#[test]
fn a_socket_is_refused() {
    let folder = scratch();
    let path = folder.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = files(folder.path()).claim("--json", &path, KIND).unwrap_err().to_string();
    assert!(error.contains("it is a socket"), "{error}");
}

/// A place is accepted, and `at` then holds what was written.
fn written(name: &str, at: &str) {
    let folder = scratch();
    let destination =
        files(folder.path()).claim("--json", &folder.path().join(name), KIND).unwrap();
    let before = contents(folder.path());
    assert!(destination.is_file());
    destination.write(|file| file.write_all(b"new")).unwrap();
    let at = folder.path().join(at);
    let mut expected: Vec<_> = before.into_iter().filter(|(path, _)| *path != at).collect();
    expected.push((at, "new".to_owned()));
    expected.sort();
    assert_eq!(contents(folder.path()), expected, "{name}");
}

#[test]
fn what_is_written() {
    written("new", "new");
    written(&"n".repeat(255), &"n".repeat(255));
    written("earlier", "earlier");
    written("link", "earlier");
    written("m/new", "m/new");
    written("m/earlier", "m/earlier");
    written("m/sub/../../new", "new");
}

#[test]
fn a_fifo_is_written_into() {
    let folder = scratch();
    let path = folder.path().join("fifo");
    let destination = files(folder.path()).claim("--json", &path, OutputKind::Plan).unwrap();
    assert!(!destination.is_file());
    let inode = path.metadata().unwrap().ino();
    let reader = {
        let path = path.clone();
        thread::spawn(move || fs::read_to_string(path).unwrap())
    };
    destination.write(|file| file.write_all(b"new")).unwrap();
    assert_eq!(reader.join().unwrap(), "new");
    // A reader that goes away is no error.
    let reader = {
        let path = path.clone();
        thread::spawn(move || fs::File::open(path).unwrap().read(&mut [0]).unwrap())
    };
    destination.write(|file| file.write_all(&vec![0; 1 << 20])).unwrap();
    reader.join().unwrap();
    assert_eq!(path.metadata().unwrap().ino(), inode);
    let mut files = files(folder.path());
    files.reads(&path);
    mkfifo(&folder.path().join("m/fifo"));
    for path in [&path, &folder.path().join("m/fifo")] {
        let error = files.claim("--json", path, KIND).unwrap_err().to_string();
        assert!(error.contains("an input"), "{error}");
    }
}

#[test]
fn a_descriptor_is_written_into() {
    let folder = scratch();
    let path = folder.path().join("open");
    let check = |open: fs::File, expected: Result<&str, &str>| {
        use std::os::fd::AsRawFd as _;
        let name = PathBuf::from(format!("/dev/fd/{}", open.as_raw_fd()));
        let claimed = files(folder.path()).claim("--json", &name, KIND);
        let written = claimed.and_then(|claimed| claimed.write(|file| file.write_all(b"new")));
        match expected {
            Ok(text) => {
                written.unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), text);
            }
            Err(reason) => {
                let error = written.unwrap_err().to_string();
                assert!(error.contains(reason), "{error}");
            }
        }
    };
    fs::write(&path, "old ").unwrap();
    let inode = path.metadata().unwrap().ino();
    check(fs::File::options().append(true).open(&path).unwrap(), Ok("old new"));
    assert_eq!(path.metadata().unwrap().ino(), inode);
    if cfg!(target_os = "linux") {
        check(fs::File::open(&path).unwrap(), Err("open for reading only"));
    }
    let config = folder.path().join("m/config.json");
    check(fs::File::options().append(true).open(config).unwrap(), Err("an input of this run"));
    let error = files(folder.path()).claim("--json", Path::new("/dev/fd/987654"), KIND);
    assert!(error.unwrap_err().to_string().contains("is not open"));
}

#[test]
fn two_outputs_do_not_share_a_place() {
    let folder = scratch();
    symlink(".", folder.path().join("here")).unwrap();
    for (first, second) in
        [("new", "new"), ("new", "here/new"), ("earlier", "link"), ("fifo", "here/fifo")]
    {
        let mut files = files(folder.path());
        files.claim("--json", &folder.path().join(first), KIND).unwrap();
        let error = files.claim("--html", &folder.path().join(second), KIND).unwrap_err();
        assert!(error.to_string().contains("--json goes there too"), "{first} {second}: {error}");
    }
    let mut files = files(folder.path());
    files.claim("--json", &folder.path().join("a"), KIND).unwrap();
    files.claim("--html", &folder.path().join("b"), KIND).unwrap();
}

#[test]
fn what_appears_meanwhile_is_not_replaced() {
    let folder = scratch();
    let path = folder.path().join("new");
    let destination = files(folder.path()).claim("--json", &path, KIND).unwrap();
    fs::write(&path, "somebody's").unwrap();
    let error = destination.write(|file| file.write_all(b"new")).unwrap_err().to_string();
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    let kept = error.split_once("the result is in ").unwrap().1;
    assert_eq!(fs::read_to_string(kept).unwrap(), "new");
    fs::write(&path, EARLIER).unwrap();
    destination.write(|file| file.write_all(b"newer")).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "newer");
}

#[test]
fn what_fails_leaves_nothing_behind() {
    let folder = scratch();
    let before = contents(folder.path());
    let destination =
        files(folder.path()).claim("--json", &folder.path().join("new"), KIND).unwrap();
    let full = || Err(std::io::ErrorKind::StorageFull.into());
    let error = destination.write(|_| full()).unwrap_err();
    assert!(
        matches!(error, Error::Io { .. }) && error.to_string().contains("make room"),
        "{error}"
    );
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn what_cannot_be_written_is_found_before() {
    let folder = scratch();
    let locked = folder.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    for name in ["earlier", "fifo"] {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o444)).unwrap();
    }
    if fs::write(locked.join("probe"), "").is_ok() {
        return eprintln!("skipped: this user may write anything");
    }
    for (name, expected) in
        [("locked/new", "cannot create a file in"), ("earlier", "denied"), ("fifo", "denied")]
    {
        let error = files(folder.path()).claim("--json", &folder.path().join(name), KIND);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

/// A report in another model's folder says what was done to that model.
#[test]
fn reports_stay_beside_their_model() {
    let folder = scratch();
    fs::create_dir(folder.path().join("other-model")).unwrap();
    for name in ["config.json", "moeprune-report.json"] {
        fs::copy(folder.path().join("m").join(name), folder.path().join("other-model").join(name))
            .unwrap();
    }
    let place = folder.path().join("other-model/moeprune-report.json");
    let refused = files(folder.path()).claim("--json", &place, OutputKind::Report).unwrap_err();
    assert!(refused.to_string().contains("the report of the model beside it"), "{refused}");
}

#[test]
fn the_hidden_folder_of_what_is_made_is_taken() {
    let folder = scratch();
    fs::create_dir(folder.path().join(".out.moeprune-partial")).unwrap();
    let place = folder.path().join(".out.moeprune-partial/scores");
    let refused = files(folder.path()).claim("--json", &place, KIND).unwrap_err();
    assert!(refused.to_string().contains("this run makes"), "{refused}");
}

#[test]
fn a_descriptor_and_its_file_are_one_place() {
    let folder = scratch();
    let earlier = folder.path().join("earlier");
    let open = fs::OpenOptions::new().append(true).open(&earlier).unwrap();
    let descriptor = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
    let mut files = files(folder.path());
    files.claim("--json", Path::new(&descriptor), KIND).unwrap();
    let refused = files.claim("--html", &earlier, KIND).unwrap_err();
    assert!(refused.to_string().contains("--json goes there too"), "{refused}");
}

#[cfg(target_os = "linux")]
#[test]
fn descriptors_of_other_processes_lead_to_no_file() {
    let folder = scratch();
    let earlier = fs::File::open(folder.path().join("earlier")).unwrap();
    let mut other = Command::new("sleep").arg("20").stdin(earlier).spawn().unwrap();
    let place = format!("/proc/{}/fd/0", other.id());
    let refused = files(folder.path()).claim("--json", Path::new(&place), KIND);
    other.kill().unwrap();
    other.wait().unwrap();
    let refused = refused.unwrap_err();
    assert!(refused.to_string().contains("name the file itself"), "{refused}");
}

/// Names of unfinished files cannot be guessed, so that neither links nor other runs are in the way.
#[test]
fn unfinished_files_take_new_names() {
    let folder = scratch();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let place = folder.path().join("earlier");
        let destination = files(folder.path()).claim("--json", &place, KIND).unwrap();
        destination
            .write(|file| {
                let hidden = |name: &String| name.ends_with(".unfinished");
                let names = fs::read_dir(folder.path())?
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap());
                seen.extend(names.filter(hidden));
                file.write_all(EARLIER.as_bytes())
            })
            .unwrap();
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "{seen:?}");
    let mode = fs::metadata(folder.path().join("earlier")).unwrap().permissions().mode();
    assert_eq!(mode & 0o600, 0o600);
}
