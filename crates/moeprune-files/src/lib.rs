/*!
Files that a command reads, wherever they are, and files that it writes under names that its user
chose.

# Brief overview

[`Files`] is a set of files to read and [`ReadAt`] one of them, open: [`LocalFiles`] are those of a
directory, mapped or read ([`Access`]), [`MemoryFiles`] are on no disk, and [`ChosenFiles`] are some of
any such.

[`RunFiles`] knows what a run reads and where it is to write. [`RunFiles::claim`] judges one
of those places before any work, and returns the [`Destination`] that the result goes to at the end:

| what is there | what happens |
|---|---|
| nothing | a new file, if its folder is there and can be written to |
| an input of the run: a named file, or any file of a model folder | refused |
| a regular file that the same kind of run wrote before ([`OutputKind`]) | replaced, at once and whole |
| any other regular file | refused |
| a link to a regular file | the same rule for the file it leads to; the link stays |
| a link to nothing | refused |
| a FIFO, a character device, an open descriptor (`/dev/stdout`, `/dev/fd/N`, `>(…)`) | written into |
| a folder, a block device, a socket | refused |
| what another output of this run goes to | refused |

[`write_whole`] and [`write_and_rename`] are how a file gets its name: only when it is complete and
durable. A [`PartialOutput`] is a file or directory that takes long to write: it grows beside its
place, and can be resumed. [`Transfers`] copy between files and write long runs of bytes, several at a time.

# Example

```
use moeprune_files::{OutputKind, RunFiles};

let folder = tempfile::tempdir()?;
let questions = folder.path().join("questions.jsonl");
std::fs::write(&questions, "{}")?;

let mut files = RunFiles::new();
files.reads(&questions);
let error = files.claim("--json", &questions, OutputKind::Evaluation).unwrap_err();
assert!(error.to_string().contains("it is an input of this run"));

let scores = files.claim("--json", &folder.path().join("scores.json"), OutputKind::Evaluation)?;
scores.write(|file| file.write_all(b"{}"))?;
# Ok::<(), Box<dyn std::error::Error>>(())
```

# Why it is so

*A file is known by its identity.* Inputs are compared by device and inode, so that a hard link, a
symbolic link or another spelling of an input is still that input. Where the system has no such
numbers, the canonical path stands for them.

*A previous output is known by its content.* A command that is run again replaces what it wrote the
first time. A name proves nothing: `config.json` is a name for a report as good as any. What is
looked at is bounded, and what cannot be read is no previous output.

*Refusals come first.* Hours of work must not end at a folder that cannot be written to.
*/

mod claim;
mod descriptor;
mod destination;
mod durable;
mod error;
mod identity;
mod inputs;
mod kind;
mod place;
mod positioned;
mod read;
mod run_files;
mod spot;
mod transfer;
mod whole;
mod write;

pub use self::{
    destination::Destination,
    durable::{sync, sync_bytes, sync_file},
    error::Error,
    kind::OutputKind,
    positioned::write_at,
    read::{
        Access, ChosenFiles, FileEntry, FileIdentity, FileKind, Files, Links, LocalFiles,
        MemoryFiles, ReadAt, Reading, StandIn,
    },
    run_files::RunFiles,
    transfer::{Stretch, Transfers, copy_bytes},
    whole::{rename_to_new, write_and_rename, write_whole},
    write::{FolderClaim, PartialOutput},
};
