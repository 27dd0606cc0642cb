//! Texts in pieces have the ids of the whole.

use std::{collections::BTreeMap, fs, path::Path, sync::LazyLock};

use moeprune_tokenizer::{PieceEncoder, TokenizerFiles, load};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use tokenizers::{
    AddedToken, Tokenizer,
    models::{TrainerWrapper, bpe::BpeTrainer, wordpiece::WordPieceTrainer},
};

fn asset(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name)).unwrap()
}

fn of_model(name: &str) -> Tokenizer {
    let tokenizer_model = Some(asset(&format!("tokenizers/{name}")));
    load(&TokenizerFiles { tokenizer_model, ..TokenizerFiles::default() }).unwrap()
}

fn of_json(json: &Value) -> Tokenizer {
    let tokenizer_json = Some(json.to_string().into_bytes());
    load(&TokenizerFiles { tokenizer_json, ..TokenizerFiles::default() }).unwrap()
}

static CORPUS: LazyLock<String> = LazyLock::new(|| {
    let text = String::from_utf8(asset("nano/data/heldout.txt")).unwrap();
    text.chars().take(60_000).collect()
});

fn corpus() -> impl Iterator<Item = &'static str> + Send {
    CORPUS.lines()
}

/// Byte-level BPE with the given rules for words, 700 tokens.
fn byte_level(words: &Value) -> Tokenizer {
    let mut tokenizer = of_json(&json!({
        "pre_tokenizer": words,
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }));
    let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
    let trainer = BpeTrainer::builder().vocab_size(700).show_progress(false);
    let trainer = trainer.initial_alphabet(alphabet.into_iter().collect()).build();
    tokenizer.train(&mut TrainerWrapper::from(trainer), corpus()).unwrap();
    let turn = AddedToken::from("<|turn|>", true).normalized(false);
    let mask = AddedToken::from("<mask>", true).lstrip(true).rstrip(true);
    let word = AddedToken::from("day", false).single_word(true).normalized(false);
    tokenizer.add_tokens([turn, mask, word]).unwrap();
    tokenizer
}

fn gpt2_like() -> Tokenizer {
    byte_level(
        &json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
    )
}

/// Digits in threes, words with the sign before them, line breaks apart.
fn qwen_like() -> Tokenizer {
    let words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    byte_level(&json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
    ]}))
}

fn word_piece() -> Tokenizer {
    let mut tokenizer = of_json(&json!({
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}},
    }));
    let special = ["[UNK]", "[CLS]", "[SEP]"].map(|text| AddedToken::from(text, true));
    let trainer = WordPieceTrainer::builder().vocab_size(500).show_progress(false);
    let trainer = trainer.special_tokens(special.into()).build();
    tokenizer.train(&mut TrainerWrapper::from(trainer), corpus()).unwrap();
    tokenizer
}

