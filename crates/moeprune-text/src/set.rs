//! Files of text by what a user names: files, folders and patterns.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use glob::MatchOptions;

use crate::{detect::ReadOptions, error::Error, file::TextFile};

/// Several files of text, each of them once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextSet {
    files: Vec<TextFile>,
    notes: Vec<Note>,
}

/// Why a file that was found is not among those that are read. Shown as a sentence without its full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A file that lies beside data sets and is no data: a README, a licence, a list of what is there; or a hidden one.
    LeftOut {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file that was found before, under this name or another.
    Again {
        /// The file.
        path: PathBuf,
        /// How it was found before.
        before: PathBuf,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftOut { path } => {
                write!(f, "{} is not read: it is hidden, or describes data", path.display())
            }
            Self::Again { path, before } if path == before => {
                write!(f, "{} is named twice and read once", path.display())
            }
            Self::Again { path, before } => {
                write!(
                    f,
                    "{} is the same file as {} and read once",
                    path.display(),
                    before.display()
                )
            }
        }
    }
}

impl TextSet {
    /// The files that `inputs` name, in this order: a file; a folder, with all that it has below it, by name; or a pattern
    /// (`*`, `?`, `[…]`, `**` for folders), what it fits by name.
    ///
    /// In folders, and among what a pattern fits, hidden files and those that lie beside data sets are left out with a note. Every
    /// other file must be text.
    ///
    /// # Errors
    /// If an input is not there, a folder has or a pattern fits nothing that is read, or a file cannot be opened as text.
    pub fn find(inputs: &[PathBuf]) -> Result<Self, Error> {
        Self::find_with(inputs, &ReadOptions::default())
    }

    /// The files that `inputs` name, read as `options` say.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_with(inputs: &[PathBuf], options: &ReadOptions) -> Result<Self, Error> {
        let mut search = Search::default();
        for input in inputs {
            search.input(input)?;
        }
        let open = |path| TextFile::open_with(path, options);
        let files = search.files.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { files, notes: search.notes })
    }

    /// The files, in order.
    #[must_use]
    pub fn files(&self) -> &[TextFile] {
        &self.files
    }

    /// What was found and is not read.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

#[derive(Default)]
struct Search {
    files: Vec<PathBuf>,
    notes: Vec<Note>,
    /// Files and folders that were found, by what they are, and how.
    found: BTreeMap<Identity, PathBuf>,
}

impl Search {
    fn input(&mut self, input: &Path) -> Result<(), Error> {
        let pattern = || input.to_str().filter(|text| text.contains(['*', '?', '[']));
        match input.metadata() {
            Ok(metadata) if metadata.is_dir() => match self.folder(input)? {
                0 => Err(Error::NothingThere { path: input.to_owned(), there: listing(input)? }),
                _ => Ok(()),
            },
            Ok(_) => self.file(input).map(drop),
            Err(source) => match pattern() {
                Some(pattern) => self.pattern(pattern),
                None => Err(Error::Read { path: input.to_owned(), source }),
            },
        }
    }

    fn pattern(&mut self, pattern: &str) -> Result<(), Error> {
        let bad = |reason: String| Error::Pattern { pattern: pattern.to_owned(), reason };
        let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
        let fitting = glob::glob_with(pattern, options).map_err(|e| bad(e.msg.to_owned()))?;
        let fitting: Result<Vec<PathBuf>, _> = fitting.collect();
        let mut fitting =
            fitting.map_err(|e| Error::Read { path: e.path().to_owned(), source: e.into() })?;
        fitting.sort();
        let mut read = 0;
        for path in &fitting {
            read += self.entry(path)?;
        }
        match read {
            0 => Err(bad("fits no file that is read".to_owned())),
            _ => Ok(()),
        }
    }

    /// Takes what is below a folder; how many files that are.
    fn folder(&mut self, folder: &Path) -> Result<usize, Error> {
        if !self.is_new(folder)? {
            return Ok(1);
        }
        let mut read = 0;
        for path in entries(folder)? {
            read += self.entry(&path)?;
        }
        Ok(read)
    }

    /// Takes an entry of a folder unless it is none that is read; how many files that are.
    fn entry(&mut self, path: &Path) -> Result<usize, Error> {
        if is_beside_data(path) {
            self.notes.push(Note::LeftOut { path: path.to_owned() });
            return Ok(0);
        }
        match path.is_dir() {
            true => self.folder(path),
            false => self.file(path),
        }
    }

    fn file(&mut self, path: &Path) -> Result<usize, Error> {
        if self.is_new(path)? {
            self.files.push(path.to_owned());
        }
        Ok(1)
    }

    /// Whether a file or folder was not found before; notes it if it was.
    fn is_new(&mut self, path: &Path) -> Result<bool, Error> {
        let identity =
            identity(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let Some(before) = self.found.insert(identity, path.to_owned()) else { return Ok(true) };
        self.notes.push(Note::Again { path: path.to_owned(), before });
        Ok(false)
    }
}

/// What a name stands for, whichever name or link it is.
type Identity = (u64, u64, PathBuf);

#[cfg(unix)]
fn identity(path: &Path) -> std::io::Result<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = path.metadata()?;
    Ok((metadata.dev(), metadata.ino(), PathBuf::new()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> std::io::Result<Identity> {
    Ok((0, 0, path.canonicalize()?))
}

/// What is in a folder, by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut entries = list().map_err(|source| Error::Read { path: folder.to_owned(), source })?;
    entries.sort();
    Ok(entries)
}

/// Names of what is in a folder, for a message.
fn listing(folder: &Path) -> Result<String, Error> {
    const SHOWN: usize = 10;
    let entries = entries(folder)?;
    let names = entries.iter().filter_map(|path| path.file_name());
    let names: Vec<_> = names.take(SHOWN).map(|name| name.to_string_lossy()).collect();
    Ok(match entries.len().checked_sub(SHOWN) {
        _ if names.is_empty() => "nothing".to_owned(),
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names.join(", ")),
    })
}

/// Files that lie beside data sets.
const BESIDE: [&str; 8] = [
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
    "checksums.txt",
    "md5sums",
    "sha256sums",
    "sha256sums.txt",
];

fn is_beside_data(path: &Path) -> bool {
    let Some(name) = path.file_name() else { return false };
    let name = name.to_string_lossy().to_lowercase();
    let stem = name.split(['.', '-']).next().unwrap_or_default();
    name.starts_with('.')
        || ["readme", "license", "licence", "notice", "citation"].contains(&stem)
        || BESIDE.contains(&name.as_str())
}
