//! Text that people have, as a model reads it.

use std::{fmt::Write as _, sync::Arc};

use moeprune_capture::{
    BlockOrigin, CalibrationSource, Content, Document, Documents, Place, SamplingOptions,
    TokenBlocks, TokenRow, token_blocks_in_groups, token_blocks_in_order,
};
use moeprune_core::{CorpusTag, StageError, TextFacts};
use moeprune_text::{Content as Found, Record, Records, Shape, TextFile, TextSet};
use moeprune_tokenizer::PieceEncoder;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::{
    chat::Chat,
    files::{TextFiles, format_of, is_conversation, name_of},
    words::notes_in_order,
};
use crate::{Error, Model, load_tokenizer};

/// A text with what a model makes tokens of it with: its tokenizer, unless all files hold tokens, and its chat
/// template, if there are conversations.
#[derive(Debug)]
pub struct ModelText {
    set: TextSet,
    name: String,
    vocab: usize,
    tokenizer: Option<Tokenizer>,
    chat: Option<Chat>,
    should_stop: fn() -> bool,
}

impl ModelText {
    /// Opens files as text of a model. What is given for conversations is left aside if there are none.
    ///
    /// # Errors
    /// If there are no files, one cannot be read or is not text; if the tokenizer or the chat template is needed and
    /// cannot be read, or the template does not take what conversations are given.
    pub fn open(files: TextFiles<'_>, model: &dyn Model) -> Result<Self, Error> {
        let (set, should_stop) = (files.set()?, files.should_stop());
        let shapes = || set.files().iter().map(|file| &file.format().shape);
        let name = name_of(&set);
        let chats = shapes().any(is_conversation);
        let chat = if chats { Some(Chat::of(model, files.chat())?) } else { None };
        let only_tokens = shapes().all(|shape| matches!(shape, Shape::Tokens));
        let tokenizer = if only_tokens { None } else { Some(load_tokenizer(model)?) };
        Ok(Self { set, name, vocab: model.spec().vocab, tokenizer, chat, should_stop })
    }

    /// What was recognised, for example "JSON lines of `text`, gzipped".
    #[must_use]
    pub fn format(&self) -> String {
        format_of(&self.set)
    }

    /// The text cut into consecutive blocks, for a perplexity.
    ///
    /// # Errors
    /// As [`token_blocks_in_order`].
    pub fn blocks_in_order(&self, sequence_len: usize) -> Result<TokenBlocks, Error> {
        let tokenizer = self.tokenizer.as_ref();
        let blocks = token_blocks_in_order(self, tokenizer, self.vocab, sequence_len);
        blocks.map_err(|error| self.stopped_or(error))
    }

    /// What was read of a text that is cut into consecutive blocks, as a note.
    #[must_use]
    pub fn notes_in_order(&self, blocks: &TokenBlocks) -> Vec<String> {
        let rendering = self.chat.as_ref().map(Chat::rendering);
        notes_in_order((&self.name, self.format(), rendering.as_ref()), blocks)
    }

    /// Drawn blocks, and groups of others.
    ///
    /// # Errors
    /// As [`token_blocks_in_groups`].
    pub fn blocks_in_groups<const GROUPS: usize>(
        &self,
        options: &SamplingOptions,
        apart: [usize; GROUPS],
    ) -> Result<(TokenBlocks, [TokenBlocks; GROUPS]), Error> {
        let tokenizer = self.tokenizer.as_ref();
        let blocks = token_blocks_in_groups(self, tokenizer, self.vocab, options, apart);
        blocks.map_err(|error| self.stopped_or(error))
    }

    /// The record of what was drawn, for an observation. `asked_len` tokens per block were asked for. Reads all
    /// files.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn tag(&self, blocks: &TokenBlocks, asked_len: usize) -> Result<CorpusTag, Error> {
        let shorter = asked_len > blocks.sequence_len();
        Ok(CorpusTag {
            name: self.name.clone(),
            sha256: sha256_of(&self.set)?,
            samples: blocks.blocks().len() as u64,
            sequence_len: blocks.sequence_len() as u64,
            seed: blocks.seed(),
            repeated: 1,
            read: Some(TextFacts {
                format: self.format(),
                files: self.set.files().len() as u64,
                documents: blocks.origin().documents(),
                tokens: blocks.drawable(),
                short: match blocks.origin() {
                    BlockOrigin::LongDocuments { long, documents } => documents - long,
                    _ => 0,
                },
                asked_len: shorter.then_some(asked_len as u64),
                rendering: self.chat.as_ref().map(Chat::rendering),
            }),
        })
    }

    /// What a failed reading is: a stop, where one was wanted.
    fn stopped_or(&self, error: moeprune_capture::Error) -> Error {
        if (self.should_stop)() { Error::Stopped } else { error.into() }
    }

    /// How messages name a file: by its path where there are several.
    fn file_name(&self, file: &TextFile) -> Option<Arc<str>> {
        let several = self.set.files().len() > 1;
        several.then(|| file.path().to_string_lossy().into())
    }
}

