//! The header of a file.

mod parse;
mod ranges;
mod tensor;

use moeprune_files::ReadAt;

pub use self::tensor::{NewTensor, TensorInfo};
use crate::{Entries, Error, Value};

/// The key that says to a multiple of how many bytes tensors are moved up.
const ALIGNMENT: &str = "general.alignment";

/// What a file begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    version: u32,
    alignment: u64,
    entries: Entries,
    tensors: Vec<TensorInfo>,
    data_start: u64,
}

impl Header {
    /// Reads a header, and nothing of the tensors.
    ///
    /// # Errors
    /// If it is not one that is read (see [the crate's page](crate)), or the file cannot be read.
    pub fn read(file: &dyn ReadAt) -> Result<Self, Error> {
        let parse::Parsed { version, entries, tensors, length } = parse::parse(file)?;
        let alignment = alignment_of(&entries)?;
        let data_start = length.next_multiple_of(alignment);
        let data = ranges::Data { start: data_start, file_end: file.len(), alignment };
        let tensors = data.place(tensors)?;
        Ok(Self { version, alignment, entries, tensors, data_start })
    }

    /// The header of a file with these tensors one after the other, each moved up to the alignment that
    /// `general.alignment` says (32 if it is not there).
    ///
    /// # Errors
    /// If the version is none that is read, names repeat, ggml lacks a type, a row is no whole number of
    /// blocks, or sizes cannot be counted.
    pub fn new(version: u32, entries: Entries, tensors: Vec<NewTensor>) -> Result<Self, Error> {
        parse::check_version(version)?;
        parse::check_names(tensors.iter().map(|tensor| tensor.name.as_str()))?;
        let alignment = alignment_of(&entries)?;
        let mut header = Self { version, alignment, entries, tensors: Vec::new(), data_start: 0 };
        let start = |tensor| TensorInfo::at(tensor, 0);
        header.tensors = tensors.into_iter().map(start).collect::<Result<_, _>>()?;
        header.data_start =
            header.unpadded_bytes().len().next_multiple_of(alignment as usize) as u64;
        let mut end = header.data_start;
        for tensor in &mut header.tensors {
            let bytes = tensor.range.end - tensor.range.start;
            let start = end.checked_next_multiple_of(alignment);
            let placed = start.and_then(|start| Some(start..start.checked_add(bytes)?));
            let too_many = || Error::tensor(&tensor.name, "ends beyond what can be counted");
            tensor.range = placed.ok_or_else(too_many)?;
            end = tensor.range.end;
        }
        Ok(header)
    }

    /// Version of the format: 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The bytes to a multiple of which each tensor is moved up.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The key-value pairs.
    #[must_use]
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The tensors in the order in which they are listed.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor with this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Where in the file tensors begin; its length, where there is none.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// Where the last tensor ends, moved up to the alignment: the length of a file as ggml writes it.
    #[must_use]
    pub fn data_end(&self) -> u64 {
        let ends = self.tensors.iter().map(|tensor| tensor.range.end);
        ends.max().unwrap_or(self.data_start).next_multiple_of(self.alignment)
    }

    /// The bytes of the file up to [`data_start`](Self::data_start): those that were read, if it was read,
    /// but for padding, which is of zeros. A file without tensors may end before the padding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.unpadded_bytes();
        bytes.resize(bytes.len().next_multiple_of(self.alignment as usize), 0);
        bytes
    }

    fn unpadded_bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        self.entries.append_to(&mut bytes);
        for tensor in &self.tensors {
            Value::String(tensor.name.as_bytes()).append_to(&mut bytes);
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            for &dim in tensor.shape.iter().rev() {
                bytes.extend((dim as u64).to_le_bytes());
            }
            // A tensor's type was read as a number of ggml's or checked to have one.
            bytes.extend(tensor.dtype.ggml_id().unwrap_or(u32::MAX).to_le_bytes());
            let offset = tensor.range.start.saturating_sub(self.data_start);
            bytes.extend(offset.to_le_bytes());
        }
        bytes
    }
}

/// The alignment that entries ask for.
fn alignment_of(entries: &Entries) -> Result<u64, Error> {
    let alignment = entries.number(ALIGNMENT)?.unwrap_or(32);
    // Padding is held in memory. No writer pads to more than a page.
    if !alignment.is_power_of_two() || !(8..=1 << 20).contains(&alignment) {
        let reason = format!("is {alignment}, expected a power of two from 8 to 1048576");
        return Err(Error::key(ALIGNMENT, reason));
    }
    Ok(alignment)
}
