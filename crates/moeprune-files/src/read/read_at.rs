//! An open file that is read at given places.

use std::{borrow::Cow, fmt, fs::File, io, ops::Range};

/// An open file, read at given places.
///
/// Returned by [`Files::open`](crate::Files::open). The caller reads headers and tensors from it,
/// from several threads at once, as long as it needs them; it never assumes that the file is on
/// this machine.
///
/// An implementation guarantees that
///
/// * [`len`](Self::len) is what it was when the file was opened;
/// * a range within it gives exactly its bytes, the same ones each time, and no others are read;
/// * a range that is reversed or ends behind the end is an error of the kind
///   [`UnexpectedEof`](io::ErrorKind::UnexpectedEof), never a panic and never fewer bytes, and
///   nothing is allocated for it.
///
/// ```
/// use std::{borrow::Cow, io, ops::Range};
///
/// use moeprune_files::ReadAt;
///
/// #[derive(Debug)]
/// struct Zeros(u64);
///
/// impl ReadAt for Zeros {
///     fn len(&self) -> u64 {
///         self.0
///     }
///
///     fn read_at(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
///         let length = self.check(&range)?;
///         Ok(Cow::Owned(vec![0; length]))
///     }
/// }
///
/// let file: &dyn ReadAt = &Zeros(1 << 40);
/// assert_eq!(*file.read_at(7..9)?, [0, 0]);
/// assert!(file.read_at(0..u64::MAX).is_err());
/// # Ok::<(), io::Error>(())
/// ```
#[expect(clippy::len_without_is_empty, reason = "of a file, whose emptiness interests no caller")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an open file",
    note = "implement `ReadAt::len` and `ReadAt::read_at`: the length in bytes, and the bytes of a range"
)]
pub trait ReadAt: fmt::Debug + Send + Sync {
    /// Bytes of the file.
    fn len(&self) -> u64;

    /// The bytes of a range, borrowed where they are in memory already.
    ///
    /// # Errors
    /// If the range is not within the file, or it cannot be read.
    fn read_at(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>>;

    /// Fills `bytes` with those from `at` on. The default copies what [`read_at`](Self::read_at) gives; an implementation
    /// that would take memory for that reads into `bytes` instead.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at), of the range from `at` that is as long as `bytes`.
    fn read_into(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let read = self.read_at(at..at.saturating_add(bytes.len() as u64))?;
        if read.len() != bytes.len() {
            let message =
                format!("{} bytes are left from {at} on, not {}", read.len(), bytes.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        bytes.copy_from_slice(&read);
        Ok(())
    }

    /// The file of this machine that has these bytes at the same places, if there is one: what
    /// [`copy_bytes`](crate::copy_bytes) needs for a copy that does not pass through memory. The
    /// default says that there is none.
    ///
    /// # Errors
    /// If there is one but it cannot be opened, or is not the one that was opened first.
    fn local(&self) -> io::Result<Option<File>> {
        Ok(None)
    }

    /// The length of a range that is within the file: the check that [`read_at`](Self::read_at)
    /// begins with.
    ///
    /// # Errors
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the range is not.
    fn check(&self, range: &Range<u64>) -> io::Result<usize> {
        let length = range.end.checked_sub(range.start).filter(|_| range.end <= self.len());
        length.and_then(|length| usize::try_from(length).ok()).ok_or_else(|| {
            let message = format!("{range:?} is not within the {} bytes of the file", self.len());
            io::Error::new(io::ErrorKind::UnexpectedEof, message)
        })
    }
}
