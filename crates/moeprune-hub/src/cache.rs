//! Where the cache is, and what is in it.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// What the name of a model's folder in the cache begins with; slashes of its name are two hyphens there.
const MODEL: &str = "models--";

/// The cache in which the tools of Hugging Face keep what they download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    place: PathBuf,
}

/// A model of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct CachedModel {
    /// Its name: `org/name`, or `name` of an old one.
    pub repository: String,
    /// The bytes of its files, of all revisions and unfinished downloads.
    pub bytes: u64,
}

impl Cache {
    /// The cache of this process: `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or in the folder `huggingface` of the user's
    /// cache, as the tools of Hugging Face find it. `None` if no variable says where, and the user has no home.
    #[must_use]
    pub fn of_process() -> Option<Self> {
        Self::located_by(&|name| env::var_os(name))
    }

    /// As [`of_process`](Self::of_process), by variables of an environment.
    #[must_use]
    pub fn located_by(environment: &dyn Fn(&str) -> Option<OsString>) -> Option<Self> {
        let variable = |name| environment(name).filter(|value| !value.is_empty());
        let home = || variable(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        let path = |value: OsString| from_home(PathBuf::from(value), home);
        let folder = |name| variable(name).and_then(path);
        let place =
            folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE")).or_else(|| {
                let of_tools = folder("HF_HOME").or_else(|| {
                    let of_user = folder("XDG_CACHE_HOME");
                    let of_user = of_user.or_else(|| Some(Path::new(&home()?).join(".cache")));
                    Some(of_user?.join("huggingface"))
                });
                Some(of_tools?.join("hub"))
            });
        place.map(Self::at)
    }

    /// The cache in a folder.
    #[must_use]
    pub fn at(place: impl Into<PathBuf>) -> Self {
        Self { place: place.into() }
    }

    /// The folder, which may be missing.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The models in it, by name. What cannot be read is none.
    #[must_use]
    pub fn models(&self) -> Vec<CachedModel> {
        let entries = fs::read_dir(&self.place).into_iter().flatten().flatten();
        let mut models: Vec<CachedModel> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let repository = name.to_str()?.strip_prefix(MODEL)?.replace("--", "/");
                let folder = entry.path();
                folder.is_dir().then(|| CachedModel { repository, bytes: size_of_blobs(&folder) })
            })
            .collect();
        models.sort_by(|a, b| a.repository.cmp(&b.repository));
        models
    }
}

/// A path that begins with `~` in the user's home; `None` if there is none.
fn from_home(path: PathBuf, home: impl Fn() -> Option<OsString>) -> Option<PathBuf> {
    match path.strip_prefix("~") {
        Ok(below) => Some(Path::new(&home()?).join(below)),
        Err(_) => Some(path),
    }
}

/// The bytes of a model's files. Where links are not used they are in the snapshots, which are then counted.
fn size_of_blobs(folder: &Path) -> u64 {
    let files = |folder: &Path| -> u64 {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let metadata = entries.filter_map(|entry| entry.path().symlink_metadata().ok());
        metadata.filter(|metadata| metadata.is_file()).map(|metadata| metadata.len()).sum()
    };
    let snapshots = fs::read_dir(folder.join("snapshots")).into_iter().flatten().flatten();
    files(&folder.join("blobs")) + snapshots.map(|entry| files(&entry.path())).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(environment: &[(&str, &str)], expected: Option<&str>) {
        let of = |name: &str| {
            environment.iter().find(|(is, _)| *is == name).map(|(_, value)| OsString::from(value))
        };
        let found = Cache::located_by(&of);
        assert_eq!(found, expected.map(Cache::at), "{environment:?}");
    }

    #[cfg(unix)]
    #[test]
    fn places_are_those_of_the_tools() {
        let home = ("HOME", "/u");
        check(&[], None);
        check(&[home], Some("/u/.cache/huggingface/hub"));
        check(&[home, ("XDG_CACHE_HOME", "/c")], Some("/c/huggingface/hub"));
        check(&[home, ("HF_HOME", "/h")], Some("/h/hub"));
        check(&[home, ("HF_HOME", "~/h")], Some("/u/h/hub"));
        check(&[home, ("HF_HOME", "~")], Some("/u/hub"));
        check(&[home, ("HF_HOME", "~h")], Some("~h/hub"));
        check(&[home, ("HF_HOME", "/h"), ("HF_HUB_CACHE", "/b")], Some("/b"));
        check(&[home, ("HF_HUB_CACHE", ""), ("HF_HOME", "")], Some("/u/.cache/huggingface/hub"));
        check(&[("HUGGINGFACE_HUB_CACHE", "old")], Some("old"));
        check(&[("HUGGINGFACE_HUB_CACHE", "old"), ("HF_HUB_CACHE", "new")], Some("new"));
        check(&[("HF_HOME", "~/h")], None);
    }

    #[test]
    fn models_with_their_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: usize| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; bytes]).unwrap();
        };
        write("models--b--model/blobs/1", 10);
        write("models--b--model/blobs/2.incomplete", 5);
        write("models--a--model/snapshots/c/config.json", 3);
        write("datasets--a--b/blobs/1", 100);
        write("version.txt", 1);
        write("models--file", 1);
        let found = Cache::at(folder.path()).models();
        let found: Vec<_> = found.iter().map(|m| (m.repository.as_str(), m.bytes)).collect();
        assert_eq!(found, [("a/model", 3), ("b/model", 15)]);
        assert!(Cache::at(folder.path().join("missing")).models().is_empty());
    }
}
