//! Where links in a folder of files may lead, and what cannot be read in one.
#![cfg(unix)] // makes symbolic links

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use moeprune_files::{Access, FileKind, Files, Links, LocalFiles, Reading};
use tempfile::TempDir;

/// A folder `model`, and beside it `elsewhere/file`.
fn place() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let model = root.path().join("model");
    fs::create_dir_all(&model).unwrap();
    fs::create_dir(root.path().join("elsewhere")).unwrap();
    fs::write(root.path().join("elsewhere/file"), "elsewhere").unwrap();
    (root, model)
}

fn read(model: &Path, reading: impl Into<Reading>, name: &str) -> Result<String, String> {
    let files = LocalFiles::open(model, reading).unwrap();
    let name = Path::new(name);
    let file = files.open(name).map_err(|e| e.to_string())?.ok_or("is not there")?;
    let opened = String::from_utf8(file.read_at(0..file.len()).unwrap().into_owned()).unwrap();
    let read = files.read(name, 1000).unwrap().unwrap();
    assert_eq!(opened.as_bytes(), read);
    Ok(opened)
}

const FOLLOW: Reading = Reading { access: Access::MemoryMap, links: Links::Follow };
const FOLLOW_READ: Reading = Reading { access: Access::Read, links: Links::Follow };

/// A link that is followed only if the user says so.
#[track_caller]
fn check_outside(model: &Path, name: &str, content: &str) {
    for access in [Access::MemoryMap, Access::Read] {
        let error = read(model, access, name).unwrap_err();
        for part in ["outside of the model directory", "--follow-links", "copy or hard-link"] {
            assert!(error.contains(part), "no `{part}` in: {error}");
        }
    }
    for reading in [FOLLOW, FOLLOW_READ] {
        assert_eq!(read(model, reading, name).as_deref(), Ok(content));
    }
}

/// A name that leads to nothing that may be read, however links are treated.
#[track_caller]
fn check_refused(model: &Path, name: &str, expected: &str) {
    for reading in [FOLLOW, FOLLOW_READ, Access::MemoryMap.into(), Access::Read.into()] {
        let error = read(model, reading, name).unwrap_err();
        assert!(error.contains(expected), "no `{expected}` in: {error}");
    }
}

#[test]
fn links_out_of_the_folder_are_followed_if_the_user_says_so() {
    let (root, model) = place();
    symlink(root.path().join("elsewhere/file"), model.join("absolute")).unwrap();
    symlink("../elsewhere/file", model.join("relative")).unwrap();
    symlink("relative", model.join("link to a link")).unwrap();
    symlink("../elsewhere", model.join("folder")).unwrap();
    for name in ["absolute", "relative", "link to a link", "folder/file"] {
        check_outside(&model, name, "elsewhere");
    }
    let kinds = LocalFiles::open(&model, FOLLOW).unwrap().list(Path::new("")).unwrap();
    let folder = kinds.iter().find(|entry| entry.name == "folder").unwrap();
    assert_eq!(folder.kind, FileKind::LinkToFolder);
}

#[test]
fn names_lead_nowhere_by_themselves() {
    let (root, model) = place();
    let absolute = root.path().join("elsewhere/file");
    for name in ["../elsewhere/file", "./../elsewhere/file", absolute.to_str().unwrap()] {
        check_refused(&model, name, "outside of the model directory");
    }
    fs::write(model.join("file"), "here").unwrap();
    for reading in [FOLLOW, Access::Read.into()] {
        assert_eq!(read(&model, reading, "../model/file").as_deref(), Ok("here"));
        assert_eq!(read(&model, reading, "./file").as_deref(), Ok("here"));
    }
}

#[test]
fn what_is_no_file() {
    let (root, model) = place();
    symlink("nowhere", model.join("dangling")).unwrap();
    check_refused(&model, "dangling", "is a link to nowhere, which does not exist");
    symlink("b", model.join("a")).unwrap();
    symlink("a", model.join("b")).unwrap();
    check_refused(&model, "a", "is a link to b, which leads back to it");
    symlink("self", model.join("self")).unwrap();
    check_refused(&model, "self", "leads back to it");
    fs::create_dir(model.join("sub")).unwrap();
    check_refused(&model, "sub", "is not a regular file");
    symlink("sub", model.join("to sub")).unwrap();
    check_refused(&model, "to sub", "is not a regular file");
    let _socket = std::os::unix::net::UnixListener::bind(model.join("socket")).unwrap();
    check_refused(&model, "socket", "is not a regular file");
    let made = std::process::Command::new("mkfifo").arg(model.join("fifo")).status();
    if made.is_ok_and(|status| status.success()) {
        check_refused(&model, "fifo", "is not a regular file");
    }
    symlink("/dev/null", model.join("device")).unwrap();
    for reading in [FOLLOW, FOLLOW_READ] {
        assert!(read(&model, reading, "device").unwrap_err().contains("is not a regular file"));
    }
    drop(root);
}

