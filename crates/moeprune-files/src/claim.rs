//! Whether a place may be written to.

use std::{
    fs::{FileType, Metadata},
    path::{Path, PathBuf},
};

use crate::{
    Destination, Error, OutputKind, descriptor,
    destination::Way,
    identity::Identity,
    inputs::Inputs,
    place::{Place, real},
    spot::Spot,
    whole::{folder_of, unfinished_beside},
};

/// A place to judge, and for what.
struct Asked<'a> {
    inputs: &'a Inputs,
    option: &'static str,
    path: &'a Path,
    kind: OutputKind,
}

/// Judges a place, and says what it shares with other outputs.
pub(crate) fn judge(
    inputs: &Inputs,
    option: &'static str,
    path: &Path,
    kind: OutputKind,
) -> Result<(Destination, Spot), Error> {
    let asked = Asked { inputs, option, path, kind };
    let (way, spot) = asked.judge()?;
    Ok((Destination::new(path, kind, way), spot))
}

impl Asked<'_> {
    fn judge(&self) -> Result<(Way, Spot), Error> {
        match Place::of(self.path)? {
            Place::Descriptor(number, place) => self.descriptor(number, place),
            Place::Foreign(place, metadata) => self.foreign(place, &metadata),
            Place::There(place, metadata) => self.there(place, &metadata),
            Place::Nothing(place) => self.nothing(&place),
            Place::Dangling(target) => Err(self.refused(format!(
                "it is a link to {}, which does not exist; remove the link or choose another name \
                 for {}",
                target.display(),
                self.option
            ))),
        }
    }

    fn nothing(&self, place: &Path) -> Result<(Way, Spot), Error> {
        let bytes = place.as_os_str().as_encoded_bytes();
        let ends_in_separator = bytes.last().is_some_and(|&b| std::path::is_separator(b.into()));
        if ends_in_separator || place.file_name().is_none() {
            return Err(self.impossible("it is no name of a file"));
        }
        let folder = folder_of(place);
        if !folder.is_dir() {
            let what = if folder.exists() { "is no folder" } else { "does not exist" };
            return Err(self.impossible(format!(
                "there is no folder {}: it {what}; make it first or choose another name for {}",
                folder.display(),
                self.option
            )));
        }
        let place = real(place);
        self.probe(&place)?;
        Ok((Way::File(place.clone()), Spot::New(place)))
    }

    fn there(&self, place: PathBuf, metadata: &Metadata) -> Result<(Way, Spot), Error> {
        let identity = Identity::new(&place, metadata);
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Err(self.impossible(format!(
                "it is a folder; choose the name of a file for {}",
                self.option
            )));
        }
        if kind.is_file() {
            self.check_regular(&place, &identity)?;
            let place = real(&place);
            self.probe(&place)?;
            return Ok((Way::File(place), Spot::File(identity)));
        }
        self.check_open(&place, kind, &identity)?;
        self.check_access(&place)?;
        let spot = if is_fifo(kind) { Spot::File(identity) } else { Spot::Device };
        Ok((Way::Into(place), spot))
    }

    /// Refuses an input, and what is no earlier output of the same kind.
    fn check_regular(&self, place: &Path, identity: &Identity) -> Result<(), Error> {
        self.check_input(place, identity)?;
        let (kind, option) = (self.kind, self.option);
        if !kind.is_replaceable() {
            return Err(
                self.refused(format!("it exists; remove it or choose another name for {option}"))
            );
        }
        if kind == OutputKind::Report && folder_of(place).join("config.json").exists() {
            return Err(self.refused(format!(
                "it is the report of the model beside it; choose another name for {option}"
            )));
        }
        if !kind.wrote(place) {
            return Err(self.refused(format!(
                "it exists and is not an earlier {}; remove it or choose another name for {option}",
                kind.name()
            )));
        }
        self.check_access(place)
    }

    fn check_input(&self, place: &Path, identity: &Identity) -> Result<(), Error> {
        if self.inputs.contains(place, identity, self.kind) {
            return Err(self.refused(format!(
                "it is an input of this run; choose another name for {}",
                self.option
            )));
        }
        Ok(())
    }

    /// Refuses what is neither a file nor something that bytes can be written into.
    fn check_open(&self, place: &Path, kind: FileType, identity: &Identity) -> Result<(), Error> {
        match Special::of(kind) {
            Special::Fifo => self.check_input(place, identity),
            Special::Characters => Ok(()),
            Special::Other(what) => {
                Err(self.refused(format!("it is {what}; choose another name for {}", self.option)))
            }
        }
    }

    fn descriptor(&self, number: u32, place: PathBuf) -> Result<(Way, Spot), Error> {
        let Ok(metadata) = place.metadata() else {
            return Err(self.impossible(format!("descriptor {number} is not open")));
        };
        if descriptor::is_read_only(number) {
            return Err(self.refused(format!(
                "descriptor {number} is open for reading only; choose another name for {}",
                self.option
            )));
        }
        let identity = Identity::new(&place, &metadata);
        let kind = metadata.file_type();
        let standard = number == 1 || number == 2;
        if kind.is_file() {
            self.check_input(&place, &identity)?;
        } else if !standard {
            self.check_open(&place, kind, &identity)?;
        }
        if !standard {
            self.check_access(&place)?; // it is opened again at the end
        }
        // A file is the same place by any name or descriptor.
        let spot = if kind.is_file() { Spot::File(identity) } else { Spot::Descriptor(number) };
        Ok((Way::Descriptor(number, place), spot))
    }

    fn foreign(&self, place: PathBuf, metadata: &Metadata) -> Result<(Way, Spot), Error> {
        let identity = Identity::new(&place, metadata);
        let kind = metadata.file_type();
        if kind.is_file() {
            return Err(self.refused(format!(
                "it is another process's descriptor of a file; name the file itself for {}",
                self.option
            )));
        }
        self.check_open(&place, kind, &identity)?;
        self.check_access(&place)?;
        Ok((Way::Into(place), Spot::File(identity)))
    }

    /// Makes and removes a file beside the place: the only way to know that one can be made.
    fn probe(&self, place: &Path) -> Result<(), Error> {
        let folder = folder_of(place);
        let probe = unfinished_beside(place)?;
        probe.close().map_err(Error::io("remove a file from", folder))
    }

    #[cfg(unix)]
    fn check_access(&self, place: &Path) -> Result<(), Error> {
        rustix::fs::access(place, rustix::fs::Access::WRITE_OK)
            .map_err(|e| Error::io("write", self.path)(e.into()))
    }

    #[cfg(not(unix))]
    fn check_access(&self, place: &Path) -> Result<(), Error> {
        let metadata = place.metadata().map_err(Error::io("look at", self.path))?;
        if metadata.permissions().readonly() {
            return Err(self.impossible("it is write-protected"));
        }
        Ok(())
    }

    fn refused(&self, reason: impl Into<String>) -> Error {
        Error::refused(self.path, reason)
    }

    fn impossible(&self, reason: impl Into<String>) -> Error {
        Error::place(self.path, reason)
    }
}

/// A file that is not regular.
#[cfg_attr(not(unix), expect(dead_code, reason = "there are none elsewhere"))]
enum Special {
    Fifo,
    Characters,
    Other(&'static str),
}

impl Special {
    #[cfg(unix)]
    fn of(kind: FileType) -> Self {
        use std::os::unix::fs::FileTypeExt as _;
        match () {
            () if kind.is_fifo() => Self::Fifo,
            () if kind.is_char_device() => Self::Characters,
            () if kind.is_block_device() => Self::Other("a block device"),
            () if kind.is_socket() => Self::Other("a socket"),
            () => Self::Other("no file"),
        }
    }

    #[cfg(not(unix))]
    fn of(_: FileType) -> Self {
        Self::Other("no file")
    }
}

fn is_fifo(kind: FileType) -> bool {
    matches!(Special::of(kind), Special::Fifo)
}
