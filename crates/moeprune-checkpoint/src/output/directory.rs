//! An unfinished checkpoint.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use moeprune_core::ModelSpec;
use moeprune_files::{PartialOutput, write_and_rename};

use super::{
    auxiliary::{self, CopiedFiles},
    final_place::FinalPlace,
};
use crate::{Checkpoint, Error, checkpoint::CONFIG_FILE};

/// An unfinished checkpoint directory: a [`PartialOutput`] whose content is a directory. Of a model that is
/// one file, that file alone gets the final name, and reports that were written here lie beside it, as
/// `NAME.report.json` and `NAME.report.md`.
///
/// Files are written into a hidden sibling of the final place.
/// [`publish`](Self::publish) makes them durable and renames their directory, so a directory that
/// has the final name is complete. If there is an empty directory at the place, a mount point for example, the hidden
/// directory is in it, and publishing moves the files out of it, `config.json` (of GGUF, the first file) last: without that
/// no program takes them for a model. Dropped unpublished, everything is removed, unless
/// [`set_keep`](Self::set_keep) says otherwise.
#[derive(Debug)]
pub struct OutputDirectory {
    partial: PartialOutput,
    content: PathBuf,
    place: FinalPlace,
    /// What comes along, looked at before any work.
    files: CopiedFiles,
    extension: &'static str,
}

impl OutputDirectory {
    /// Prepares to write to `out`, whose missing parent directories are made. What a killed run
    /// to the same place left is deleted.
    ///
    /// # Errors
    /// If `out` exists and is no empty directory, is inside of the source or the source inside of it, or another
    /// process is writing to it; if its name is not that of what the source is, `.gguf` for one file in that format;
    /// if a file beside the weights that the result needs, as the tokenizer, cannot be read.
    pub fn create(out: &Path, source: &Checkpoint) -> Result<Self, Error> {
        let mut made = Self::open(out, source)?;
        if made.is_leftover() {
            made.clear()?;
        }
        Ok(made)
    }

    /// As [`create`](Self::create), but what an earlier run left is taken over as it is; see
    /// [`is_leftover`](Self::is_leftover).
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn open(out: &Path, source: &Checkpoint) -> Result<Self, Error> {
        let place = FinalPlace::of(out, source)?;
        let files = auxiliary::auxiliary_files(source)?;
        let mut partial = match (&place, source.files().local_folder()) {
            (FinalPlace::Folder | FinalPlace::Part { .. }, model) => {
                PartialOutput::open_folder(out, model)?
            }
            (FinalPlace::File { .. }, Some(model)) => PartialOutput::open_apart_from(out, model)?,
            (FinalPlace::File { .. }, None) => PartialOutput::open(out)?,
        };
        place.check_free(partial.is_leftover())?;
        let content = partial.content();
        if content.is_file() {
            // Stopped within `publish`; what resuming would need is gone.
            partial.clear()?;
        }
        let extension = source.container().extension();
        let made = Self { partial, content, place, files, extension };
        made.make_content()?;
        Ok(made)
    }

