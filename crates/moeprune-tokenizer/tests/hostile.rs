//! Damaged and hostile files: an error, no panic.

use std::{fs, path::Path};

use moeprune_tokenizer::{Error, TokenizerFiles, load};
use proptest::prelude::*;
use prost::Message;
use serde_json::json;
use tokenizers::Tokenizer;

/// A SentencePiece model to be put together wrongly.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Trainer {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    charsmap: Option<Vec<u8>>,
}

fn piece(text: &str, score: f32, kind: i32) -> Piece {
    Piece { text: Some(text.to_owned()), score: Some(score), kind: Some(kind) }
}

const UNIGRAM: i32 = 1;
const BPE: i32 = 2;

fn model(model_type: i32, further: impl IntoIterator<Item = Piece>) -> Model {
    let start = [piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("</s>", 0.0, 3)];
    let plain =
        [piece("▁", -1.0, 1), piece("a", -2.0, 1), piece("b", -3.0, 1), piece("ab", -0.5, 1)];
    Model {
        pieces: start.into_iter().chain(plain).chain(further).collect(),
        trainer: Some(Trainer { model_type: Some(model_type), ..Trainer::default() }),
        normalizer: None,
    }
}

fn of_model(bytes: Vec<u8>) -> Result<Tokenizer, Error> {
    load(&TokenizerFiles { tokenizer_model: Some(bytes), ..TokenizerFiles::default() })
}

fn of_json(text: impl Into<Vec<u8>>) -> Result<Tokenizer, Error> {
    load(&TokenizerFiles { tokenizer_json: Some(text.into()), ..TokenizerFiles::default() })
}

/// With a config beside a small model.
fn of_config(model_type: i32, config: &serde_json::Value) -> Result<Tokenizer, Error> {
    load(&TokenizerFiles {
        tokenizer_model: Some(model(model_type, []).encode_to_vec()),
        tokenizer_config: Some(config.to_string().into_bytes()),
        ..TokenizerFiles::default()
    })
}

/// What was accepted takes any text.
fn try_out(tokenizer: &Tokenizer) {
    for text in ["", " ", "ab ba", "aab\n<s>é🙂\u{0}\u{10fffd}", "e\u{301}\u{323}ﬁ①"] {
        if let Ok(encoding) = tokenizer.encode(text, true) {
            let _ = tokenizer.decode(encoding.get_ids(), false);
        }
    }
}

#[track_caller]
fn refused(result: Result<Tokenizer, Error>, expected: &str) {
    let said = result.err().map_or_else(|| "nothing".to_owned(), |error| error.to_string());
    assert!(said.contains(expected), "{said}\nexpected: {expected}");
}

#[track_caller]
fn check(change: impl Fn(&mut Model), expected: &str) {
    for model_type in [UNIGRAM, BPE] {
        let mut model = model(model_type, []);
        change(&mut model);
        refused(of_model(model.encode_to_vec()), expected);
    }
}

fn asset(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tokenizers").join(name))
        .unwrap()
}

#[test]
fn the_model_is_right_before() {
    for model_type in [UNIGRAM, BPE] {
        let tokenizer = of_model(model(model_type, []).encode_to_vec()).unwrap();
        assert_eq!(tokenizer.encode("ab b", true).unwrap().get_ids(), [1, 3, 6, 3, 5]);
    }
}

#[test]
fn pieces_that_are_wrong() {
    check(|m| m.pieces.clear(), "no piece for what is unknown");
    check(|m| m.pieces[0].kind = Some(1), "no piece for what is unknown");
    check(|m| m.pieces[4].kind = Some(2), "two pieces for what is unknown, 0 and 4");
    check(|m| m.pieces.push(piece("a", 0.0, 1)), "the piece \"a\" twice, as 4 and 7");
    check(|m| m.pieces.push(piece("<s>", 0.0, 1)), "the piece \"<s>\" twice, as 1 and 7");
    check(|m| m.pieces.push(piece("", 0.0, 1)), "piece 7 of 0 bytes");
    check(|m| m.pieces.push(Piece::default()), "piece 7 of 0 bytes");
    check(|m| m.pieces.push(piece(&"a".repeat(1025), 0.0, 1)), "piece 7 of 1025 bytes");
    check(|m| m.pieces[5].score = Some(f32::NAN), "the score NaN for piece 5 (\"b\")");
    check(|m| m.pieces[5].score = Some(f32::INFINITY), "the score inf for piece 5");
    check(|m| m.pieces[5].kind = Some(7), "piece 5 of an unknown type 7");
    check(|m| m.pieces[5].kind = Some(-1), "piece 5 of an unknown type -1");
    check(|m| m.pieces.push(piece("<0x00>", 0.0, 6)), "the byte piece 7, but byte_fallback is off");
}

