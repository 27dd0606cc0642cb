//! The older form.
//!
//! Little-endian, numbers of 32 bits: the number of entries, then per entry the length of the tensor's
//! name, the name, calls, the number of values, the values (F32). After the last, in later files: the
//! chunks that were run, the length of the text's name, the name.

use std::ops::Range;

use moeprune_files::ReadAt;

use super::{Imatrix, ImatrixEntry, ImatrixError, Tally, check_sums};

/// No tensor of a GGUF has a longer one.
const LONGEST_NAME: u64 = 1 << 10;

pub(super) fn read(file: &dyn ReadAt) -> Result<Imatrix, ImatrixError> {
    let mut reader = Reader { file, at: 0 };
    let entries = match reader.number("the number of entries") {
        Ok(number) if number >= 1 => number,
        Ok(number) => {
            let problem =
                format!("it begins with neither `GGUF` nor a number of entries ({number})");
            return Err(ImatrixError::Other(problem));
        }
        Err(_) => return Err(ImatrixError::Other(format!("it has {} bytes", file.len()))),
    };
    let mut imatrix = Imatrix::default();
    for index in 0..entries {
        let (name, entry) = read_entry(&mut reader, &format!("entry {index}"))?;
        if imatrix.entries.insert(name.clone(), entry).is_some() {
            return Err(ImatrixError::tensor(name, "one entry", "two"));
        }
    }
    if reader.left() > 0 {
        let chunks = reader.number("the number of chunks")?;
        imatrix.chunk_count = u64::try_from(chunks).ok().filter(|&chunks| chunks > 0);
    }
    if reader.left() > 0 {
        let name = reader.text("the name of the text")?;
        imatrix.datasets.extend((!name.is_empty()).then_some(name));
    }
    match reader.left() {
        0 => Ok(imatrix),
        left => Err(broken("after the name of the text", "the end", format!("{left} bytes"))),
    }
}

fn read_entry(
    reader: &mut Reader<'_>,
    place: &str,
) -> Result<(String, ImatrixEntry), ImatrixError> {
    let name = reader.text(place)?;
    if name.is_empty() {
        return Err(broken(place, "the name of a tensor", "an empty one"));
    }
    let calls = reader.number(&name)?;
    let calls = match u64::try_from(calls) {
        Ok(calls) if calls >= 1 => calls,
        _ => return Err(ImatrixError::tensor(name, "at least one call", calls)),
    };
    let values = reader.number(&name)?;
    let inputs = match usize::try_from(values) {
        Ok(inputs) if inputs >= 1 => inputs,
        _ => return Err(ImatrixError::tensor(name, "at least one value", values)),
    };
    let bytes = reader.take(4 * inputs as u64, &name)?;
    let bytes = reader.file.read_at(bytes)?;
    let sums: Vec<f32> = bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
    check_sums(&name, &sums)?;
    Ok((name, ImatrixEntry { matrices: 1, inputs, sums, tally: Tally::Calls(calls) }))
}

/// Goes through a file from its beginning.
struct Reader<'a> {
    file: &'a dyn ReadAt,
    at: u64,
}

impl Reader<'_> {
    fn left(&self) -> u64 {
        self.file.len() - self.at
    }

    /// The place of the next bytes, which are within the file; `place` is what they belong to.
    fn take(&mut self, bytes: u64, place: &str) -> Result<Range<u64>, ImatrixError> {
        let left = self.left();
        if bytes > left {
            return Err(broken(place, format!("{bytes} bytes"), format!("{left}")));
        }
        let begin = self.at;
        self.at += bytes;
        Ok(begin..self.at)
    }

    fn number(&mut self, place: &str) -> Result<i32, ImatrixError> {
        let range = self.take(4, place)?;
        let bytes = self.file.read_at(range)?;
        Ok(bytes.first_chunk().map_or(0, |&four| i32::from_le_bytes(four)))
    }

    fn text(&mut self, place: &str) -> Result<String, ImatrixError> {
        let length = self.number(place)?;
        let length = match u64::try_from(length) {
            Ok(length) if length <= LONGEST_NAME => length,
            _ => {
                let expected = format!("a name of at most {LONGEST_NAME} bytes");
                return Err(broken(place, expected, format!("one of {length}")));
            }
        };
        let range = self.take(length, place)?;
        let bytes = self.file.read_at(range)?;
        String::from_utf8(bytes.into_owned())
            .map_err(|_| broken(place, "a name in UTF-8", "other bytes"))
    }
}

fn broken(
    place: impl Into<String>,
    expected: impl Into<String>,
    got: impl Into<String>,
) -> ImatrixError {
    ImatrixError::Broken { place: place.into(), expected: expected.into(), got: got.into() }
}
