//! Which tokens of a calibration text the model is run on.

mod draw;

use std::ops::Range;

use tokenizers::Tokenizer;

use self::draw::Draw;
use crate::{
    CalibrationSource, Error,
    encoding::{Tokens, for_each_document},
};

/// How many blocks of how many tokens, and the seed they are drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what a block draw depends on, and nothing else")]
pub struct SamplingOptions {
    /// Number of blocks `N`.
    pub samples: usize,
    /// Tokens in a block, `T`. No more than the model's longest sequence makes sense.
    pub sequence_len: usize,
    /// Seed of the draw.
    pub seed: u64,
}

impl Default for SamplingOptions {
    /// 128 blocks of 2048 tokens with seed 0.
    fn default() -> Self {
        Self { samples: 128, sequence_len: 2048, seed: 0 }
    }
}

/// Blocks of token ids that a model is run on, each in one forward call.
///
/// There is no padding: a padded token would be counted as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBlocks {
    blocks: Vec<Vec<u32>>,
    sequence_len: usize,
    seed: u64,
    origin: BlockOrigin,
    drawable: u64,
}

/// How blocks were taken from a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockOrigin {
    /// Each from a random place of a random document longer than a block.
    LongDocuments {
        /// Documents that were long enough.
        long: u64,
        /// Documents in the text.
        documents: u64,
    },
    /// No document was long enough: each from a random place of all documents in a row.
    Packed {
        /// Documents in the text.
        documents: u64,
    },
    /// The text was blocks of the right length already; they were used as they are.
    Given {
        /// Documents in the text: blocks.
        documents: u64,
    },
    /// The whole text, cut into consecutive blocks.
    InOrder {
        /// Documents in the text.
        documents: u64,
    },
}

impl BlockOrigin {
    /// Documents in the text.
    #[must_use]
    pub fn documents(self) -> u64 {
        match self {
            Self::LongDocuments { documents, .. }
            | Self::Packed { documents }
            | Self::Given { documents }
            | Self::InOrder { documents } => documents,
        }
    }
}

impl TokenBlocks {
    /// Takes blocks that exist already. They must be of one length and not empty.
    ///
    /// # Errors
    /// If there are none, their lengths differ, or an id is not below `vocab`.
    pub fn new(blocks: Vec<Vec<u32>>, vocab: usize) -> Result<Self, Error> {
        let sequence_len = blocks.first().map_or(0, Vec::len);
        SamplingOptions { samples: blocks.len(), sequence_len, seed: 0 }.check()?;
        for (block, ids) in blocks.iter().enumerate() {
            if ids.len() != sequence_len {
                let (expected, got) = (sequence_len, ids.len());
                return Err(Error::UnequalBlocks { block, expected, got });
            }
            if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab) {
                let at = format!("block {} of the calibration tokens", block + 1);
                return Err(Error::TokenId { at, id, token: None, vocab });
            }
        }
        let (origin, drawable) = (BlockOrigin::Given { documents: blocks.len() as u64 }, 0);
        let blocks = Self { blocks, sequence_len, seed: 0, origin, drawable };
        Ok(Self { drawable: blocks.tokens(), ..blocks })
    }

    /// These blocks and then those of `others`, which may have other lengths.
    #[must_use]
    pub fn followed_by<'a>(mut self, others: impl IntoIterator<Item = &'a Self>) -> Self {
        others.into_iter().for_each(|other| self.blocks.extend_from_slice(&other.blocks));
        self
    }

    /// The blocks. All have [`sequence_len`](Self::sequence_len) tokens, but that the last may be
    /// shorter when the text was cut [in order](token_blocks_in_order).
    #[must_use]
    pub fn blocks(&self) -> &[Vec<u32>] {
        &self.blocks
    }

    /// The blocks, at most `size` neighbours of one length at a time. A `size` of 0 is one of 1.
    pub fn batches(&self, size: usize) -> impl Iterator<Item = &[Vec<u32>]> {
        self.blocks
            .chunk_by(|a, b| a.len() == b.len())
            .flat_map(move |same| same.chunks(size.max(1)))
    }

    /// The first `count` blocks, or all if there are fewer, and the others.
    #[must_use]
    pub fn split_at(self, count: usize) -> (Self, Self) {
        let mut first = self;
        let rest = first.blocks.split_off(count.min(first.blocks.len()));
        let Self { sequence_len, seed, origin, drawable, .. } = first;
        let rest = Self { blocks: rest, sequence_len, seed, origin, drawable };
        (first, rest)
    }

    /// Some of the blocks. A range beyond the last one is cut there.
    #[must_use]
    pub fn range(&self, blocks: Range<usize>) -> Self {
        let end = blocks.end.min(self.blocks.len());
        let blocks = self.blocks[blocks.start.min(end)..end].to_vec();
        let Self { sequence_len, seed, origin, drawable, .. } = *self;
        Self { blocks, sequence_len, seed, origin, drawable }
    }

    /// Tokens in a block.
    #[must_use]
    pub fn sequence_len(&self) -> usize {
        self.sequence_len
    }

    /// Seed they were drawn with; 0 where nothing was drawn.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How they were taken from the text.
    #[must_use]
    pub fn origin(&self) -> BlockOrigin {
        self.origin
    }

    /// Tokens of the text that blocks could be drawn from: of the documents that are longer than a block, or of
    /// all if none is.
    #[must_use]
    pub fn drawable(&self) -> u64 {
        self.drawable
    }

    /// Tokens in all blocks.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.blocks.iter().map(|block| block.len() as u64).sum()
    }
}