#[test]
fn bytes_are_all_there_or_none() {
    let with = |bytes: Vec<Piece>| {
        let mut model = model(BPE, bytes);
        model.trainer.as_mut().unwrap().byte_fallback = Some(true);
        of_model(model.encode_to_vec())
    };
    let all = || (0..256).map(|byte| piece(&format!("<0x{byte:02X}>"), 0.0, 6)).collect::<Vec<_>>();
    assert!(with(all()).is_ok());
    refused(with(all()[1..].to_vec()), "no piece <0x00>");
    refused(with(Vec::new()), "no piece <0x00>");
    let mut wrong = all();
    wrong[10].text = Some("<0x0a>".to_owned());
    refused(with(wrong), "the byte piece 17 \"<0x0a>\"");
}

#[test]
fn models_of_other_kinds() {
    let of_type = |model_type| of_model(model(model_type, []).encode_to_vec());
    refused(of_type(3), "of type `word`; BPE and unigram are read");
    refused(of_type(4), "of type `char`");
    refused(of_type(5), "of an unknown model type 5");
    check(|m| m.trainer.as_mut().unwrap().suffix = Some(true), "treat_whitespace_as_suffix");
    refused(of_model(b"IQ== 0\nIg== 1\n".to_vec()), "tokenizer.model is a tiktoken vocabulary");
    refused(of_model(b"version https://git-lfs.github.com/spec/v1\n".to_vec()), "git-lfs pointer");
    refused(of_model(b"{\"version\": 1}".to_vec()), "is no SentencePiece model");
}

/// The charsmap that most released models have, damaged.
#[test]
fn rules_that_lead_nowhere() {
    let with = |charsmap: Vec<u8>| {
        let mut model = model(UNIGRAM, []);
        model.normalizer = Some(Normalizer { charsmap: Some(charsmap) });
        of_model(model.encode_to_vec())
    };
    let unit = |units: &[u32], texts: &[u8]| {
        let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        [&(trie.len() as u32).to_le_bytes()[..], &trie, texts].concat()
    };
    refused(with(vec![1]), "has no length");
    refused(with(vec![0; 4]), "is empty");
    refused(with(u32::MAX.to_le_bytes().to_vec()), "says 4294967295 bytes and has 0");
    refused(with(unit(&[0; 255], b"")), "leads out of itself");
    refused(with(unit(&[0x7fff_fc00; 256], b"")), "leads out of itself");
    refused(with(unit(&[0; 256], b"\xff")), "no UTF-8");
    // `a` leads to a value behind the texts.
    let mut units = [0_u32; 512];
    units[usize::from(b'a')] = 1 << 8 | u32::from(b'a') | 256 << 10;
    units[usize::from(b'a') ^ 256] = 9;
    refused(with(unit(&units, b"x\0")), "leads to byte 9 of 2 bytes of text");
    units[usize::from(b'a') ^ 256] = 0;
    try_out(&with(unit(&units, b"x\0")).unwrap());
    refused(with(unit(&units, "é\0".as_bytes()[1..].to_vec().as_slice())), "no UTF-8");
}

#[test]
fn pieces_in_too_many_ways() {
    let runs = (2..=400).map(|length| piece(&"a".repeat(length), -(length as f32), 1));
    refused(of_model(model(BPE, runs).encode_to_vec()), "can be put together in more than");
}

