//! Documents to token ids.

use std::sync::Arc;

use tokenizers::Tokenizer;

use crate::{CalibrationSource, Content, Document, Error, Place, TokenRow};

/// A batch is tokenised by all threads at once; it ends at either bound.
const BATCH_DOCUMENTS: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;

/// A document as token ids.
pub(crate) struct Tokens {
    pub(crate) ids: Arc<TokenRow>,
    /// Whether the source's data are ids, rather than text.
    pub(crate) given: bool,
}

/// Calls `visit` with every document of `source`, in order. All ids are below `vocab`.
pub(crate) fn for_each_document(
    source: &dyn CalibrationSource,
    tokenizer: Option<&Tokenizer>,
    vocab: usize,
    mut visit: impl FnMut(Tokens) -> Result<(), Error>,
) -> Result<(), Error> {
    let name = source.name();
    let mut encoder = Encoder { name: &name, tokenizer, vocab, ready: None };
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let documents = source.documents().map_err(|e| Error::of_source(&name, e))?;
    for (number, document) in (1..).zip(documents) {
        let Document { content, place } = document.map_err(|e| Error::of_source(&name, e))?;
        bytes += content.bytes();
        let place = place.unwrap_or_else(|| Place::new("document", number));
        batch.push((place, content));
        if batch.len() >= BATCH_DOCUMENTS || bytes >= BATCH_BYTES {
            encoder.encode(std::mem::take(&mut batch), &mut visit)?;
            bytes = 0;
        }
    }
    encoder.encode(batch, &mut visit)
}

struct Encoder<'a> {
    name: &'a str,
    tokenizer: Option<&'a Tokenizer>,
    vocab: usize,
    /// The tokenizer, made ready when the first text needs it.
    ready: Option<Tokenizer>,
}

impl Encoder<'_> {
    fn encode(
        &mut self,
        mut batch: Vec<(Place, Content)>,
        visit: &mut impl FnMut(Tokens) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut texts, mut rendered) = (Vec::new(), Vec::new());
        for (_, content) in &mut batch {
            match content {
                Content::Text(text) => texts.push(std::mem::take(text)),
                Content::Rendered(text) => rendered.push(std::mem::take(text)),
                Content::Encoded(_) | Content::Tokens(_) => {}
            }
        }
        let mut texts = self.ids(texts, true, &batch)?.into_iter();
        let mut rendered = self.ids(rendered, false, &batch)?.into_iter();
        let row = |ids: Vec<u32>| Arc::new(TokenRow::from(ids));
        for (place, content) in batch {
            let (ids, given): (Arc<TokenRow>, bool) = match content {
                Content::Tokens(ids) => (row(ids), true),
                Content::Encoded(ids) => (ids, false),
                Content::Text(_) => (row(texts.next().unwrap_or_default()), false),
                Content::Rendered(_) => (row(rendered.next().unwrap_or_default()), false),
            };
            if let Some(id) = ids.largest().filter(|&id| id as usize >= self.vocab) {
                let (at, vocab) = (place.of(self.name), self.vocab);
                // Ids that were given are no text of this tokenizer.
                let token = self.tokenizer.filter(|_| !given).and_then(|t| t.id_to_token(id));
                return Err(Error::TokenId { at, id, token, vocab });
            }
            visit(Tokens { ids, given })?;
        }
        Ok(())
    }

    /// The ids of some texts of a batch.
    fn ids(
        &mut self,
        texts: Vec<String>,
        add_special_tokens: bool,
        batch: &[(Place, Content)],
    ) -> Result<Vec<Vec<u32>>, Error> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let name = self.name;
        let encoded = self.tokenizer()?.encode_batch_fast(texts, add_special_tokens);
        let encoded = encoded.map_err(|source| Error::Tokenize {
            first: batch.first().map_or_else(String::new, |(place, _)| place.of(name)),
            last: batch.last().map_or_else(String::new, |(place, _)| place.of(name)),
            source,
        })?;
        Ok(encoded.into_iter().map(|encoding| encoding.get_ids().to_vec()).collect())
    }

    /// The tokenizer, with what its file says about padding and truncation turned off: a
    /// padded token would be counted as text, and a cut would lose some.
    fn tokenizer(&mut self) -> Result<&Tokenizer, Error> {
        if self.ready.is_none() {
            let Some(tokenizer) = self.tokenizer else {
                return Err(Error::NoTokenizer { name: self.name.to_owned() });
            };
            let mut own = tokenizer.clone();
            own.with_padding(None);
            own.with_truncation(None)
                .map_err(|source| Error::Source { name: "the tokenizer".to_owned(), source })?;
            self.ready = Some(own);
        }
        Ok(self.ready.as_ref().expect("it was made above"))
    }
}