/// Draws blocks from a calibration text.
///
/// With `N` blocks of `T` tokens asked for:
///
/// * A text of token ids in which every document has exactly `T` of them is a file of ready-made
///   blocks: the first `N` are used as they are, and the seed plays no part.
/// * Otherwise, documents of more than `T` tokens are drawn from, uniformly and *with replacement*,
///   each from an offset that is uniform in `0..=len − T − 1`. This is the rule that Wanda, OWL and
///   STUN calibrate by (whose largest offset leaves the last token out).
/// * If no document is that long, all are put in a row, each with the special tokens its tokenizer
///   gives it, and the same rule is applied to the row.
///
/// The random numbers are not those of the Python generator that the published scripts use, so a
/// seed does not draw the blocks it draws there. They are xoshiro256++, one stream per block, and will
/// stay so: block `i` depends on the text, on `T`, on the seed and on `i`, not on `N`.
///
/// The text is walked over once and only drawn blocks are kept, so its size does not matter: a row of short
/// documents, and one long document, lie in a temporary file beyond 32 MB ([`TokenRow`](crate::TokenRow)).
///
/// # Errors
/// If the text cannot be read, is text and no tokenizer is given, is too short, or has an id that
/// is not below `vocab`.
pub fn token_blocks(
    source: &dyn CalibrationSource,
    tokenizer: Option<&Tokenizer>,
    vocab: usize,
    options: &SamplingOptions,
) -> Result<TokenBlocks, Error> {
    options.check()?;
    let (blocks, []) = draw_blocks(source, tokenizer, vocab, options, [])?;
    Ok(blocks)
}

/// Draws blocks as [`token_blocks`] does, and beside them at most `apart` others that share no token with
/// them.
///
/// The first are bit for bit those of [`token_blocks`]; their number may be 0. For each of the others 16
/// blocks are drawn by the streams that follow, and of all these the first that are apart are taken:
/// fewer, or none, of a text that is too short for more. Of ready-made blocks they are the next ones.
///
/// # Errors
/// As [`token_blocks`] of the first blocks alone.
pub fn token_blocks_apart(
    source: &dyn CalibrationSource,
    tokenizer: Option<&Tokenizer>,
    vocab: usize,
    options: &SamplingOptions,
    apart: usize,
) -> Result<(TokenBlocks, TokenBlocks), Error> {
    let (first, [others]) = token_blocks_in_groups(source, tokenizer, vocab, options, [apart])?;
    Ok((first, others))
}

