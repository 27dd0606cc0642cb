//! The weight files of a model that was written in parts, put together.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Read},
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
};

use moeprune_core::PartOf;
use moeprune_files::{
    Stretch, Transfers, copy_bytes, rename_to_new, sync, sync_bytes, sync_file, write_and_rename,
};

use super::{Division, OutputLayout};
use crate::{
    Error,
    container::{OutputForm, PlannedFile, PlannedIndex, WeightRequest},
};

/// The weight files of a model that was written in parts, each into a folder of its own with
/// [`PartWriter`](super::PartWriter), and which bytes of them are whose.
///
/// A file whose tensors are all of one part is renamed. One that several have a share in is there once per part,
/// with holes and so under a name that nothing takes for weights ([`mark_shares`](Self::mark_shares)); what the smaller
/// shares have of it is copied into the largest before. At most one file between two parts is such, so with files
/// much smaller than parts little is copied.
#[derive(Debug)]
pub struct DividedFiles {
    files: Vec<DividedFile>,
    index: Option<PlannedIndex>,
}

#[derive(Debug)]
struct DividedFile {
    plan: PlannedFile,
    /// The bytes of each part that has a share in it, ascending; runs of tensors are one range.
    shares: BTreeMap<PartOf, Vec<Range<u64>>>,
}

/// A part, and the folder that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller")]
pub struct DividedPart<'a> {
    /// Which.
    pub part: PartOf,
    /// Where its files are.
    pub folder: &'a Path,
}

/// What a file with holes has after its name.
const SHARE: &str = ".part";

impl DividedFile {
    /// Its name in the folder of a part.
    fn name_in_part(&self) -> String {
        let name = &self.plan.name;
        if self.shares.len() > 1 { format!("{name}{SHARE}") } else { name.clone() }
    }

    /// The part into whose file the others' shares are copied: the one with the most bytes.
    fn base(&self) -> Option<PartOf> {
        let bytes = |ranges: &[Range<u64>]| -> u64 { ranges.iter().map(|r| r.end - r.start).sum() };
        // Of equals the last counts as the largest: which one it is only must not change.
        self.shares.iter().max_by_key(|(_, ranges)| bytes(ranges)).map(|(part, _)| *part)
    }
}