#[test]
fn configs_that_contradict_the_model() {
    let decoder = |entries: serde_json::Value| json!({"added_tokens_decoder": entries});
    let token = |content: &str| json!({"content": content, "special": true});
    for model_type in [UNIGRAM, BPE] {
        let check = |config: serde_json::Value, expected: &str| {
            refused(of_config(model_type, &config), expected);
        };
        check(decoder(json!({"x": token("a")})), "the id \"x\"");
        check(decoder(json!({"-1": token("a")})), "the id \"-1\"");
        check(decoder(json!({"4294967296": token("a")})), "the id \"4294967296\"");
        check(decoder(json!({"2147483648": token("a")})), "the id \"2147483648\"");
        check(decoder(json!({"9": token("a")})), "gives \"a\" the id 9, which is 4");
        check(decoder(json!({"1": token("a")})), "gives \"a\" the id 4, which is 1");
        check(decoder(json!({"9": token("x"), "8": token("x")})), "the added token \"x\" twice");
        check(
            decoder(json!({"9": {"content": 1}})),
            "a token under added_tokens_decoder that is no text",
        );
        check(decoder(json!([])), "is no object of ids");
        check(json!({"pad_token": 3}), "a token under pad_token that is no text: 3");
        check(
            json!({"add_bos_token": true, "bos_token": null}),
            "add_bos_token on and no bos_token",
        );
        check(
            json!({"tokenizer_class": "XLMRobertaTokenizerFast"}),
            "a SentencePiece model of a XLMRobertaTokenizer",
        );
        check(json!([]), "tokenizer_config.json cannot be parsed");
    }
    let far = decoder(json!({"2000000000": token("x")}));
    refused(of_config(UNIGRAM, &far), "an added token with id 2000000000, far beyond the 7 pieces");
    let tokenizer = of_config(BPE, &far).unwrap();
    assert_eq!(tokenizer.encode("x", false).unwrap().get_ids(), [2_000_000_000]);
    refused(
        of_config(UNIGRAM, &decoder(json!({"4": token("x")}))),
        "calls id 4 \"x\", which is the piece \"a\"",
    );
}

/// Pieces that are there and never chosen, but by a name that a config gives them.
#[test]
fn unused_pieces() {
    for model_type in [UNIGRAM, BPE] {
        let with = |config: serde_json::Value| {
            let tokenizer = load(&TokenizerFiles {
                tokenizer_model: Some(model(model_type, [piece("ba", 0.0, 5)]).encode_to_vec()),
                tokenizer_config: Some(config.to_string().into_bytes()),
                ..TokenizerFiles::default()
            })
            .unwrap();
            tokenizer.encode("ba <x>", false).unwrap().get_ids().to_vec()
        };
        assert_eq!(with(json!({}))[..3], [3, 5, 4]);
        let named =
            json!({"added_tokens_decoder": {"7": {"content": "<x>"}, "9": {"content": "<y>"}}});
        assert_eq!(with(named), [3, 5, 4, 7]);
    }
}

/// A small `tokenizer.json` with something put in.
fn json_with(key: &str, value: serde_json::Value) -> Result<Tokenizer, Error> {
    let mut whole = json!({
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
    });
    whole[key] = value;
    of_json(whole.to_string())
}

#[test]
fn json_that_would_panic() {
    assert!(json_with("decoder", json!(null)).is_ok());
    let added = json!([{"id": u32::MAX, "content": "x", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}]);
    refused(json_with("added_tokens", added), "the token id 4294967295");
    let no_words = json!({"type": "FixedLength", "length": 0});
    refused(json_with("pre_tokenizer", no_words), "a FixedLength of 0");
    refused(of_json("{}"), "has no model");
    refused(of_json("["), "cannot be parsed");
    refused(of_json(format!("{{\"model\": {}", "[".repeat(100_000))), "cannot be parsed");
    refused(of_json("version https://git-lfs.github.com/spec/v1\n"), "git-lfs pointer");
}

#[test]
fn json_of_models() {
    let check = |vocab: serde_json::Value, merges: serde_json::Value, expected: &str| {
        let model = json!({"type": "BPE", "vocab": vocab, "merges": merges});
        refused(json_with("model", model), expected);
    };
    check(json!({"aa": 0, "bb": 1}), json!(["aa bb"]), "the merge 1, whose result is not");
    check(json!({"aa": 0, "bb": 1}), json!([["aa", "bb"]]), "the merge 1, whose result is not");
    check(json!({"a": 0}), json!([["a"]]), "cannot be parsed");
    check(json!({"a": 0, "b": 1}), json!(["a b"]), "the merge 1");
    check(json!({"a": u32::MAX}), json!([]), "the token id 4294967295");
    check(json!({"a": 1_u64 << 32}), json!([]), "cannot be parsed");
    check(json!({"a": -1}), json!([]), "cannot be parsed");
    let prefixed = json!({"type": "BPE", "vocab": {"a": 0, "é": 1, "aé": 2}, "merges": [["a", "é"]],
        "continuing_subword_prefix": "#"});
    refused(json_with("model", prefixed), "the merge 1");
    let deep = json!({"type": "Unigram", "unk_id": 0, "vocab": [["a".repeat(5000), 0.0]]});
    refused(json_with("model", deep), "a piece of 5000 bytes");
}

