//! The model's own tokenizer: byte-level BPE over generated problems.

use anyhow::{Context, Result, anyhow};
use std::path::Path;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, SplitDelimiterBehavior};

/// Begins every sequence.
pub const BOS: &str = "<s>";
/// Ends every answer.
pub const EOS: &str = "</s>";
const PAD: &str = "<pad>";

/// Words with the space before them; digits one at a time, with the space before the first; runs
/// of signs with the line breaks after them; other white space.
///
/// A digit takes its space along because splitting it off would spend a token on each number.
const PIECES: &str = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+";

/// A tokenizer with its special tokens looked up.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The id of [`BOS`].
    pub bos: u32,
    /// The id of [`EOS`].
    pub eos: u32,
}

impl Tokenizer {
    /// Trains on `texts` up to `size` tokens.
    pub fn train(texts: impl Iterator<Item = String> + Send, size: usize) -> Result<Self> {
        let special = [BOS, EOS, PAD].map(|token| AddedToken::from(token, true));
        let trainer = BpeTrainerBuilder::new()
            .vocab_size(size)
            .show_progress(false)
            .special_tokens(special.to_vec())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let pieces = Split::new(
            SplitPattern::Regex(PIECES.to_owned()),
            SplitDelimiterBehavior::Isolated,
            false,
        )
        .map_err(|error| anyhow!(error))?;
        let bytes = ByteLevel::new(false, true, false);
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner.with_pre_tokenizer(Some(Sequence::new(vec![pieces.into(), bytes.into()])));
        inner.with_decoder(Some(bytes));
        inner.train(&mut TrainerWrapper::from(trainer), texts).map_err(|error| anyhow!(error))?;
        let bos = id(&inner, BOS)?;
        let with_bos = TemplateProcessing::builder()
            .try_single(format!("{BOS} $A"))
            .map_err(|error| anyhow!(error))?
            .try_pair(format!("{BOS} $A {BOS} $B:1"))
            .map_err(|error| anyhow!(error))?
            .special_tokens(vec![(BOS, bos)])
            .build()?;
        inner.with_post_processor(Some(with_bos));
        Self::of(inner)
    }

    /// Reads a `tokenizer.json`.
    pub fn read(path: &Path) -> Result<Self> {
        Self::of(tokenizers::Tokenizer::from_file(path).map_err(|error| anyhow!(error))?)
    }

    fn of(inner: tokenizers::Tokenizer) -> Result<Self> {
        Ok(Self { bos: id(&inner, BOS)?, eos: id(&inner, EOS)?, inner })
    }

    /// The tokens of `text`, without special ones.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false);
        Ok(encoding.map_err(|error| anyhow!(error))?.get_ids().to_vec())
    }

    /// The text of `tokens`, without special ones.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.inner.decode(tokens, true).map_err(|error| anyhow!(error))
    }

    /// Tokens of the vocabulary.
    pub fn size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The `tokenizer.json`.
    pub fn json(&self) -> Result<String> {
        self.inner.to_string(true).map_err(|error| anyhow!(error))
    }
}

fn id(tokenizer: &tokenizers::Tokenizer, token: &str) -> Result<u32> {
    let id = tokenizer.token_to_id(token);
    id.with_context(|| format!("the tokenizer has no {token}"))
}
