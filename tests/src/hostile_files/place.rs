//! A model directory with a trap beside it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// A folder in memory where the system has one, with `model` and `outside` in it. Opening anything
/// below `outside` is noticed (on Linux).
#[derive(Debug)]
pub struct Place {
    root: TempDir,
    #[cfg(target_os = "linux")]
    watch: rustix::fd::OwnedFd,
}

impl Place {
    pub(super) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let root = tempfile::Builder::new().prefix("moeprune-hostile-").tempdir_in(parent);
        let root = root.expect("makes a folder");
        for folder in ["model", "outside"] {
            fs::create_dir(root.path().join(folder)).expect("makes a folder");
        }
        #[cfg(target_os = "linux")]
        let watch = watch(&root.path().join("outside"));
        Self {
            root,
            #[cfg(target_os = "linux")]
            watch,
        }
    }

    pub(super) fn model(&self) -> PathBuf {
        self.path("model")
    }

    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    pub(super) fn write(&self, relative: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        fs::write(&path, bytes).expect("writes");
        path
    }

    /// A link in the model directory to a path as it stands.
    #[cfg(unix)]
    pub(super) fn link(&self, name: &str, to: &str) {
        std::os::unix::fs::symlink(to, self.model().join(name)).expect("links");
    }

    #[cfg(not(unix))]
    pub(super) fn link(&self, _: &str, _: &str) {}

    /// Something in the model directory whose opening waits for ever.
    #[cfg(target_os = "linux")]
    pub(super) fn pipe(&self, name: &str) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, self.model().join(name), FileType::Fifo, mode, 0).expect("makes a pipe");
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn pipe(&self, _: &str) {}

    /// A message without the name of this folder.
    pub(super) fn redacted(&self, error: impl std::fmt::Display) -> String {
        error.to_string().replace(&self.root.path().display().to_string(), "DIR")
    }

    /// Whether something in `outside` was opened since the last call. Files written there by the
    /// set-up count, so call it once before anything is tried.
    #[cfg(target_os = "linux")]
    pub(super) fn was_left(&self) -> bool {
        let mut left = false;
        while rustix::io::read(&self.watch, &mut [0; 4096]).is_ok_and(|read| read > 0) {
            left = true;
        }
        left
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn was_left(&self) -> bool {
        false
    }

    pub(super) fn assert_not_left(&self) {
        assert!(!self.was_left(), "a file outside of the model directory was opened");
    }
}

#[cfg(target_os = "linux")]
fn watch(folder: &Path) -> rustix::fd::OwnedFd {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    let watch = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("inotify");
    add_watch(&watch, folder, WatchFlags::OPEN | WatchFlags::ACCESS).expect("watches");
    watch
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn reading_outside_is_noticed() {
        let place = Place::new();
        let path = place.write("outside/canary", "x");
        assert!(place.was_left());
        assert!(path.canonicalize().is_ok() && path.metadata().is_ok());
        assert!(!place.was_left());
        fs::read(path).expect("reads");
        assert!(place.was_left());
    }
}
