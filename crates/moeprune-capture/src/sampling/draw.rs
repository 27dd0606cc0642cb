//! Blocks from random places of a text that is walked over once.

use std::collections::BTreeSet;

use super::{BlockOrigin, SamplingOptions, TokenBlocks};
use crate::{Error, TokenRow, random::Random};

/// Blocks that are drawn for each that is to be apart from others.
const CANDIDATES: usize = 16;

/// A draw while the text is walked over.
pub(super) struct Draw {
    options: SamplingOptions,
    /// Those of the options, then the candidates for each group of others.
    samples: Vec<Sample>,
    documents: u64,
    long: u64,
    /// Tokens of the long documents.
    long_tokens: u64,
    /// All documents, until one is long.
    row: TokenRow,
    ready_made: bool,
}

struct Sample {
    random: Random,
    place: Place,
    block: Vec<u32>,
}

/// Where a block begins: which long document it is in, 0 for the row of all, and at which of its tokens.
type Place = (u64, usize);

impl Draw {
    /// `apart`: so many blocks are wanted in each group of others.
    pub(super) fn new(options: &SamplingOptions, apart: &[usize]) -> Self {
        let candidates = apart.iter().map(|&blocks| candidates(blocks));
        let streams = candidates.fold(options.samples, usize::saturating_add);
        let sample = |i| Sample {
            random: Random::new(options.seed, i as u64),
            place: (0, 0),
            block: Vec::new(),
        };
        Self {
            options: *options,
            samples: (0..streams).map(sample).collect(),
            documents: 0,
            long: 0,
            long_tokens: 0,
            row: TokenRow::default(),
            ready_made: true,
        }
    }

    /// Takes the next document. How many follow is not known: each sample replaces what it holds by
    /// the n-th long document with probability 1/n, which makes all equally likely.
    pub(super) fn document(&mut self, ids: &TokenRow, given: bool) -> Result<(), Error> {
        let wanted = self.options.sequence_len;
        self.documents += 1;
        self.ready_made &= given && ids.len() == wanted;
        if ids.len() > wanted {
            self.long += 1;
            self.long_tokens += ids.len() as u64;
            self.row = TokenRow::default();
            for sample in &mut self.samples {
                if sample.random.below(self.long) == 0 {
                    sample.take(self.long, ids, wanted)?;
                }
            }
        } else if self.long == 0 {
            self.row.append(ids)?;
        }
        Ok(())
    }

    /// The blocks of the options, and the groups that are apart from them.
    pub(super) fn finish<const GROUPS: usize>(
        mut self,
        name: &str,
        apart: [usize; GROUPS],
    ) -> Result<(TokenBlocks, [TokenBlocks; GROUPS]), Error> {
        let SamplingOptions { sequence_len, seed, .. } = self.options;
        let (have, documents) = (self.row.len(), self.documents);
        let (origin, drawable) = if self.long > 0 {
            (BlockOrigin::LongDocuments { long: self.long, documents }, self.long_tokens)
        } else if self.ready_made && documents > 0 {
            return self.given(name, apart);
        } else if have <= sequence_len {
            let (name, need) = (name.to_owned(), sequence_len.saturating_add(1));
            return Err(Error::TooShort { name, have, need, sequence_len });
        } else {
            for sample in &mut self.samples {
                sample.take(0, &self.row, sequence_len)?;
            }
            (BlockOrigin::Packed { documents }, have as u64)
        };
        let mut drawn = self.samples.split_off(self.options.samples).into_iter();
        let mut taken: BTreeSet<Place> = self.samples.iter().map(|sample| sample.place).collect();
        let blocks = |samples: Vec<Sample>| TokenBlocks {
            blocks: samples.into_iter().map(|sample| sample.block).collect(),
            sequence_len,
            seed,
            origin,
            drawable,
        };
        let groups = apart.map(|wanted| {
            let mut group: Vec<Sample> = drawn.by_ref().take(candidates(wanted)).collect();
            group.retain(|sample| is_apart(sample, &taken, sequence_len));
            group.truncate(wanted);
            taken.extend(group.iter().map(|sample| sample.place));
            blocks(group)
        });
        Ok((blocks(self.samples), groups))
    }

    /// Ready-made blocks, in their order.
    fn given<const GROUPS: usize>(
        self,
        name: &str,
        apart: [usize; GROUPS],
    ) -> Result<(TokenBlocks, [TokenBlocks; GROUPS]), Error> {
        let SamplingOptions { samples: asked, sequence_len, .. } = self.options;
        let have = self.row.len() / sequence_len;
        if have < asked {
            let name = name.to_owned();
            return Err(Error::TooFewBlocks { name, have, need: asked, sequence_len });
        }
        let (origin, drawable) =
            (BlockOrigin::Given { documents: self.documents }, self.row.len() as u64);
        let mut used = 0;
        let mut next = |count: usize| {
            let first = used;
            used = have.min(first + count);
            let block = |block| self.row.ids(block * sequence_len..(block + 1) * sequence_len);
            let blocks = (first..used).map(block).collect::<Result<_, _>>()?;
            Ok::<_, Error>(TokenBlocks { blocks, sequence_len, seed: 0, origin, drawable })
        };
        let first = next(asked)?;
        let none = || TokenBlocks { blocks: Vec::new(), sequence_len, seed: 0, origin, drawable };
        let mut groups = apart.map(|_| none());
        for (group, wanted) in groups.iter_mut().zip(apart) {
            *group = next(wanted)?;
        }
        Ok((first, groups))
    }
}

/// Blocks that are drawn for a group of this size.
fn candidates(wanted: usize) -> usize {
    wanted.saturating_mul(CANDIDATES)
}

/// Whether a block shares no token with those that were taken.
fn is_apart(sample: &Sample, taken: &BTreeSet<Place>, sequence_len: usize) -> bool {
    let (document, at) = sample.place;
    let first = at.saturating_sub(sequence_len - 1);
    taken.range((document, first)..(document, at + sequence_len)).next().is_none()
}

impl Sample {
    /// Takes a block from a random place of `ids`, which has more tokens than that.
    fn take(&mut self, document: u64, ids: &TokenRow, sequence_len: usize) -> Result<(), Error> {
        let offset = self.random.below((ids.len() - sequence_len) as u64) as usize;
        self.place = (document, offset);
        self.block = ids.ids(offset..offset + sequence_len)?;
        Ok(())
    }
}
