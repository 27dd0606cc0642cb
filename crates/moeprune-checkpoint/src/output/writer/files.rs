//! The files of a writer: made with their header, opened and closed, made durable.

use std::{
    fs::File,
    io::{ErrorKind, Write},
};

use moeprune_files::{Transfers, rename_to_new, sync_bytes, sync_file, write_and_rename};

use super::{Shard, ShardedWriter};
use crate::{Error, container::PlannedIndex};

/// Files that are open at a time. A layer lies in few of them.
const MAX_OPEN: usize = 32;

impl ShardedWriter {
    /// Writes bytes to a place of a shard's file.
    pub(super) fn write(&mut self, s: usize, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let (file, transfers) = self.file(s)?;
        let written = transfers.write(bytes, file, at);
        written.map_err(|e| self.failed(s, e))
    }

    /// The file of a shard for writing to, and what writes.
    pub(super) fn file(&mut self, s: usize) -> Result<(&File, &mut Transfers), Error> {
        if self.shards[s].file.is_none() {
            self.close_if_many()?;
            let file = if self.shards[s].begun {
                let path = self.dir.join(&self.shards[s].plan.name);
                File::options().write(true).open(&path).map_err(Error::io("open", &path))?
            } else {
                self.begin_file(s)?
            };
            self.shards[s].file = Some(file);
        }
        self.clock += 1;
        let shard = &mut self.shards[s];
        (shard.used, shard.dirty) = (self.clock, true);
        let Some(file) = &shard.file else { unreachable!("was opened above") };
        Ok((file, &mut self.transfers))
    }

    /// Makes a file with its header and its final length, under another name first: a file that
    /// has its final name can be resumed, whenever the process or the machine stopped.
    fn begin_file(&mut self, s: usize) -> Result<File, Error> {
        let plan = &self.shards[s].plan;
        let path = self.dir.join(&plan.name);
        if path.symlink_metadata().is_ok() {
            return Err(Error::io("create", &path)(ErrorKind::AlreadyExists.into()));
        }
        let unnamed = self.dir.join(format!(".{}.new", plan.name));
        let mut file = File::create(&unnamed).map_err(Error::io("create", &unnamed))?;
        let begun = file
            .write_all(&plan.header)
            .and_then(|()| file.set_len(plan.bytes))
            .and_then(|()| sync_file(&file))
            .and_then(|()| rename_to_new(&unnamed, &path));
        begun.map_err(|e| self.failed(s, e))?;
        self.shards[s].begun = true;
        self.files_made = true;
        Ok(file)
    }

    /// Makes the files that have a header and no tensors, which nothing else makes.
    pub(super) fn begin_files_without_tensors(&mut self) -> Result<(), Error> {
        let is_open = |(_, shard): &(usize, &Shard)| shard.plan.tensors.is_empty() && !shard.begun;
        let open: Vec<usize> =
            self.shards.iter().enumerate().filter(is_open).map(|(s, _)| s).collect();
        for s in open {
            self.close_if_many()?;
            let file = self.begin_file(s)?;
            self.shards[s].file = Some(file);
        }
        Ok(())
    }

    /// Closes the file used longest ago if there are too many. Files are made durable before:
    /// once closed, a failure of the system to write them would go unnoticed.
    fn close_if_many(&mut self) -> Result<(), Error> {
        let open = self.shards.iter().enumerate().filter(|(_, shard)| shard.file.is_some());
        if open.clone().count() >= MAX_OPEN
            && let Some((oldest, _)) = open.min_by_key(|(_, shard)| shard.used)
        {
            self.sync_shard(oldest)?;
            self.shards[oldest].file = None;
        }
        Ok(())
    }

    pub(super) fn sync_shard(&mut self, s: usize) -> Result<(), Error> {
        if let Some(file) = &self.shards[s].file
            && self.shards[s].dirty
        {
            sync_bytes(file).map_err(|e| self.failed(s, e))?;
            self.shards[s].dirty = false;
        }
        Ok(())
    }

    pub(super) fn write_index(&mut self) -> Result<(), Error> {
        let Some(PlannedIndex { name, text }) = &self.index else { return Ok(()) };
        let path = self.dir.join(name);
        if !self.resumed && path.symlink_metadata().is_ok() {
            return Err(Error::io("create", &path)(ErrorKind::AlreadyExists.into()));
        }
        let unnamed = self.dir.join(format!(".{name}.new"));
        write_and_rename(&unnamed, &path, |file| file.write_all(text.as_bytes()))?;
        self.files_made = true;
        Ok(())
    }

    pub(super) fn failed(&self, s: usize, e: std::io::Error) -> Error {
        let path = self.dir.join(&self.shards[s].plan.name);
        let action = match e.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                format!(
                    "write all of the {} bytes of weights ({} of them are written); make room for",
                    self.planned_bytes(),
                    self.written_bytes
                )
            }
            _ => "write".to_owned(),
        };
        Error::io(action, path)(e)
    }
}
