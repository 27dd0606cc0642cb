//! Files, folders and patterns.

use std::{fs, path::Path};

use moeprune_text::{Error, TextSet};

/// A folder with files of one word each.
fn folder(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    folder
}

/// The files that inputs of a folder name, then the notes.
fn found(folder: &Path, inputs: &[&str]) -> Result<String, Error> {
    let inputs: Vec<_> = inputs.iter().map(|input| folder.join(input)).collect();
    let set = TextSet::find(&inputs)?;
    let files = set.files().iter().map(|file| file.path().display().to_string());
    let lines: Vec<String> = files.chain(set.notes().iter().map(ToString::to_string)).collect();
    Ok(lines.join("\n").replace(&format!("{}/", folder.display()), ""))
}

#[test]
fn files_folders_and_patterns() {
    let folder = folder(&["b/2.txt", "b/1.txt", "b/c/3.txt", "a.txt", "d.jsonl.txt"]);
    let found = |inputs: &[&str]| found(folder.path(), inputs).unwrap();
    assert_eq!(found(&["b/2.txt", "a.txt"]), "b/2.txt\na.txt");
    assert_eq!(found(&["b"]), "b/1.txt\nb/2.txt\nb/c/3.txt");
    assert_eq!(found(&["b", "a.txt"]), "b/1.txt\nb/2.txt\nb/c/3.txt\na.txt");
    assert_eq!(found(&["*.txt"]), "a.txt\nd.jsonl.txt");
    assert_eq!(found(&["b/?.txt"]), "b/1.txt\nb/2.txt");
    assert_eq!(found(&["**/[13].txt"]), "b/1.txt\nb/c/3.txt");
    assert_eq!(found(&["b*"]), "b/1.txt\nb/2.txt\nb/c/3.txt");
}

#[test]
fn a_file_is_read_once() {
    let folder = folder(&["a.txt", "b/1.txt"]);
    let found = |inputs: &[&str]| found(folder.path(), inputs).unwrap();
    assert_eq!(found(&["a.txt", "a.txt"]), "a.txt\na.txt is named twice and read once");
    assert_eq!(found(&["b", "b/1.txt"]), "b/1.txt\nb/1.txt is named twice and read once");
    assert_eq!(
        found(&["b/../a.txt", "a.txt"]),
        "b/../a.txt\na.txt is the same file as b/../a.txt and read once"
    );
    fs::hard_link(folder.path().join("a.txt"), folder.path().join("b/2.txt")).unwrap();
    assert_eq!(
        found(&["a.txt", "b"]),
        "a.txt\nb/1.txt\nb/2.txt is the same file as a.txt and read once"
    );
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_circles_end() {
    use std::os::unix::fs::symlink;

    let folder = folder(&["blobs/x", "data/1.txt"]);
    symlink("../blobs/x", folder.path().join("data/2.txt")).unwrap();
    symlink("..", folder.path().join("data/up")).unwrap();
    let found = found(folder.path(), &["data"]).unwrap();
    assert_eq!(
        found,
        "data/1.txt\ndata/2.txt\ndata/up/blobs/x is the same file as data/2.txt and read once\ndata/up/data is the same file as data and read once"
    );
    symlink("nowhere", folder.path().join("data/3.txt")).unwrap();
    let message = TextSet::find(&[folder.path().join("data")]).unwrap_err().to_string();
    assert!(message.contains("data/3.txt: No such file"), "{message}");
}

#[test]
fn what_lies_beside_data_is_left_out() {
    let folder = folder(&[
        ".git/config",
        ".gitattributes",
        "README.md",
        "LICENSE",
        "dataset_infos.json",
        "readme_1.txt",
        "a.txt",
    ]);
    let found = found(folder.path(), &[""]).unwrap();
    let files: Vec<_> = found.lines().filter(|line| !line.ends_with("describes data")).collect();
    assert_eq!(files, ["a.txt", "readme_1.txt"]);
    assert_eq!(found.lines().count(), 7);
    let readme = TextSet::find(&[folder.path().join("README.md")]).unwrap();
    assert_eq!(readme.files().len(), 1, "a file that is named is read");
}

#[test]
fn what_is_not_there_is_named() {
    let folder = folder(&["a/README.md", "b/c.txt"]);
    fs::create_dir(folder.path().join("none")).unwrap();
    fs::write(folder.path().join("b/image.png"), b"\x89PNG\r\n\x1a\n\0\0").unwrap();
    let said = [&["x.txt"][..], &["none"], &["a"], &["*.jsonl"], &["a/*"], &["[x"], &["b"]].map(
        |inputs| {
            let message = found(folder.path(), inputs).unwrap_err().to_string();
            message.replace(&folder.path().display().to_string(), "FOLDER")
        },
    );
    insta::assert_snapshot!(said.join("\n"));
}
