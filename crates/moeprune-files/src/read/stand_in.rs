//! What stands where a file should be.

use std::fmt;

/// What was checked out, or saved by a download, in the place of a file.
///
/// ```
/// use moeprune_files::StandIn;
///
/// let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 7\n";
/// let found = StandIn::of(pointer).expect("a pointer");
/// assert_eq!(
///     format!("model.safetensors {found}"),
///     "model.safetensors is a git-lfs pointer and not the file itself; fetch it with `git lfs pull`"
/// );
/// assert_eq!(StandIn::of(b"{}"), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StandIn {
    /// Nothing at all: a download that failed, or a full disk.
    Nothing,
    /// The text that git-lfs leaves until the file is fetched.
    GitLfsPointer,
    /// The text that git-annex leaves until the file is fetched.
    GitAnnexPointer,
    /// A page that a server sent in place of the file, most often one to log in or of an error.
    WebPage,
    /// A line that a server sent in place of the file.
    ServerError,
}

impl StandIn {
    /// So many of a file's first bytes are enough to tell.
    pub const BYTES: usize = 256;

    /// What a file is in the place of, by its first [`BYTES`](Self::BYTES), or all of a shorter one; `None` if
    /// it is like none of these. For files that cannot be empty and are no web pages themselves.
    #[must_use]
    pub fn of(beginning: &[u8]) -> Option<Self> {
        if beginning.is_empty() {
            return Some(Self::Nothing);
        }
        if let Some(pointer) = Self::pointer(beginning) {
            return Some(pointer);
        }
        let text = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning).trim_ascii_start();
        let begins = |with: &&[u8]| {
            text.get(..with.len()).is_some_and(|text| text.eq_ignore_ascii_case(with))
        };
        if [&b"<!doctype html"[..], b"<html", b"<head"].iter().any(begins) {
            return Some(Self::WebPage);
        }
        let lines: [&[u8]; 4] = [
            b"Entry not found",
            b"Repository not found",
            b"Invalid username or password",
            b"Access to model ",
        ];
        lines.iter().any(begins).then_some(Self::ServerError)
    }

    /// As [`of`](Self::of), for files of any content: only what tools leave until they fetch a file.
    #[must_use]
    pub fn pointer(beginning: &[u8]) -> Option<Self> {
        let lfs: [&[u8]; 2] = [
            b"version https://git-lfs.github.com/spec/",
            b"version https://hawser.github.com/spec/",
        ];
        if lfs.iter().any(|lfs| beginning.starts_with(lfs)) {
            return Some(Self::GitLfsPointer);
        }
        let annex: [&[u8]; 2] = [b"/annex/objects/", b"../.git/annex/objects/"];
        annex.iter().any(|annex| beginning.starts_with(annex)).then_some(Self::GitAnnexPointer)
    }
}

impl fmt::Display for StandIn {
    /// What it is and what to do, to follow the file's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "is empty (0 bytes); download it again",
            Self::GitLfsPointer => {
                "is a git-lfs pointer and not the file itself; fetch it with `git lfs pull`"
            }
            Self::GitAnnexPointer => {
                "is a git-annex pointer and not the file itself; fetch it with `git annex get`"
            }
            Self::WebPage => {
                "is a web page (HTML) that a server sent in place of the file; download it again, \
                 logged in if the model is gated"
            }
            Self::ServerError => {
                "is what a server answered in place of the file; download it again, logged in if \
                 the model is gated"
            }
        })
    }
}