/// Draws blocks as [`token_blocks`] does, and groups of at most so many others: a group shares no token with
/// the first blocks nor with the groups before it.
///
/// Groups are drawn as the others of [`token_blocks_apart`] are, each by streams of its own, so that a group
/// does not depend on those that follow it. There is one per number of `apart`, and it may be empty.
///
/// # Errors
/// As [`token_blocks`] of the first blocks alone.
pub fn token_blocks_in_groups<const GROUPS: usize>(
    source: &dyn CalibrationSource,
    tokenizer: Option<&Tokenizer>,
    vocab: usize,
    options: &SamplingOptions,
    apart: [usize; GROUPS],
) -> Result<(TokenBlocks, [TokenBlocks; GROUPS]), Error> {
    SamplingOptions { samples: options.samples.max(1), ..*options }.check()?;
    draw_blocks(source, tokenizer, vocab, options, apart)
}

fn draw_blocks<const GROUPS: usize>(
    source: &dyn CalibrationSource,
    tokenizer: Option<&Tokenizer>,
    vocab: usize,
    options: &SamplingOptions,
    apart: [usize; GROUPS],
) -> Result<(TokenBlocks, [TokenBlocks; GROUPS]), Error> {
    let mut draw = Draw::new(options, &apart);
    for_each_document(source, tokenizer, vocab, |tokens| draw.document(&tokens.ids, tokens.given))?;
    draw.finish(&source.name(), apart)
}

/// Cuts a whole text into consecutive blocks of `sequence_len` tokens, for a perplexity.
///
/// Documents are put in a row first, each with the special tokens its tokenizer gives it. What is
/// left at the end is a shorter block if it has the two tokens that a prediction takes.
///
/// # Errors
/// As [`token_blocks`]; too short is a text of fewer than two tokens.
pub fn token_blocks_in_order(
    source: &dyn CalibrationSource,
    tokenizer: Option<&Tokenizer>,
    vocab: usize,
    sequence_len: usize,
) -> Result<TokenBlocks, Error> {
    const PREDICTABLE: usize = 2;
    SamplingOptions { samples: 1, sequence_len, seed: 0 }.check()?;
    let (mut blocks, mut documents, mut have) = (Vec::<Vec<u32>>::new(), 0, 0);
    for_each_document(source, tokenizer, vocab, |Tokens { ids, .. }| {
        documents += 1;
        have += ids.len();
        let mut next = 0;
        while next < ids.len() {
            if blocks.last().is_none_or(|last| last.len() == sequence_len) {
                blocks.push(Vec::new());
            }
            let Some(block) = blocks.last_mut() else { break };
            let end = ids.len().min(next + sequence_len - block.len());
            block.append(&mut ids.ids(next..end)?);
            next = end;
        }
        Ok(())
    })?;
    blocks.pop_if(|last| last.len() < PREDICTABLE.min(sequence_len));
    if have < PREDICTABLE {
        let name = source.name().into_owned();
        return Err(Error::TooShort { name, have, need: PREDICTABLE, sequence_len });
    }
    let (origin, drawable) = (BlockOrigin::InOrder { documents }, have as u64);
    Ok(TokenBlocks { blocks, sequence_len, seed: 0, origin, drawable })
}

impl SamplingOptions {
    fn check(&self) -> Result<(), Error> {
        let Self { samples, sequence_len, .. } = *self;
        if samples == 0 || sequence_len == 0 {
            return Err(Error::NothingAsked { samples, sequence_len });
        }
        let tokens = samples.checked_mul(sequence_len);
        if samples > MOST_SAMPLES || tokens.is_none_or(|tokens| tokens > MOST_TOKENS) {
            return Err(Error::TooMuchAsked { samples, sequence_len });
        }
        Ok(())
    }
}

/// Enough for any calibration: every drawn block is held in memory.
const MOST_SAMPLES: usize = 1 << 24;
const MOST_TOKENS: usize = 1 << 33;
