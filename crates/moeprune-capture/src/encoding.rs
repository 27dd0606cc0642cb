//! Documents to token ids.

use moeprune_core::StageError;
use tokenizers::Tokenizer;

use crate::{CalibrationSource, Content, Document, Error};

/// A batch is tokenised by all threads at once; it ends at either bound.
const BATCH_DOCUMENTS: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;

/// A document as token ids.
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    /// Whether the source gave ids, rather than text.
    pub(crate) given: bool,
}

/// Calls `visit` with every document of `source`, in order. All ids are below `vocab`.
pub(crate) fn for_each_document(
    source: &dyn CalibrationSource,
    tokenizer: Option<&Tokenizer>,
    vocab: usize,
    mut visit: impl FnMut(Tokens),
) -> Result<(), Error> {
    let name = source.name();
    let mut encoder = Encoder { name: &name, tokenizer, vocab, ready: None };
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let documents = source.documents().map_err(|e| Error::of_source(&name, e))?;
    for (number, document) in (1..).zip(documents) {
        let Document { content, line } = document.map_err(|e| Error::of_source(&name, e))?;
        bytes += match &content {
            Content::Text(text) => text.len(),
            Content::Tokens(ids) => ids.len() * size_of::<u32>(),
        };
        let place = line.map_or(("document", number), |line| ("line", line));
        batch.push((place, content));
        if batch.len() >= BATCH_DOCUMENTS || bytes >= BATCH_BYTES {
            encoder.encode(std::mem::take(&mut batch), &mut visit)?;
            bytes = 0;
        }
    }
    encoder.encode(batch, &mut visit)
}

/// Where a document is: `line` or `document`, and its number.
type Place = (&'static str, u64);

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
        visit: &mut impl FnMut(Tokens),
    ) -> Result<(), Error> {
        let texts: Vec<String> = batch
            .iter_mut()
            .filter_map(|(_, content)| match content {
                Content::Text(text) => Some(std::mem::take(text)),
                Content::Tokens(_) => None,
            })
            .collect();
        let mut encoded = match (texts.is_empty(), batch.first(), batch.last()) {
            (false, Some(&((place, first), _)), Some(&((_, last), _))) => {
                let failed = |name: &str, source: StageError| Error::Tokenize {
                    name: name.to_owned(),
                    place,
                    first,
                    last,
                    source,
                };
                let name = self.name;
                self.tokenizer()?.encode_batch_fast(texts, true).map_err(|e| failed(name, e))?
            }
            _ => Vec::new(),
        }
        .into_iter();
        for ((place, at), content) in batch {
            let (ids, given) = match content {
                Content::Tokens(ids) => (ids, true),
                Content::Text(_) => {
                    (encoded.next().map(|e| e.get_ids().to_vec()).unwrap_or_default(), false)
                }
            };
            if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab) {
                let (name, vocab) = (self.name.to_owned(), self.vocab);
                // Ids that were given are no text of this tokenizer.
                let token = self.ready.as_ref().filter(|_| !given).and_then(|t| t.id_to_token(id));
                return Err(Error::TokenId { name, place, at, id, token, vocab });
            }
            visit(Tokens { ids, given });
        }
        Ok(())
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
