//! A column of a group of rows: its levels and values, a page at a time in memory.

use std::{fs::File, rc::Rc};

use super::{
    bits::Runs,
    codec::Codec,
    footer::{Chunk, read_at},
    page::{Header, Kind as PageKind, RUNS},
    schema::Physical,
    thrift::Broken,
    values::{Dictionary, Kind, Values},
};

/// Where a value stands: the level at which it repeats, and how much of its path is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Levels {
    pub(super) repetition: u32,
    pub(super) definition: u32,
}

/// A column that is read from its first value to its last.
pub(super) struct Column {
    file: Rc<File>,
    kind: Kind,
    /// The deepest levels that it has.
    deepest: Levels,
    /// Whether a value that is no text is left out, and no error.
    pub(super) lenient: bool,
    codec: Codec,
    /// Where the next page begins, and where the last one ends.
    at: u64,
    end: u64,
    dictionary: Option<Dictionary>,
    page: Option<Page>,
    next: Option<Levels>,
}

struct Page {
    bytes: Vec<u8>,
    left: u64,
    repetition: Option<Runs>,
    definition: Option<Runs>,
    values: Values,
}

/// Headers are shorter, unless they have long statistics.
const HEADER: u64 = 1 << 12;
const LONGEST_HEADER: u64 = 16 << 20;

impl Column {
    pub(super) fn new(
        file: Rc<File>,
        chunk: &Chunk,
        (physical, unsigned): (Physical, bool),
        deepest: Levels,
    ) -> Result<Self, Broken> {
        Ok(Self {
            file,
            kind: Kind { physical, unsigned },
            deepest,
            lenient: false,
            codec: chunk.codec()?,
            at: chunk.start,
            end: chunk.end,
            dictionary: None,
            page: None,
            next: None,
        })
    }

    /// The levels of the next value, which stays; `None` at the end.
    pub(super) fn peek(&mut self) -> Result<Option<Levels>, Broken> {
        if self.next.is_none() {
            while self.page.as_ref().is_none_or(|page| page.left == 0) {
                if self.at >= self.end {
                    return Ok(None);
                }
                self.next_page()?;
            }
            if let Some(page) = &mut self.page {
                self.next = Some(page.next_levels(self.deepest)?);
            }
        }
        Ok(self.next)
    }

    /// Takes the levels of the next value, which is null or part of nothing.
    pub(super) fn skip(&mut self) -> Result<(), Broken> {
        match self.peek()? {
            Some(levels) if levels.definition < self.deepest.definition => {
                self.next = None;
                Ok(())
            }
            _ => Err(Broken::because("columns of different lengths")),
        }
    }

    /// Takes the next value, also if it is no text, and writes it as JSON.
    pub(super) fn write_value(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        let levels = self.peek()?.filter(|levels| levels.definition == self.deepest.definition);
        let (Some(_), Some(page)) = (levels, &mut self.page) else {
            return Err(Broken::because("a value that is not there"));
        };
        self.next = None;
        page.values.write_next(self.kind, &page.bytes, self.dictionary.as_ref(), out)
    }

    fn next_page(&mut self) -> Result<(), Broken> {
        let header = self.header()?;
        let start = self.at + header.length as u64;
        let end = start.checked_add(header.packed as u64).filter(|end| *end <= self.end);
        let end = end.ok_or_else(|| Broken::because("a page that goes beyond its column"))?;
        if header.kind == PageKind::Other {
            self.at = end;
            return Ok(());
        }
        let mut packed = vec![0; header.packed];
        read_at(&self.file, start, &mut packed)?;
        self.at = end;
        self.page = None;
        match header.kind {
            PageKind::Dictionary => {
                let page = self.codec.unpack(&packed, header.unpacked)?;
                self.dictionary = Some(Dictionary::new(self.kind, page, header.values)?);
            }
            PageKind::DataWithLevels { repetition, definition, packed: is_packed } => {
                let levels = repetition.saturating_add(definition);
                let (Some(values), Some(size)) =
                    (packed.get(levels..), header.unpacked.checked_sub(levels))
                else {
                    return Err(Broken::because("levels that go beyond their page"));
                };
                let codec = if is_packed && !values.is_empty() { self.codec } else { Codec::None };
                let values = codec.unpack(values, size)?;
                packed.truncate(levels);
                packed.extend(values);
                self.page = Some(self.data(&header, packed, Some((repetition, definition)))?);
            }
            _ => {
                let bytes = self.codec.unpack(&packed, header.unpacked)?;
                self.page = Some(self.data(&header, bytes, None)?);
            }
        }
        Ok(())
    }

    fn header(&self) -> Result<Header, Broken> {
        let mut length = HEADER;
        loop {
            let there = length.min(self.end - self.at);
            let mut bytes = vec![0; there as usize];
            read_at(&self.file, self.at, &mut bytes)?;
            match Header::parse(&bytes) {
                Err(Broken::End) if there == length && length < LONGEST_HEADER => length *= 8,
                parsed => return parsed,
            }
        }
    }

    /// A page of data; `lengths` are those of its levels, if its header has them.
    fn data(
        &self,
        header: &Header,
        bytes: Vec<u8>,
        lengths: Option<(usize, usize)>,
    ) -> Result<Page, Broken> {
        let (definition, repetition) = header.levels;
        let is_read = |encoding, deepest| deepest == 0 || encoding == RUNS;
        if !is_read(definition, self.deepest.definition)
            || !is_read(repetition, self.deepest.repetition)
        {
            return Err(Broken::because("levels as packed bits, which is not read"));
        }
        let mut at = 0;
        let mut levels = |deepest: u32, length: Option<usize>| {
            if deepest == 0 && length.is_none_or(|length| length == 0) {
                return Ok(None);
            }
            let (start, length) = match length {
                Some(length) => (at, length),
                None => {
                    let size = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Broken::End)?;
                    (at + 4, u32::from_le_bytes(*size) as usize)
                }
            };
            let end = start.checked_add(length).filter(|end| *end <= bytes.len());
            at = end.ok_or(Broken::End)?;
            Runs::new(start, at, 32 - deepest.leading_zeros()).map(Some)
        };
        let repetition = levels(self.deepest.repetition, lengths.map(|(length, _)| length))?;
        let definition = levels(self.deepest.definition, lengths.map(|(_, length)| length))?;
        let values = Values::new(self.kind, header.encoding, &bytes, at, header.values)?;
        Ok(Page { bytes, left: header.values, repetition, definition, values })
    }
}

impl Page {
    fn next_levels(&mut self, deepest: Levels) -> Result<Levels, Broken> {
        self.left = self.left.saturating_sub(1);
        let next = |runs: &mut Option<Runs>, deepest: u32| match runs {
            Some(runs) => runs.next(&self.bytes),
            None => Ok(deepest),
        };
        let repetition = if deepest.repetition == 0 { 0 } else { next(&mut self.repetition, 0)? };
        let definition = next(&mut self.definition, deepest.definition)?;
        match repetition <= deepest.repetition && definition <= deepest.definition {
            true => Ok(Levels { repetition, definition }),
            false => Err(Broken::because("levels that its schema does not have")),
        }
    }
}