    /// As [`open`](Self::open), of a folder for a part of a model: what lies beside the weights does not come along,
    /// and `record` is the file without which the folder is no part.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_part(out: &Path, source: &Checkpoint, record: &str) -> Result<Self, Error> {
        let partial = PartialOutput::open_folder(out, source.files().local_folder())?;
        let made = Self {
            content: partial.content(),
            partial,
            place: FinalPlace::Part { record: record.to_owned() },
            files: CopiedFiles::default(),
            extension: source.container().extension(),
        };
        made.make_content()?;
        Ok(made)
    }

    /// Where to write. The path is not valid any more after [`publish`](Self::publish).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.content
    }

    /// The final place, absolute, links of what exists resolved.
    #[must_use]
    pub fn place(&self) -> &Path {
        self.partial.place()
    }

    /// Whether a folder with all files gets the final name, rather than one file, or a folder with a part of the weights.
    #[must_use]
    pub fn is_whole_folder(&self) -> bool {
        matches!(self.place, FinalPlace::Folder)
    }

    /// A directory for what resuming needs. It is not published.
    #[must_use]
    pub fn state(&self) -> &Path {
        self.partial.state()
    }

    /// Whether an earlier run has left something here, in [`path`](Self::path) or
    /// [`state`](Self::state).
    #[must_use]
    pub fn is_leftover(&self) -> bool {
        self.partial.is_leftover()
    }

    /// Deletes what is there, to start again from nothing.
    ///
    /// # Errors
    /// If something cannot be deleted.
    pub fn clear(&mut self) -> Result<(), Error> {
        self.partial.clear()?;
        self.make_content()
    }

    /// Whether everything is left in place, to be resumed, if this is dropped unpublished.
    pub fn set_keep(&mut self, keep: bool) {
        self.partial.set_keep(keep);
    }

    /// Checks that the disk has room for an output of so many bytes, those included that are
    /// there already. Passes where the system cannot tell.
    ///
    /// # Errors
    /// If there is less, with both numbers.
    pub fn check_room(&self, bytes: u64) -> Result<(), Error> {
        Ok(self.partial.check_room(bytes)?)
    }

    /// Writes a file of the given name. One that an earlier run left is replaced; other than that
    /// the file must be new.
    ///
    /// # Errors
    /// If it exists or cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.content.join(name);
        if !self.is_leftover() && path.symlink_metadata().is_ok() {
            return Err(Error::io("create", &path)(ErrorKind::AlreadyExists.into()));
        }
        Ok(write_and_rename(&self.unnamed(), &path, |file| file.write_all(bytes))?)
    }

    /// Writes `config.json` of a model made of `source`, if that has one, and the files beside it that say how modules are
    /// quantised; `pruned` and `index_of` are as for [`Checkpoint::config_of`].
    ///
    /// # Errors
    /// As [`write`](Self::write), [`Checkpoint::config_of`] and [`Checkpoint::quantization_files_of`].
    pub fn write_configs(
        &self,
        source: &Checkpoint,
        pruned: &ModelSpec,
        index_of: &dyn Fn(usize, usize) -> Option<usize>,
    ) -> Result<(), Error> {
        if source.describes_itself() {
            return Ok(());
        }
        self.write(CONFIG_FILE, source.config_of(pruned, index_of)?.as_bytes())?;
        for (name, text) in source.quantization_files_of(index_of)? {
            self.write(name, text.as_bytes())?;
        }
        Ok(())
    }

    /// Copies the files of the model directory that are neither weights nor configs of the model or of its
    /// quantisation (tokenizer, generation config, model code, licence), byte for byte, subfolders included.
    /// Copies that an earlier run left are replaced. The model's card is copied as `README.base.md`, and earlier ones as
    /// [`place_of_copy`](crate::place_of_copy) says.
    ///
    /// Left out, and listed as such, are hidden files and folders, links to folders, and weights
    /// in any format: those of another format or an index of them would still be of the unpruned
    /// model; and what cannot be read: links that lead nowhere or out of the model, FIFOs and the like, files
    /// and folders of another user. Links to files are followed where [`Checkpoint::open`] would follow them.
    ///
    /// # Errors
    /// If a file cannot be written, or one that the result needs, as the tokenizer, cannot be read.
    pub fn copy_auxiliary(&self, source: &Checkpoint) -> Result<CopiedFiles, Error> {
        auxiliary::copy(source, &self.files, &self.content, &self.unnamed())
    }

    /// Makes everything durable and moves it to its final name.
    ///
    /// # Errors
    /// If that fails, or something has appeared under the name.
    pub fn publish(self) -> Result<(), Error> {
        match &self.place {
            FinalPlace::Folder => {
                let last = self.last()?;
                Ok(self.partial.publish_with(last.as_deref())?)
            }
            FinalPlace::Part { record } => Ok(self.partial.publish_with(Some(record))?),
            FinalPlace::File { name, reports } => {
                let reports: Vec<_> =
                    reports.iter().map(|(name, place)| (*name, place.clone())).collect();
                Ok(self.partial.publish_file(name, &reports)?)
            }
        }
    }

    /// The file without which no program takes the others for a model.
    fn last(&self) -> Result<Option<String>, Error> {
        if self.content.join(CONFIG_FILE).exists() {
            return Ok(Some(CONFIG_FILE.to_owned()));
        }
        let failed = || Error::io("list", &self.content);
        let mut first: Option<String> = None;
        for entry in fs::read_dir(&self.content).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(self.extension)) else {
                continue;
            };
            if first.as_deref().is_none_or(|first| name < first) {
                first = Some(name.to_owned());
            }
        }
        Ok(first)
    }

    fn make_content(&self) -> Result<(), Error> {
        fs::create_dir_all(&self.content).map_err(Error::io("create", &self.content))
    }

    /// Where a file lies until it is complete.
    fn unnamed(&self) -> PathBuf {
        self.state().join(".file.new")
    }
}
