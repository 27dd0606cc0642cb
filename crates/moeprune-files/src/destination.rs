//! Where a result goes.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

use crate::{
    Error, OutputKind,
    whole::{fill, folder_of, rename_to_new, sync_names, unfinished_beside},
};

/// A place that was judged by [`RunFiles::claim`](crate::RunFiles::claim), and that a result is
/// written to at the end.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
    kind: OutputKind,
    way: Way,
}

/// How bytes get there.
#[derive(Debug)]
pub(crate) enum Way {
    /// A file that gets this name when it is complete.
    File(PathBuf),
    /// Written into what is there.
    Into(PathBuf),
    /// Written into a descriptor of this process, which this path opens.
    Descriptor(u32, PathBuf),
}

impl Destination {
    pub(crate) fn new(path: &Path, kind: OutputKind, way: Way) -> Self {
        Self { path: path.to_owned(), kind, way }
    }

    /// The place as the user wrote it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it will be a regular file under its own name, and not something that is written
    /// into.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self.way, Way::File(_))
    }

    /// Writes the result. A file appears whole or not at all; a reader of a pipe that has gone away
    /// is no error.
    ///
    /// # Errors
    /// If it cannot be written, or something else has appeared under the name of a file; the
    /// message then says where the result is.
    pub fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
        let written = match &self.way {
            Way::File(place) => return self.write_file(place, write),
            Way::Descriptor(1, _) => into(io::stdout().lock(), write),
            Way::Descriptor(2, _) => into(io::stderr().lock(), write),
            Way::Descriptor(_, place) => {
                OpenOptions::new().append(true).open(place).and_then(|file| into(file, write))
            }
            Way::Into(place) => {
                OpenOptions::new().write(true).open(place).and_then(|file| into(file, write))
            }
        };
        match written {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(Error::io("write", &self.path)),
        }
    }

    fn write_file(
        &self,
        place: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        let unfinished = unfinished_beside(place)?;
        fill(unfinished.as_file(), place, write)?;
        // From here on it is a result, which stays also if it cannot get its name.
        let (_, unnamed) = unfinished.keep().map_err(|e| Error::io("keep", place)(e.error))?;
        self.name(&unnamed, place).map_err(|reason| {
            let reason = format!("{reason}; the result is in {}", unnamed.display());
            Error::place(&self.path, reason)
        })?;
        sync_names(folder_of(place));
        Ok(())
    }

    /// Gives a complete file its name, or says why not.
    fn name(&self, unnamed: &Path, place: &Path) -> Result<(), String> {
        match rename_to_new(unnamed, place) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            renamed => return renamed.map_err(|e| e.to_string()),
        }
        // It was judged before the work, which may be hours ago.
        let there = place.symlink_metadata().map_err(|e| e.to_string())?;
        if !there.is_file() || !self.kind.wrote(place) {
            return Err("something else has appeared there since this run began".to_owned());
        }
        // Not every file system has permissions (vfat, some of CIFS).
        let _ = fs::set_permissions(unnamed, there.permissions());
        fs::rename(unnamed, place).map_err(|e| e.to_string())
    }
}

fn into(sink: impl Write, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut sink = BufWriter::new(sink);
    write(&mut sink)?;
    sink.flush()
}