#[test]
fn json_of_normalizers() {
    let check = |rules: serde_json::Value, expected: &str| {
        refused(
            json_with("normalizer", json!({"normalizers": [rules], "type": "Sequence"})),
            expected,
        );
    };
    check(json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "has no length");
    check(json!({"type": "Precompiled", "precompiled_charsmap": "?"}), "no base64");
    check(
        json!({"type": "Precompiled", "precompiled_charsmap": null}),
        "a Precompiled without a text",
    );
    check(json!({"type": "Precompiled"}), "a Precompiled without a text");
    for pattern in [" {0,}", r"\b", "$", ""] {
        let replace = json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": "x"});
        check(replace, "a Replace of a pattern that matches an empty text");
    }
    let replace = json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"});
    check(replace, "a Replace of a pattern that matches an empty text");
}

#[test]
fn json_of_templates() {
    let check = |single: serde_json::Value, expected: &str| {
        let pair = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]);
        let template = json!({"type": "TemplateProcessing", "single": single, "pair": pair,
            "special_tokens": {}});
        refused(json_with("post_processor", template), expected);
    };
    check(json!([{"SpecialToken": {"id": "x", "type_id": 0}}]), "\"x\" in its TemplateProcessing");
    check(json!([{"Sequence": {"id": "B", "type_id": 0}}]), "a second text in its");
}

#[test]
fn files_of_other_forms() {
    let some = || Some(b"x".to_vec());
    let none = TokenizerFiles::default;
    refused(load(&none()), "there is no tokenizer.json (nor tokenizer.model");
    refused(
        load(&TokenizerFiles { tiktoken: some(), ..none() }),
        "tiktoken.model is a tiktoken vocabulary",
    );
    refused(load(&TokenizerFiles { tekken: some(), ..none() }), "save_pretrained");
    refused(
        load(&TokenizerFiles { vocab_json: some(), ..none() }),
        "a vocabulary without merges.txt",
    );
    let both = TokenizerFiles { vocab_json: some(), merges_txt: some(), ..none() };
    refused(load(&both), "the vocabulary of a class that tokenizer_config.json does not name");
}

#[test]
fn vocab_and_merges() {
    let with = |vocab: &str, merges: &str, config: &str| {
        load(&TokenizerFiles {
            vocab_json: Some(vocab.into()),
            merges_txt: Some(merges.into()),
            tokenizer_config: Some(config.into()),
            ..TokenizerFiles::default()
        })
    };
    const QWEN: &str = r#"{"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<pad>",
        "added_tokens_decoder": {"5": {"content": "<turn>", "special": true}}}"#;
    const VOCAB: &str = r#"{"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġab": 4}"#;
    let merges = "#version: 0.2\na b\nĠ ab\n";
    let tokenizer = with(VOCAB, merges, QWEN).unwrap();
    assert_eq!(tokenizer.encode("ab ab<turn>a<pad>", true).unwrap().get_ids(), [2, 4, 5, 0, 6]);
    refused(with(VOCAB, "a b c", QWEN), "merges.txt line 1 is no two texts");
    refused(with(VOCAB, "#version\nb a", QWEN), "merges.txt line 2 puts \"b\" and \"a\" together");
    refused(with("[]", merges, QWEN), "vocab.json cannot be parsed");
    refused(with(r#"{"a": 4294967295}"#, merges, QWEN), "the id 4294967295");
    refused(with(r#"{"<turn>": 7}"#, "", QWEN), "gives \"<turn>\" the id 5, which is 7");
    refused(
        with(VOCAB, merges, r#"{"tokenizer_class": "RobertaTokenizer"}"#),
        "the vocabulary of RobertaTokenizer",
    );
}

#[test]
fn every_truncation() {
    for name in ["unigram_bytes", "bpe_plain"] {
        let bytes = asset(&format!("sentencepiece/{name}.model"));
        for length in (0..bytes.len()).step_by(if cfg!(debug_assertions) { 7 } else { 1 }) {
            if let Ok(tokenizer) = of_model(bytes[..length].to_vec()) {
                try_out(&tokenizer);
            }
        }
    }
}

/// Lengths of 2^31 and more, and counts of pieces that the file cannot hold.
#[test]
fn lengths_beyond_the_file() {
    for length in [
        &b"\x80\x80\x80\x80\x08"[..],
        b"\xff\xff\xff\xff\x0f",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x7f",
    ] {
        for key in [b"\x0a", b"\x12", b"\x1a"] {
            refused(of_model([&key[..], length].concat()), "is no SentencePiece model");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn flipped_bits(flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..6), which in 0..2_usize) {
        let mut bytes = asset(["sentencepiece/bpe_bytes.model", "sentencepiece/unigram_phrases.model"][which]);
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Ok(tokenizer) = of_model(bytes) {
            try_out(&tokenizer);
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = of_model(bytes.clone());
        let _ = of_json(bytes);
    }
}
