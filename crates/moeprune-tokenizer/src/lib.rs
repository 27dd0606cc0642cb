/*!
A model's tokenizer, from any of the files that releases have, as [`tokenizers::Tokenizer`].

# Brief overview

[`TokenizerFiles`] holds the bytes of the files that are there; [`load`] makes a tokenizer of them. `tokenizer.json` comes
first. Without it, `tokenizer.model`, a SentencePiece model (BPE or unigram), is turned into the same form, and
`vocab.json` with `merges.txt` where `tokenizer_config.json` names a class whose rules are known. [`PieceEncoder`]
tokenises a long text that comes in pieces, with the same ids as the whole. [`id_beyond`] finds an id that a model's
embedding has no row for.

# Example

```
use moeprune_tokenizer::{PieceEncoder, TokenizerFiles, load};

let json = r#"{"model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2}},
    "pre_tokenizer": {"type": "WhitespaceSplit"}}"#;
let files = TokenizerFiles { tokenizer_json: Some(json.into()), ..TokenizerFiles::default() };
let tokenizer = load(&files)?;

let mut encoder = PieceEncoder::new(&tokenizer)?;
let mut ids = encoder.push("a b")?;
ids.extend(encoder.push(" a c")?);
ids.extend(encoder.finish()?);
assert_eq!(ids, [1, 2, 1, 0]);
# Ok::<(), Box<dyn std::error::Error>>(())
```

# What is read

A tokenizer never pads and never cuts here, and never drops merges at random: what its file says of these is for training.

*A SentencePiece model gives the ids that SentencePiece gives*, with what transformers puts around it: text of control pieces
(`<s>`) is the control piece, BOS comes first, EOS last where `tokenizer_config.json` says so, and
added tokens are those of `tokenizer_config.json`, `added_tokens.json` and `special_tokens_map.json`.

*The files are hostile.* Lengths, counts, ids and scores are checked before memory is taken for them, and what would make the tokenizers
crate panic is refused.
*/

mod byte_level;
mod charsmap;
mod config;
mod error;
mod files;
mod first;
mod ids;
mod json;
mod load;
mod pieces;
mod python_json;
mod sentencepiece;
mod template;

pub use error::Error;
pub use files::TokenizerFiles;
pub use first::first_token;
pub use ids::{BeyondVocabulary, id_beyond};
pub use load::load;
pub use pieces::PieceEncoder;
