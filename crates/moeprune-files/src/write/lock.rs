//! A lock for file systems that have none: a file that says who made it.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use super::names::LOCK;

const LOCK_LIMIT: u64 = 4096;

/// A lock file of this process, removed when dropped.
#[derive(Debug)]
pub(super) struct LockFile(PathBuf);

/// What came of trying to make a lock file.
#[derive(Debug)]
pub(super) enum Attempt {
    /// It is this process's.
    Taken(LockFile),
    /// A process has it, described in words, that lives or of which nothing can be found out from here.
    Held(String),
}

impl LockFile {
    /// Makes the lock file of a folder. One whose process is gone is removed first.
    pub(super) fn take(folder: &Path) -> io::Result<Attempt> {
        let path = folder.join(LOCK);
        for _ in 0..100 {
            match make(folder, &path) {
                Ok(()) => return Ok(Attempt::Taken(Self(path))),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
            match holder(&path)? {
                None => {}
                Some((text, State::Gone)) => remove_left(folder, &path, &text)?,
                Some((text, State::Alive)) => return Ok(Attempt::Held(described(&text))),
                Some((text, State::Unknown)) => {
                    return Ok(Attempt::Held(format!(
                        "{}; if it runs no more, remove {}",
                        described(&text),
                        path.display()
                    )));
                }
            }
        }
        Ok(Attempt::Held("locks appear and disappear".to_owned()))
    }

    /// Who has a folder by a lock file, unless that process is gone: where this process can lock the marker,
    /// another machine may not have been able to.
    pub(super) fn other_holder(folder: &Path) -> io::Result<Option<String>> {
        let path = folder.join(LOCK);
        Ok(match holder(&path)? {
            None => None,
            Some((text, State::Gone)) => {
                remove_left(folder, &path, &text)?;
                None
            }
            Some((text, State::Alive | State::Unknown)) => {
                Some(format!("{}; if it runs no more, remove {}", described(&text), path.display()))
            }
        })
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // One that stays is of a process that is gone, which the next one finds out.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes a file that has its name only when it is whole, if nothing has that name.
fn make(folder: &Path, path: &Path) -> io::Result<()> {
    let text = Owner::this().text();
    let mut whole = tempfile::Builder::new().prefix(LOCK).tempfile_in(folder)?;
    whole.write_all(text.as_bytes())?;
    match fs::hard_link(whole.path(), path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(e),
        Err(_) => {
            // Not every file system has links.
            let mut file = File::options().write(true).create_new(true).open(path)?;
            file.write_all(text.as_bytes())
        }
        Ok(()) => Ok(()),
    }
}

/// What a lock file says, and what has become of the process; `None` if there is none.
fn holder(path: &Path) -> io::Result<Option<(String, State)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut text = Vec::new();
    file.take(LOCK_LIMIT).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let state = Owner::parse(&text).map_or(State::Unknown, |owner| owner.state(&Owner::this()));
    Ok(Some((text, state)))
}

/// Removes the lock file of a process that is gone, but not one that another process has made since.
fn remove_left(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    let aside = tempfile::Builder::new().prefix(LOCK).tempfile_in(folder)?;
    match fs::rename(path, aside.path()) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    if fs::read(aside.path())? != text.as_bytes() {
        let _ = aside.keep().map(|(_, other)| crate::rename_to_new(&other, path));
    }
    Ok(())
}

fn described(text: &str) -> String {
    match Owner::parse(text) {
        None => "an unknown process".to_owned(),
        Some(owner) if owner.host == Owner::this().host => format!("process {}", owner.process),
        Some(owner) => format!("process {} on {}", owner.process, owner.host),
    }
}

/// A process, so that another one on the same machine can tell whether it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    process: u32,
    host: String,
    /// Changes when the machine is started again; empty where the system does not tell.
    boot: String,
    /// Among which processes the number counts: containers have their own.
    space: String,
    /// When the process began, in the system's ticks: numbers are used again.
    started: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Alive,
    Gone,
    Unknown,
}

impl Owner {
    fn this() -> Self {
        let process = std::process::id();
        let said = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            process,
            host: host(),
            boot: said("/proc/sys/kernel/random/boot_id"),
            space: space.to_string_lossy().into_owned(),
            started: started(process).unwrap_or_default(),
        }
    }

