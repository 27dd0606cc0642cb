//! What a run reads and where it writes.

use std::path::{Path, PathBuf};

use crate::{
    Destination, Error, OutputKind, claim, inputs::Inputs, place::real, spot::Spot,
    write::sibling_of,
};

/// The files of a run: what it reads, and what it is to write.
///
/// Name everything that is read first, then claim what is written.
#[derive(Debug, Default)]
pub struct RunFiles {
    inputs: Inputs,
    made: Vec<PathBuf>,
    claimed: Vec<(Spot, &'static str)>,
}

impl RunFiles {
    /// A run that reads and writes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The run reads this file. One that is not there is no input.
    pub fn reads(&mut self, path: impl AsRef<Path>) {
        self.inputs.add(path.as_ref());
    }

    /// The run reads these files.
    pub fn reads_all<P: AsRef<Path>>(&mut self, paths: impl IntoIterator<Item = P>) {
        paths.into_iter().for_each(|path| self.reads(path));
    }

    /// The run reads this model: every file in the folder is an input.
    pub fn reads_model(&mut self, folder: impl AsRef<Path>) {
        self.inputs.add_model(folder.as_ref());
    }

    /// The run makes this folder or file: nothing else may be written there or into it.
    pub fn makes(&mut self, path: impl AsRef<Path>) {
        let made = real(path.as_ref());
        self.made.extend(sibling_of(&made));
        self.made.push(made);
    }

    /// Judges a place that an option names to be written to, before any work.
    ///
    /// # Errors
    /// If it must not be written, or cannot be; the [crate](crate)'s table says when.
    pub fn claim(
        &mut self,
        option: &'static str,
        path: &Path,
        kind: OutputKind,
    ) -> Result<Destination, Error> {
        let (destination, spot) = claim::judge(&self.inputs, option, path, kind)?;
        if let Some((_, other)) = self.claimed.iter().find(|(claimed, _)| *claimed == spot) {
            let reason =
                format!("{other} goes there too; choose another name for {option} or {other}");
            return Err(Error::refused(path, reason));
        }
        if let Spot::New(place) = &spot
            && self.made.iter().any(|made| place.starts_with(made))
        {
            let reason = format!(
                "something that this run makes goes there; choose another name for {option}"
            );
            return Err(Error::refused(path, reason));
        }
        if spot != Spot::Device {
            self.claimed.push((spot, option));
        }
        Ok(destination)
    }

    /// As [`claim`](Self::claim), where the option may be missing.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub fn claim_if_asked(
        &mut self,
        option: &'static str,
        path: Option<&Path>,
        kind: OutputKind,
    ) -> Result<Option<Destination>, Error> {
        path.map(|path| self.claim(option, path, kind)).transpose()
    }
}