impl CalibrationSource for ModelText {
    fn documents(&self) -> Result<Documents<'_>, StageError> {
        Ok(Box::new(Walk { text: self, files: self.set.files().iter(), now: None, done: false }))
    }

    fn name(&self) -> std::borrow::Cow<'_, str> {
        match self.set.files() {
            [file] => file.path().to_string_lossy(),
            _ => self.name.as_str().into(),
        }
    }
}

/// A walk over the documents of all files.
struct Walk<'a> {
    text: &'a ModelText,
    files: std::slice::Iter<'a, TextFile>,
    now: Option<(Option<Arc<str>>, Records<'a>)>,
    done: bool,
}

impl Iterator for Walk<'_> {
    type Item = Result<Document, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if (self.text.should_stop)() {
            self.done = true;
            return Some(Err(Error::Stopped.into()));
        }
        let document = self.document().transpose()?;
        self.done = document.is_err();
        Some(document.map_err(StageError::from))
    }
}

impl Walk<'_> {
    fn document(&mut self) -> Result<Option<Document>, Error> {
        loop {
            let Some((file, records)) = &mut self.now else {
                let Some(file) = self.files.next() else { return Ok(None) };
                self.now = Some((self.text.file_name(file), file.records()?));
                continue;
            };
            let Some(record) = records.next() else {
                self.now = None;
                continue;
            };
            let Record { place, content, .. } = record?;
            let at = place_of(place);
            let at = match file {
                Some(file) => at.in_file(file),
                None => at,
            };
            let content = match content {
                Found::Text(text) => Content::Text(text),
                Found::Question { question, answer } => {
                    Content::Text(format!("Question: {question}\nAnswer: {answer}"))
                }
                Found::Tokens(ids) => Content::Tokens(ids),
                Found::Conversation(conversation) => {
                    let name = self.text.name();
                    let at = || format!("{} {at}", file.as_deref().unwrap_or(&name));
                    let chat = self.text.chat.as_ref();
                    chat.ok_or_else(|| unexpected(at()))?.content(conversation, at)?
                }
                Found::Piece { text, last: true } => Content::Text(text),
                Found::Piece { text, last: false } => {
                    Content::Encoded(Arc::new(self.text.whole(text, records, &at)?))
                }
                _ => return Err(unexpected(format!("{} {at}", self.text.name()))),
            };
            return Ok(Some(Document::new(content).at(at)));
        }
    }
}

impl ModelText {
    /// The tokens of a plain text that comes in pieces, of which this is the first.
    fn whole(
        &self,
        first: String,
        records: &mut Records<'_>,
        at: &Place,
    ) -> Result<TokenRow, Error> {
        let failed = |source: moeprune_tokenizer::Error| {
            Error::Request(format!("{} {at}: the tokenizer failed: {source}", self.name()))
        };
        let tokenizer = self.tokenizer.as_ref();
        let tokenizer = tokenizer.ok_or_else(|| unexpected(format!("{} {at}", self.name())))?;
        let mut encoder = PieceEncoder::new(tokenizer).map_err(failed)?;
        let kept = |error| Error::from(moeprune_capture::Error::from(error));
        let mut ids = TokenRow::default();
        ids.push(&encoder.push(&first).map_err(failed)?).map_err(kept)?;
        drop(first);
        for record in records {
            if (self.should_stop)() {
                return Err(Error::Stopped);
            }
            let Found::Piece { text, last } = record?.content else { break };
            ids.push(&encoder.push(&text).map_err(failed)?).map_err(kept)?;
            if last {
                break;
            }
        }
        ids.push(&encoder.finish().map_err(failed)?).map_err(kept)?;
        Ok(ids)
    }
}

/// A record of a form that the file did not begin with.
fn unexpected(at: String) -> Error {
    Error::Request(format!("{at}: is of another form than the records before it"))
}

fn place_of(place: moeprune_text::Place) -> Place {
    match place {
        moeprune_text::Place::Line(number) => Place::new("line", number),
        moeprune_text::Place::Item(number) => Place::new("item", number),
        moeprune_text::Place::Row(number) => Place::new("row", number),
    }
}

/// The hash of one file; of several, of their hashes in order.
fn sha256_of(set: &TextSet) -> Result<String, Error> {
    if let [file] = set.files() {
        return Ok(file.sha256()?);
    }
    let mut hashes = String::new();
    for file in set.files() {
        // Writing to a string cannot fail.
        let _ = writeln!(hashes, "{}", file.sha256()?);
    }
    Ok(format!("{:x}", Sha256::digest(hashes)))
}