/// A snapshot in a Hugging Face cache; `blobs` is made by the caller.
fn snapshot(root: &Path) -> (PathBuf, PathBuf) {
    let repository = root.join("hub/models--org--name");
    let snapshot = repository.join("snapshots/0123");
    fs::create_dir_all(snapshot.join("sub")).unwrap();
    (repository, snapshot)
}

#[test]
fn snapshots_lead_to_blobs() {
    let root = tempfile::tempdir().unwrap();
    let (repository, snapshot) = snapshot(root.path());
    fs::create_dir(repository.join("blobs")).unwrap();
    fs::write(repository.join("blobs/abc"), "blob").unwrap();
    symlink("../../blobs/abc", snapshot.join("file")).unwrap();
    symlink("../../../blobs/abc", snapshot.join("sub/file")).unwrap();
    for name in ["file", "sub/file"] {
        assert_eq!(read(&snapshot, Access::Read, name).as_deref(), Ok("blob"));
    }
    assert_eq!(read(&snapshot.join("sub"), Access::Read, "file").as_deref(), Ok("blob"));
    fs::write(root.path().join("hub/token"), "secret").unwrap();
    fs::write(repository.join("other"), "other").unwrap();
    for target in ["../../../token", "../../other", "../../../../hub/token"] {
        let link = snapshot.join("bad");
        symlink(target, &link).unwrap();
        assert!(read(&snapshot, Access::Read, "bad").unwrap_err().contains("--follow-links"));
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn blobs_on_another_disk() {
    let root = tempfile::tempdir().unwrap();
    let (repository, snapshot) = snapshot(root.path());
    let disk = root.path().join("disk/blobs of it");
    fs::create_dir_all(&disk).unwrap();
    fs::write(disk.join("abc"), "blob").unwrap();
    symlink(&disk, repository.join("blobs")).unwrap();
    symlink("../../blobs/abc", snapshot.join("file")).unwrap();
    assert_eq!(read(&snapshot, Access::MemoryMap, "file").as_deref(), Ok("blob"));
    // The whole cache behind a link, as by HF_HOME.
    symlink(root.path().join("hub"), root.path().join("cache")).unwrap();
    let linked = root.path().join("cache/models--org--name/snapshots/0123");
    assert_eq!(read(&linked, Access::Read, "file").as_deref(), Ok("blob"));
    fs::create_dir(disk.join("deeper")).unwrap();
    fs::write(disk.join("deeper/abc"), "deeper").unwrap();
    symlink("../../blobs/deeper/abc", snapshot.join("deeper")).unwrap();
    check_outside(&snapshot, "deeper", "deeper");
}

#[test]
fn a_link_called_blobs_elsewhere_is_none_of_a_cache() {
    let (root, model) = place();
    let snapshot = model.join("snapshots/0123");
    fs::create_dir_all(&snapshot).unwrap();
    symlink(root.path().join("elsewhere"), model.join("blobs")).unwrap();
    symlink("../../blobs/file", snapshot.join("file")).unwrap();
    check_outside(&snapshot, "file", "elsewhere");
}

#[test]
fn blobs_of_another_model_in_the_cache() {
    let root = tempfile::tempdir().unwrap();
    let (repository, snapshot) = snapshot(root.path());
    fs::create_dir(repository.join("blobs")).unwrap();
    for other in ["models--org--other", "datasets--org--other"] {
        let blobs = root.path().join("hub").join(other).join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("abc"), "blob").unwrap();
        symlink(blobs.join("abc"), snapshot.join(other)).unwrap();
    }
    assert_eq!(read(&snapshot, Access::Read, "models--org--other").as_deref(), Ok("blob"));
    check_outside(&snapshot, "datasets--org--other", "blob");
}

/// What was opened stays as it was when the link changes.
#[test]
fn a_link_that_is_changed_later() {
    let (root, model) = place();
    fs::write(model.join("a"), "first").unwrap();
    symlink("a", model.join("link")).unwrap();
    for access in [Access::MemoryMap, Access::Read] {
        let files = LocalFiles::open(&model, access).unwrap();
        let file = files.open(Path::new("link")).unwrap().unwrap();
        fs::remove_file(model.join("link")).unwrap();
        symlink(root.path().join("elsewhere/file"), model.join("link")).unwrap();
        assert_eq!(&*file.read_at(0..5).unwrap(), b"first");
        let mut local = file.local().unwrap().unwrap();
        assert_eq!(std::io::read_to_string(&mut local).unwrap(), "first");
        assert!(files.open(Path::new("link")).is_err());
        fs::remove_file(model.join("link")).unwrap();
        symlink("a", model.join("link")).unwrap();
    }
}
