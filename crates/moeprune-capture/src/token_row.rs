//! Token ids in a row that may be longer than memory should hold.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    ops::Range,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use thiserror::Error;

/// Ids held in memory before they go to a file: 32 MB.
const HELD: usize = 8 << 20;

/// Bytes of one id in the file.
const ID: usize = size_of::<u32>();

/// Token ids, one after the other: as many as a text of any size has, in a bounded amount of memory.
///
/// Beyond 32 MB they lie in an unnamed file in the folder for temporary files (`TMPDIR`), four bytes each,
/// which goes with this.
///
/// ```
/// use moeprune_capture::TokenRow;
///
/// let mut row = TokenRow::from(vec![5, 3]);
/// row.push(&[8])?;
/// assert_eq!((row.len(), row.largest()), (3, Some(8)));
/// assert_eq!(row.ids(1..3)?, [3, 8]);
/// # Ok::<(), moeprune_capture::TokenRowError>(())
/// ```
#[derive(Debug)]
pub struct TokenRow {
    /// Those that came after the ones in the file.
    held: Vec<u32>,
    file: Option<Mutex<File>>,
    in_file: usize,
    largest: Option<u32>,
    /// How many are held before they go to the file.
    most: usize,
}

/// Why ids could not be kept in a temporary file, or taken from it.
#[derive(Debug, Error)]
#[error(
    "cannot keep {tokens} tokens in a temporary file in {}: {source}; set TMPDIR to a folder with more room, or use \
     less text",
    folder.display()
)]
pub struct TokenRowError {
    tokens: usize,
    folder: PathBuf,
    source: io::Error,
}

impl Default for TokenRow {
    fn default() -> Self {
        Self { held: Vec::new(), file: None, in_file: 0, largest: None, most: HELD }
    }
}

impl From<Vec<u32>> for TokenRow {
    fn from(ids: Vec<u32>) -> Self {
        Self { largest: ids.iter().copied().max(), held: ids, ..Self::default() }
    }
}

impl TokenRow {
    /// Number of ids.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_file + self.held.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest id; `None` if there are none.
    #[must_use]
    pub fn largest(&self) -> Option<u32> {
        self.largest
    }

    /// Appends ids.
    ///
    /// # Errors
    /// If they are more than memory should hold, and the temporary file cannot be made or written.
    pub fn push(&mut self, ids: &[u32]) -> Result<(), TokenRowError> {
        self.largest = self.largest.max(ids.iter().copied().max());
        if self.held.len() + ids.len() > self.most {
            self.spill(ids).map_err(|source| self.failed(source))?;
        } else {
            self.held.extend_from_slice(ids);
        }
        Ok(())
    }

    /// Appends another row.
    ///
    /// # Errors
    /// As [`push`](Self::push), and of the other row as [`ids`](Self::ids).
    pub fn append(&mut self, other: &Self) -> Result<(), TokenRowError> {
        let (mut first, all) = (0, other.len());
        while first < all {
            let last = all.min(first + self.most.max(1));
            self.push(&other.ids(first..last)?)?;
            first = last;
        }
        Ok(())
    }

    /// The ids at some places. A range beyond the last one is cut there.
    ///
    /// # Errors
    /// If the temporary file cannot be read.
    pub fn ids(&self, places: Range<usize>) -> Result<Vec<u32>, TokenRowError> {
        let end = places.end.min(self.len());
        let start = places.start.min(end);
        let mut ids = Vec::with_capacity(end - start);
        let in_file = start.min(self.in_file)..end.min(self.in_file);
        if !in_file.is_empty() {
            self.read(in_file, &mut ids).map_err(|source| self.failed(source))?;
        }
        let held = start.max(self.in_file) - self.in_file..end.max(self.in_file) - self.in_file;
        ids.extend_from_slice(&self.held[held]);
        Ok(ids)
    }

    /// Writes what is held, and `ids`, to the file.
    fn spill(&mut self, ids: &[u32]) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file.into_inner().unwrap_or_else(PoisonError::into_inner),
            None => tempfile::tempfile()?,
        };
        // A write that failed before may have left bytes behind.
        file.seek(SeekFrom::Start((self.in_file * ID) as u64))?;
        for part in [&self.held, ids] {
            for ids in part.chunks(1 << 16) {
                let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                file.write_all(&bytes)?;
            }
        }
        self.in_file += self.held.len() + ids.len();
        self.held.clear();
        self.file = Some(Mutex::new(file));
        Ok(())
    }

    fn read(&self, places: Range<usize>, into: &mut Vec<u32>) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start((places.start * ID) as u64))?;
        let mut bytes = vec![0; places.len() * ID];
        file.read_exact(&mut bytes)?;
        let (ids, _) = bytes.as_chunks::<ID>();
        into.extend(ids.iter().map(|id| u32::from_le_bytes(*id)));
        Ok(())
    }

    fn failed(&self, source: io::Error) -> TokenRowError {
        TokenRowError { tokens: self.len(), folder: std::env::temp_dir(), source }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small(most: usize) -> TokenRow {
        TokenRow { most, ..TokenRow::default() }
    }

    proptest! {
        #[test]
        fn a_row_is_its_pieces(
            pieces in prop::collection::vec(prop::collection::vec(0_u32..1000, 0..9), 0..9),
            most in 0_usize..12,
            places in (0_usize..80, 0_usize..80),
        ) {
            let all = pieces.concat();
            let (mut row, mut appended) = (small(most), small(3));
            for piece in &pieces {
                row.push(piece).unwrap();
                let mut other = small(most);
                other.push(piece).unwrap();
                appended.append(&other).unwrap();
            }
            let places = places.0.min(places.1)..places.0.max(places.1);
            let expected = &all[places.start.min(all.len())..places.end.min(all.len())];
            for row in [row, appended] {
                prop_assert_eq!(row.len(), all.len());
                prop_assert_eq!(row.largest(), all.iter().copied().max());
                prop_assert_eq!(&row.ids(places.clone()).unwrap(), expected);
            }
        }
    }

    #[test]
    fn much_is_not_held() {
        let mut row = small(100);
        (0..50_u32).for_each(|piece| row.push(&[piece; 70]).unwrap());
        assert!(row.file.is_some() && row.held.capacity() <= 200, "{}", row.held.capacity());
        assert_eq!(row.ids(69..71).unwrap(), [0, 1]);
    }
}
