//! Where a path leads.

use std::{
    fs::{self, Metadata},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::{Error, descriptor};

/// What is at the end of a path, links followed one by one.
#[derive(Debug)]
pub(crate) enum Place {
    /// A descriptor of this process, and a path that opens it.
    Descriptor(u32, PathBuf),
    /// A descriptor of another process.
    Foreign(PathBuf, Metadata),
    /// Something that is there, and is no link.
    There(PathBuf, Metadata),
    /// Nothing, under this path.
    Nothing(PathBuf),
    /// Nothing, and a link leads there.
    Dangling(PathBuf),
}

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;

impl Place {
    pub(crate) fn of(path: &Path) -> Result<Self, Error> {
        let look = |at: &Path| at.symlink_metadata().map_err(Error::io("look at", path));
        let mut at = path.to_owned();
        for followed in 0..=MOST_LINKS {
            if let Some(number) = descriptor::own(&at) {
                return Ok(Self::Descriptor(number, at));
            }
            let metadata = match at.symlink_metadata() {
                Err(e) if e.kind() == ErrorKind::NotFound && followed == 0 => {
                    return Ok(Self::Nothing(at));
                }
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self::Dangling(at)),
                _ => look(&at)?,
            };
            if !metadata.is_symlink() {
                return Ok(Self::There(at, metadata));
            }
            if descriptor::is_any(&at) {
                let metadata = at.metadata().map_err(Error::io("look at", path))?;
                return Ok(Self::Foreign(at, metadata));
            }
            let target = fs::read_link(&at).map_err(Error::io("follow", path))?;
            at = at.parent().unwrap_or_else(|| Path::new("")).join(target);
        }
        Err(Error::place(path, "it is a link that leads to itself"))
    }
}

/// The absolute path of something that may not exist, links of what exists resolved.
pub(crate) fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for existing in absolute.ancestors() {
        if let Ok(real) = existing.canonicalize() {
            let rest = absolute.strip_prefix(existing).unwrap_or_else(|_| Path::new(""));
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    absolute
}
