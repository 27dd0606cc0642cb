//! Many bytes into a file: several reads and writes at a time, in the way that was fastest.

mod block;
mod lanes;
mod pace;
mod piece;
mod target;
mod way;
mod writeback;

use std::{collections::BTreeMap, fs::File, io, time::Instant};

use self::{
    lanes::Lanes,
    pace::Pace,
    piece::{Origin, Piece, portions},
};

/// Bytes of a file, and where they go in another.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller")]
pub struct Stretch<'a> {
    /// The file that has the bytes.
    pub from: &'a File,
    /// Where they begin in it.
    pub from_at: u64,
    /// Where they begin in the file that is written.
    pub to_at: u64,
    /// How many they are.
    pub bytes: u64,
}

/// Copies and writes, several blocks at a time.
///
/// How many, of what size, and whether past the system's cache, through it, or within the system
/// (`copy_file_range`, which lets file systems share blocks), is measured: between two file systems the first
/// portions go each way in turns, and the rest goes the fastest. The bytes are the same with any way.
/// Little of what is written stays in the system's cache: it is not read again soon, and would push out
/// what others read.
///
/// ```
/// use std::fs::{self, File};
///
/// use moeprune_files::{Stretch, Transfers};
///
/// let dir = tempfile::tempdir()?;
/// fs::write(dir.path().join("a"), "0123456789")?;
/// let (from, to) = (File::open(dir.path().join("a"))?, File::create(dir.path().join("b"))?);
/// let mut transfers = Transfers::default();
/// let stretch = Stretch { from: &from, from_at: 4, to_at: 1, bytes: 3 };
/// transfers.copy(&[stretch], &to, &mut |_| ())?;
/// transfers.write(b"-", &to, 0)?;
/// assert_eq!(fs::read(dir.path().join("b"))?, b"-456");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Transfers {
    /// By where bytes come from (`None`: memory) and where they go.
    paces: BTreeMap<(Option<Device>, Device), Pace>,
    /// Memory that is kept from one transfer to the next.
    lanes: Lanes,
}

/// The number of a file system.
type Device = u64;

impl Transfers {
    /// Copies stretches into a file, given in the order of their places there; `copied` is called with the
    /// length of each step.
    ///
    /// # Errors
    /// If reading or writing fails: the failure at the first place in the file that is written. Of the
    /// kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if a file that is read ends before.
    pub fn copy(
        &mut self,
        stretches: &[Stretch<'_>],
        to: &File,
        copied: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        // Stretches of other file systems are transfers of their own.
        let mut devices = Vec::with_capacity(stretches.len());
        for stretch in stretches {
            devices.push((device(stretch.from)?, stretch));
        }
        for alike in devices.chunk_by(|(a, _), (b, _)| a == b) {
            let pieces = alike.iter().map(|&(_, &Stretch { from, from_at, to_at, bytes })| Piece {
                origin: Origin::File(from, from_at),
                to_at,
                bytes,
            });
            let pieces: Vec<Piece<'_>> = pieces.collect();
            self.transfer(Some(alike[0].0), &pieces, to, copied)?;
        }
        Ok(())
    }

    /// Writes bytes to a place of a file.
    ///
    /// # Errors
    /// If writing fails: the failure at the first place in the file.
    pub fn write(&mut self, bytes: &[u8], to: &File, at: u64) -> io::Result<()> {
        let piece = Piece { origin: Origin::Memory(bytes), to_at: at, bytes: bytes.len() as u64 };
        self.transfer(None, &[piece], to, &mut |_| ())
    }

    fn transfer(
        &mut self,
        from: Option<Device>,
        pieces: &[Piece<'_>],
        to: &File,
        copied: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let device = device(to)?;
        let pace = self.paces.entry((from, device)).or_insert_with(|| match from {
            Some(from) if from == device => Pace::of_copies(target::file_system_copies(to)),
            _ => Pace::of_writes(),
        });
        let mut rest: Vec<_> = pieces.iter().filter(|piece| piece.bytes > 0).copied().collect();
        while !rest.is_empty() {
            let left = rest.iter().map(|piece| piece.bytes).sum();
            let trial = pace.next(left);
            let portion = portions(&mut rest, trial.bytes);
            let began = Instant::now();
            let done = self.lanes.run(trial, &portion, to, copied)?;
            pace.took(trial, began.elapsed(), done.refused);
        }
        Ok(())
    }
}

/// Copies bytes between places of two files, as [`Transfers`] do; `copied` is called with the length of
/// each step.
///
/// # Errors
/// If reading or writing fails; of the kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the
/// first file ends before.
pub fn copy_bytes(
    (from, from_at): (&File, u64),
    (to, to_at): (&File, u64),
    bytes: u64,
    copied: &mut dyn FnMut(u64),
) -> io::Result<()> {
    Transfers::default().copy(&[Stretch { from, from_at, to_at, bytes }], to, copied)
}

#[cfg(unix)]
fn device(file: &File) -> io::Result<Device> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(file.metadata()?.dev())
}

#[cfg(not(unix))]
fn device(_file: &File) -> io::Result<Device> {
    Ok(0)
}
