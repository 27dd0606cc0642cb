//! A tokenizer.

use moeprune_tokenizer::{PieceEncoder, TokenizerFiles, load};
use tokenizers::Tokenizer;

use super::{Target, bounded_by};

/// `tokenizer.model`, or `tokenizer.json` if it begins as an object does.
#[derive(Debug)]
pub struct TokenizerFile;

/// Tables of pieces by text, by id and by the bytes of their texts; a piece is a few bytes in the file.
const TIMES: usize = 1024;

impl Target for TokenizerFile {
    const NAME: &'static str = "tokenizer";

    fn new() -> Self {
        // What the tokenizers crate makes once (regular expressions) is no memory of a file.
        let new = Self;
        for (_, bytes) in new.valid() {
            drop(read(&bytes));
        }
        new
    }

    fn valid(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("bpe", model(2, false)),
            ("bpe_bytes", model(2, true)),
            ("unigram", model(1, false)),
            ("unigram_bytes", model(1, true)),
            ("bpe_json", BPE_JSON.into()),
            ("unigram_json", UNIGRAM_JSON.into()),
        ]
    }

    fn run(&self, bytes: &[u8]) -> Result<(), String> {
        let tokenizer = bounded_by(TIMES, bytes.len(), || read(bytes))?;
        for text in ["", "ab ba", " a\n<s>é🙂\u{0}<0x41>\u{10fffd}", "e\u{301}\u{323}ﬁ①1234"]
        {
            try_out(&tokenizer, text);
        }
        Ok(())
    }
}

fn read(bytes: &[u8]) -> Result<Tokenizer, String> {
    let mut files = TokenizerFiles::default();
    let file = if bytes.starts_with(b"{") {
        &mut files.tokenizer_json
    } else {
        &mut files.tokenizer_model
    };
    *file = Some(bytes.to_vec());
    load(&files).map_err(|error| error.to_string())
}

/// Ids are known, and those of the text in pieces are the same.
fn try_out(tokenizer: &Tokenizer, text: &str) {
    let Ok(encoding) = tokenizer.encode(text, true) else { return };
    let ids = encoding.get_ids();
    let _ = tokenizer.decode(ids, false);
    let Ok(mut encoder) = PieceEncoder::with_window(tokenizer, 8) else { return };
    let mut in_pieces = Vec::new();
    for char in text.chars() {
        match encoder.push(char.encode_utf8(&mut [0; 4])) {
            Ok(more) => in_pieces.extend(more),
            Err(_) => return,
        }
    }
    if let Ok(rest) = encoder.finish() {
        in_pieces.extend(rest);
        assert_eq!(in_pieces, ids, "{text:?}");
    }
}

/// A field with a length: a text, bytes or a message.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128);
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

/// A small SentencePiece model.
fn model(model_type: u8, byte_fallback: bool) -> Vec<u8> {
    let piece = |text: &str, score: f32, kind: u8| {
        let content =
            [&field(1, text.as_bytes())[..], &[0x15], &score.to_le_bytes(), &[0x18, kind]];
        field(1, &content.concat())
    };
    let mut pieces = vec![piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("</s>", 0.0, 3)];
    if byte_fallback {
        pieces.extend((0..256).map(|byte| piece(&format!("<0x{byte:02X}>"), 0.0, 6)));
    }
    for (text, score) in
        [("▁", -2.0), ("a", -3.0), ("b", -4.0), ("▁a", -1.0), ("ab", -1.5), ("▁ab", -0.5)]
    {
        pieces.push(piece(text, score, 1));
    }
    pieces.push(piece("<t>", 0.0, 4));
    let fallback = [24 | 0x80, 2, u8::from(byte_fallback)];
    pieces.push(field(2, &[&[0x18, model_type][..], &fallback].concat()));
    pieces.push(field(3, &[0x18, 1, 0x20, u8::from(!byte_fallback), 0x28, 1]));
    pieces.concat()
}

const BPE_JSON: &str = r#"{"added_tokens":[{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,
"normalized":false,"special":true}],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"ByteLevel",
"add_prefix_space":false,"trim_offsets":true,"use_regex":true},"post_processor":{"type":"TemplateProcessing",
"single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],
"special_tokens":{"<s>":{"id":"<s>","ids":[0],"tokens":["<s>"]}}},"decoder":{"type":"ByteLevel",
"add_prefix_space":false,"trim_offsets":true,"use_regex":true},"model":{"type":"BPE","unk_token":"<s>","vocab":{"<s>":0,"a":1,"b":2,"ab":3,"\u0120":4},"merges":["a b"]}}"#;

const UNIGRAM_JSON: &str = r#"{"normalizer":{"type":"Sequence","normalizers":[{"type":"Replace",
"pattern":{"Regex":" {2,}"},"content":" "},{"type":"Lowercase"}]},"pre_tokenizer":{"type":"Metaspace",
"replacement":"\u2581","prepend_scheme":"always","split":true},"decoder":{"type":"Metaspace","replacement":"\u2581",
"prepend_scheme":"always"},"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["a",-1],["b",-2.5],
["\u2581",-2],["\u2581ab",-1]]}}"#;