impl DividedFiles {
    /// Plans the files as one writer of all tensors does, and divides them.
    ///
    /// # Errors
    /// As [`ShardedWriter::create`](super::ShardedWriter::create).
    pub fn new(
        form: OutputForm<'_>,
        layout: &OutputLayout,
        division: &Division,
    ) -> Result<Self, Error> {
        let OutputForm { container, max_file_bytes, metadata, own_files } = form;
        let tensors = layout.tensors().iter().map(|tensor| tensor.planned.clone()).collect();
        let request = WeightRequest { tensors, max_file_bytes, metadata, own_files };
        let planned = container.plan(request)?;
        let tensors = layout.tensors().iter();
        let owners: BTreeMap<&str, PartOf> = tensors
            .map(|tensor| (tensor.planned.name.as_str(), division.owner(tensor.layer)))
            .collect();
        let divided = |plan: PlannedFile| {
            let mut shares: BTreeMap<PartOf, Vec<Range<u64>>> = BTreeMap::new();
            for (tensor, range) in plan.tensors.iter().zip(&plan.ranges) {
                let owner = owners.get(tensor.name.as_str()).copied();
                let ranges = shares.entry(owner.unwrap_or_else(|| division.owner(None)));
                let ranges = ranges.or_default();
                match ranges.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ => ranges.push(range.clone()),
                }
            }
            if shares.is_empty() {
                shares.insert(division.owner(None), Vec::new());
            }
            DividedFile { plan, shares }
        };
        let files = planned.files.into_iter().map(divided).collect();
        Ok(Self { files, index: planned.index })
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.plan.bytes).sum()
    }

    /// Names of the files that a part has in its folder.
    pub fn names_of(&self, part: PartOf) -> impl Iterator<Item = String> {
        self.of(part).map(DividedFile::name_in_part)
    }

    fn of(&self, part: PartOf) -> impl Iterator<Item = &DividedFile> {
        self.files.iter().filter(move |file| file.shares.contains_key(&part))
    }

    /// Gives the files of a finished part that others have a share in, too, the ending `.part`, so that nothing takes
    /// them for weights.
    ///
    /// # Errors
    /// If one cannot be renamed.
    pub fn mark_shares(&self, of: DividedPart<'_>) -> Result<(), Error> {
        for file in self.of(of.part).filter(|file| file.shares.len() > 1) {
            let (from, to) = (of.folder.join(&file.plan.name), of.folder.join(file.name_in_part()));
            rename_to_new(&from, &to).map_err(Error::io("rename to", &to))?;
        }
        Ok(())
    }

    /// Takes back what [`mark_shares`](Self::mark_shares) did in a folder, to go on with a part.
    ///
    /// # Errors
    /// If the folder cannot be read or a file not be renamed.
    pub fn unmark_shares(folder: &Path) -> Result<(), Error> {
        for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
            let path = entry.map_err(Error::io("list", folder))?.path();
            if path.extension().is_some_and(|extension| extension == &SHARE[1..]) {
                let to = path.with_extension("");
                rename_to_new(&path, &to).map_err(Error::io("rename to", &to))?;
            }
        }
        Ok(())
    }

    /// Checks that the folder of a part holds what it wrote, by names, lengths and headers. What a
    /// [`join`](Self::join) has completed in `to` already counts: a folder, or the one file that all is in.
    ///
    /// # Errors
    /// If a file is missing, is not as long as planned, or announces other tensors.
    pub fn check(&self, of: DividedPart<'_>, to: Option<&Path>) -> Result<(), Error> {
        for file in self.of(of.part) {
            let moved = to.is_some_and(|to| {
                let joined = if to.is_file() { to.to_owned() } else { to.join(&file.plan.name) };
                whole(&file.plan, &joined).is_ok_and(|found| found.is_ok())
            });
            if moved {
                continue;
            }
            let name = file.name_in_part();
            if let Err(problem) = whole(&file.plan, &of.folder.join(&name))? {
                let reason = format!(
                    "part {} is not whole: its {name} {problem}; remove the folder and write that part again",
                    of.part
                );
                return Err(Error::Output { path: of.folder.to_owned(), reason });
            }
        }
        Ok(())
    }

    /// Moves all files to the folder `to`, completed, and writes the index there. What an interrupted call has moved
    /// stays. Calls `watch` with the bytes of each file that is there, and stops when it says so: `Break` then.
    ///
    /// # Errors
    /// If a part is missing, or a file cannot be read, written or moved.
    pub fn join(
        &self,
        parts: &[DividedPart<'_>],
        to: &Path,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let folders: BTreeMap<PartOf, &Path> = parts.iter().map(|p| (p.part, p.folder)).collect();
        for file in &self.files {
            if whole(&file.plan, &to.join(&file.plan.name))?.is_err() {
                file.join(&folders, to)?;
            }
            if watch(file.plan.bytes).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if let Some(PlannedIndex { name, text }) = &self.index {
            let unnamed = to.join(format!(".{name}.new"));
            write_and_rename(&unnamed, &to.join(name), |file| file.write_all(text.as_bytes()))?;
        }
        sync(to)?;
        Ok(ControlFlow::Continue(()))
    }
}

impl DividedFile {
    fn join(&self, folders: &BTreeMap<PartOf, &Path>, to: &Path) -> Result<(), Error> {
        let name = &self.plan.name;
        let at = |part: PartOf| {
            let folder = folders.get(&part).ok_or_else(|| Error::Order {
                reason: format!("part {part} has some of {name} and is missing"),
            })?;
            Ok::<_, Error>(folder.join(self.name_in_part()))
        };
        let Some(base) = self.base() else { return Ok(()) };
        let path = at(base)?;
        if self.shares.len() > 1 {
            let file = File::options().write(true).open(&path).map_err(Error::io("open", &path))?;
            for (&part, ranges) in self.shares.iter().filter(|(part, _)| **part != base) {
                let from = at(part)?;
                copy_ranges(&from, (&file, &path), ranges)?;
            }
            sync_bytes(&file).map_err(Error::io("write to disk", &path))?;
        }
        move_file(&path, &to.join(name))
    }
}

/// Copies what a part has of a file to the same places of another.
fn copy_ranges(
    from: &Path,
    (file, path): (&File, &Path),
    ranges: &[Range<u64>],
) -> Result<(), Error> {
    let source = File::open(from).map_err(Error::io("open", from))?;
    let stretch = |range: &Range<u64>| Stretch {
        from: &source,
        from_at: range.start,
        to_at: range.start,
        bytes: range.end - range.start,
    };
    let stretches: Vec<Stretch<'_>> = ranges.iter().map(stretch).collect();
    Transfers::default()
        .copy(&stretches, file, &mut |_| ())
        .map_err(Error::io(format!("copy from {} to", from.display()), path))
}

/// Whether a planned file is at a place, by its length and header: what is wrong with it otherwise.
fn whole(plan: &PlannedFile, path: &Path) -> Result<Result<(), String>, Error> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Err("is missing".to_owned())),
        Err(e) => return Err(Error::io("open", path)(e)),
    };
    let metadata = file.metadata().map_err(Error::io("inspect", path))?;
    if !metadata.is_file() {
        return Ok(Err("is no file".to_owned()));
    }
    if metadata.len() != plan.bytes {
        return Ok(Err(format!("has {} bytes instead of {}", metadata.len(), plan.bytes)));
    }
    let mut header = vec![0; plan.header.len()];
    file.read_exact(&mut header).map_err(Error::io("read the header of", path))?;
    match header == plan.header {
        true => Ok(Ok(())),
        false => Ok(Err("announces other tensors than the plan gives".to_owned())),
    }
}

/// Renames a file, or, from another file system, copies it.
fn move_file(from: &Path, to: &Path) -> Result<(), Error> {
    match rename_to_new(from, to) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == ErrorKind::CrossesDevices => {}
        Err(e) => return Err(Error::io(format!("rename {} to", from.display()), to)(e)),
    }
    let unnamed = unnamed_beside(to);
    let failed = || Error::io(format!("copy {} to", from.display()), to);
    let source = File::open(from).map_err(Error::io("open", from))?;
    let bytes = source.metadata().map_err(Error::io("inspect", from))?.len();
    let file = File::create(&unnamed).map_err(Error::io("create", &unnamed))?;
    file.set_len(bytes).map_err(failed())?;
    copy_bytes((&source, 0), (&file, 0), bytes, &mut |_| ()).map_err(failed())?;
    sync_file(&file).map_err(failed())?;
    fs::rename(&unnamed, to).map_err(failed())?;
    fs::remove_file(from).map_err(Error::io("remove", from))
}

fn unnamed_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}