    fn text(&self) -> String {
        let Self { process, host, boot, space, started } = self;
        format!("process {process}\nhost {host}\nboot {boot}\nspace {space}\nstarted {started}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut value = |key: &str| -> Option<String> {
            let rest = lines.next()?.strip_prefix(key)?;
            Some(rest.strip_prefix(' ').unwrap_or(rest).to_owned())
        };
        Some(Self {
            process: value("process")?.parse().ok()?,
            host: value("host")?,
            boot: value("boot")?,
            space: value("space")?,
            started: value("started")?,
        })
    }

    /// What has become of it, as far as the process `here` can tell.
    fn state(&self, here: &Self) -> State {
        if self.host != here.host || self.boot.is_empty() || here.boot.is_empty() {
            return State::Unknown;
        }
        if self.boot != here.boot {
            return State::Gone;
        }
        if self.space != here.space || here.started.is_empty() {
            return State::Unknown;
        }
        match started(self.process) {
            Some(started) if started == self.started => State::Alive,
            _ => State::Gone,
        }
    }
}

/// When a process of this machine began; `None` if there is none, or the system does not tell.
fn started(process: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may have spaces; what comes behind it does not.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    // One that has ended and was not waited for holds nothing any more.
    let state = fields.next().filter(|state| !matches!(*state, "Z" | "X"));
    state.and_then(|_| fields.nth(18)).map(str::to_owned)
}

/// The name of this machine; empty where the system does not tell it in a file.
fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    fn held(folder: &Path) -> String {
        match LockFile::take(folder).unwrap() {
            Attempt::Held(by) => by,
            Attempt::Taken(_) => panic!("was free"),
        }
    }

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let Attempt::Taken(first) = LockFile::take(folder).unwrap() else { panic!("is held") };
        assert_eq!(names(folder), 1);
        assert!(held(folder).starts_with(&format!("process {}", std::process::id())));
        assert!(LockFile::other_holder(folder).unwrap().is_some());
        drop(first);
        assert_eq!(names(folder), 0);
        assert!(LockFile::other_holder(folder).unwrap().is_none());
        assert!(matches!(LockFile::take(folder).unwrap(), Attempt::Taken(_)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn processes_that_are_gone() {
        let here = Owner::this();
        let check = |change: &dyn Fn(&mut Owner), expected: State| {
            let mut other = here.clone();
            change(&mut other);
            assert_eq!(Owner::parse(&other.text()).as_ref(), Some(&other));
            assert_eq!(other.state(&here), expected, "{other:?}");
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(LOCK), other.text()).unwrap();
            let taken = matches!(LockFile::take(folder.path()).unwrap(), Attempt::Taken(_));
            assert_eq!(taken, expected == State::Gone, "{other:?}");
        };
        check(&|_| (), State::Alive);
        check(&|other| other.started = "1".into(), State::Gone);
        check(&|other| other.process = u32::MAX, State::Gone);
        check(&|other| other.boot = "other".into(), State::Gone);
        check(&|other| other.host = "other".into(), State::Unknown);
        check(&|other| other.space = "other".into(), State::Unknown);
        check(&|other| other.boot = String::new(), State::Unknown);
    }

    #[test]
    fn anything_may_be_in_a_lock_file() {
        for text in ["", "process", "process x\nhost\n", "\u{0}\u{0}", &"x".repeat(100_000)] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(LOCK), text).unwrap();
            let by = held(folder.path());
            assert!(by.contains("an unknown process") && by.contains("remove"), "{by}");
            assert_eq!(names(folder.path()), 1);
        }
    }

    #[test]
    fn many_threads_take_turns() {
        let folder = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        if let Attempt::Taken(lock) = LockFile::take(folder.path()).unwrap() {
                            use std::sync::atomic::Ordering::SeqCst;
                            assert_eq!(inside.fetch_add(1, SeqCst), 0);
                            inside.fetch_sub(1, SeqCst);
                            drop(lock);
                        }
                    }
                });
            }
        });
        assert_eq!(names(folder.path()), 0);
    }
}
