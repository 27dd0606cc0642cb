//! The files that a tokenizer is made of.

/// The bytes of the files of a tokenizer, `None` where there is no such file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TokenizerFiles {
    /// `tokenizer.json`: a whole tokenizer of the tokenizers crate. Nothing else is read where it is there.
    pub tokenizer_json: Option<Vec<u8>>,
    /// `tokenizer.model`: a SentencePiece model.
    pub tokenizer_model: Option<Vec<u8>>,
    /// `tokenizer_config.json`: the class, added tokens, whether BOS and EOS are added.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `special_tokens_map.json`: the text of special tokens, in older releases.
    pub special_tokens_map: Option<Vec<u8>>,
    /// `added_tokens.json`: ids of added tokens, in older releases.
    pub added_tokens: Option<Vec<u8>>,
    /// `vocab.json`: ids of a byte-level vocabulary.
    pub vocab_json: Option<Vec<u8>>,
    /// `merges.txt`: the merges of a byte-level vocabulary, the first first.
    pub merges_txt: Option<Vec<u8>>,
    /// `tiktoken.model` or `tokenizer.tiktoken`, named in the error that is made of it.
    pub tiktoken: Option<Vec<u8>>,
    /// `tekken.json`, named in the error that is made of it.
    pub tekken: Option<Vec<u8>>,
}

impl TokenizerFiles {
    /// Asks `read` for files by their names, and for no more than are needed: it returns the bytes, or `None` where there is
    /// no such file.
    ///
    /// # Errors
    /// The first that `read` returned.
    pub fn read<E>(
        mut read: impl FnMut(&'static str) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Self, E> {
        let tokenizer_json = read("tokenizer.json")?;
        if tokenizer_json.is_some() {
            return Ok(Self { tokenizer_json, ..Self::default() });
        }
        let mut files = Self {
            tokenizer_model: read("tokenizer.model")?,
            tokenizer_config: read("tokenizer_config.json")?,
            special_tokens_map: read("special_tokens_map.json")?,
            added_tokens: read("added_tokens.json")?,
            ..Self::default()
        };
        if files.tokenizer_model.is_some() {
            return Ok(files);
        }
        files.vocab_json = read("vocab.json")?;
        files.merges_txt = read("merges.txt")?;
        files.tiktoken = match read("tiktoken.model")? {
            None => read("tokenizer.tiktoken")?,
            found => found,
        };
        files.tekken = read("tekken.json")?;
        Ok(files)
    }
}