/// Beginnings of words, by how often they occur, and characters.
fn unigram() -> Tokenizer {
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for word in CORPUS.split_whitespace() {
        for length in 1..=word.chars().count().min(5) {
            let start: String = word.chars().take(length).collect();
            *counts.entry(format!("▁{start}")).or_default() += 1.0;
            *counts.entry(start).or_default() += 1.0;
        }
    }
    let pieces = [("<unk>".to_owned(), 0.0), ("</s>".to_owned(), 0.0), ("▁".to_owned(), -3.0)];
    let often = counts.into_iter().filter(|&(_, count)| count > 3.0);
    let pieces: Vec<(String, f64)> =
        pieces.into_iter().chain(often.map(|(text, count)| (text, count.ln() - 12.0))).collect();
    of_json(&json!({
        "added_tokens": [{"id": 1, "content": "</s>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces},
    }))
}

/// Kinds of text that are hard to cut: no spaces, long runs, clusters, line ends, special tokens, plain words.
fn parts() -> impl Strategy<Value = String> {
    let line = (0..50_000_usize, 1..300_usize);
    let run = (
        prop::sample::select(vec!["a", " ", "\n", "=", "1", "é", "日", "🙂", "ab", "\t", "▁"]),
        1..400_usize,
    );
    prop_oneof![
        8 => line.prop_map(|(at, length)| CORPUS.chars().skip(at).take(length).collect()),
        2 => run.prop_map(|(text, times)| text.repeat(times)),
        1 => "[0-9]{1,60}",
        1 => "[a-z]{1,300}",
        1 => "([a-z]{1,8}\r\n){1,20}",
        1 => "(🙂|👩‍👩‍👧|🇩🇪|👍🏽|☃️|e\u{301}){1,40}",
        1 => r"[\u{4e00}-\u{4fff}]{1,80}",
        1 => "(<s>|</s>|<\\|turn\\|>| *<mask> *|day|\\[CLS\\]|<sep>|=>){1,6}",
        1 => r"\PC{1,40}",
        1 => r"(?s).{1,40}",
    ]
}

/// Tokenises in pieces, with windows and pieces of many sizes.
#[track_caller]
fn check(tokenizer: &Tokenizer, cases: u32) {
    let texts = (prop::collection::vec(parts(), 0..12), 2..700_usize, 1..900_usize);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(cases));
    let result = runner.run(&texts, |(parts, window, piece)| {
        let text = parts.concat();
        let whole = tokenizer.encode(text.as_str(), true).unwrap();
        let mut encoder = PieceEncoder::with_window(tokenizer, window).unwrap();
        let (mut ids, mut rest) = (Vec::new(), text.as_str());
        while !rest.is_empty() {
            let end = (piece..rest.len()).find(|&end| rest.is_char_boundary(end));
            let (now, then) = rest.split_at(end.unwrap_or(rest.len()));
            ids.extend(encoder.push(now).unwrap());
            rest = then;
        }
        ids.extend(encoder.finish().unwrap());
        prop_assert_eq!(ids, whole.get_ids(), "window {}, pieces of {}", window, piece);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// The same bytes of the same characters again, which only their places tell apart.
#[test]
fn clusters_before_a_long_run() {
    let text = "👩\u{200d}👧🙂🙂".repeat(7) + &"👩\u{200d}👧".repeat(9) + &" ".repeat(400) + "a b";
    for name in ["unigram_bytes", "unigram_nfkc", "bpe_bytes", "bpe_plain"] {
        let tokenizer = of_model(&format!("sentencepiece/{name}.model"));
        let whole = tokenizer.encode(text.as_str(), true).unwrap();
        for window in [2, 40, 126, 300] {
            let mut encoder = PieceEncoder::with_window(&tokenizer, window).unwrap();
            let mut ids = encoder.push(&text).unwrap();
            ids.extend(encoder.finish().unwrap());
            assert_eq!(ids, whole.get_ids(), "{name} {window}");
        }
    }
}

/// Rules for characters remove some, at the beginning of the text too.
#[test]
fn characters_that_are_removed() {
    let run = "=".repeat(300);
    for text in [
        format!("\u{e}{run}"),
        format!("{run}\u{e}{run}"),
        format!("<sep>\u{e}\u{e}{run}<sep>\u{e}{run} a b"),
    ] {
        for name in ["unigram_nfkc", "bpe_nfkc"] {
            let tokenizer = of_model(&format!("sentencepiece/{name}.model"));
            let whole = tokenizer.encode(text.as_str(), true).unwrap();
            for window in [2, 40, 100] {
                let mut encoder = PieceEncoder::with_window(&tokenizer, window).unwrap();
                let mut ids = encoder.push(&text).unwrap();
                ids.extend(encoder.finish().unwrap());
                assert_eq!(ids, whole.get_ids(), "{name} {window} {text:?}");
            }
        }
    }
}

#[test]
fn mixtral_as_json() {
    let tokenizer_json = Some(asset("tokenizers/mixtral/tokenizer.json"));
    check(&load(&TokenizerFiles { tokenizer_json, ..TokenizerFiles::default() }).unwrap(), 400);
}

#[test]
fn mixtral_as_sentencepiece() {
    check(&of_model("mixtral/tokenizer.model"), 400);
}

#[test]
fn bytes_in_words_of_gpt2() {
    check(&gpt2_like(), 400);
}

#[test]
fn bytes_in_words_of_qwen() {
    check(&qwen_like(), 400);
}

#[test]
fn pieces_of_words() {
    check(&word_piece(), 400);
}

#[test]
fn unigram_in_words() {
    check(&unigram(), 400);
}

#[test]
fn sentencepiece_unigram_nfkc() {
    check(&of_model("sentencepiece/unigram_nfkc.model"), 100);
}

#[test]
fn sentencepiece_unigram_bytes() {
    check(&of_model("sentencepiece/unigram_bytes.model"), 100);
}

#[test]
fn sentencepiece_unigram_phrases() {
    check(&of_model("sentencepiece/unigram_phrases.model"), 100);
}

#[test]
fn sentencepiece_bpe_plain() {
    check(&of_model("sentencepiece/bpe_plain.model"), 100);
}

#[test]
fn sentencepiece_bpe_nfkc() {
    check(&of_model("sentencepiece/bpe_nfkc.model"), 100);
}

#[test]
fn sentencepiece_bpe_bytes() {
    check(&of_model("sentencepiece/bpe_bytes.model"), 100);
}
