//! Mixtral's released tokenizer: the SentencePiece model gives the ids of `tokenizer.json`.

use std::{fs, path::Path, sync::LazyLock};

use moeprune_tokenizer::{TokenizerFiles, load};
use proptest::prelude::*;
use serde::Deserialize;
use tokenizers::Tokenizer;

fn asset(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tokenizers/mixtral");
    fs::read(folder.join(name)).unwrap()
}

fn json() -> Tokenizer {
    let tokenizer_json = Some(asset("tokenizer.json"));
    load(&TokenizerFiles { tokenizer_json, ..TokenizerFiles::default() }).unwrap()
}

fn sentencepiece() -> Tokenizer {
    let tokenizer_model = Some(asset("tokenizer.model"));
    let tokenizer_config = Some(asset("tokenizer_config.json"));
    load(&TokenizerFiles { tokenizer_model, tokenizer_config, ..TokenizerFiles::default() })
        .unwrap()
}

/// A text and its ids.
#[derive(Deserialize)]
struct Golden {
    text: String,
    ids: Vec<u32>,
}

#[track_caller]
fn ids(tokenizer: &Tokenizer, text: &str, special: bool) -> Vec<u32> {
    tokenizer.encode(text, special).unwrap().get_ids().to_vec()
}

#[test]
fn golden_encodings() {
    let golden: Vec<Golden> = serde_json::from_slice(&asset("golden.json")).unwrap();
    assert_eq!(golden.len(), 18);
    for tokenizer in [json(), sentencepiece()] {
        for Golden { text, ids: expected } in &golden {
            assert_eq!(ids(&tokenizer, text, false), *expected, "{text:?}");
            let with_bos: Vec<u32> = [1].into_iter().chain(expected.iter().copied()).collect();
            assert_eq!(ids(&tokenizer, text, true), with_bos, "{text:?}");
        }
    }
}

/// A config beside the model, and the ids that transformers gives texts with it.
#[derive(Deserialize)]
struct OfConfig {
    name: String,
    config: serde_json::Value,
    texts: Vec<Golden>,
}

#[test]
fn configs() {
    let golden: Vec<OfConfig> = serde_json::from_slice(&asset("configs.json")).unwrap();
    for OfConfig { name, config, texts } in golden {
        let tokenizer_model = Some(asset("tokenizer.model"));
        let tokenizer_config = Some(config.to_string().into_bytes());
        let files =
            TokenizerFiles { tokenizer_model, tokenizer_config, ..TokenizerFiles::default() };
        let tokenizer = load(&files).unwrap();
        for Golden { text, ids: expected } in texts {
            assert_eq!(ids(&tokenizer, &text, true), expected, "{name}: {text:?}");
        }
    }
}

/// Older releases say in two more files what newer ones say in one.
#[test]
fn added_tokens_of_older_releases() {
    let files = TokenizerFiles {
        tokenizer_model: Some(asset("tokenizer.model")),
        special_tokens_map: Some(
            r#"{"eos_token": "<|end|>", "pad_token": {"content": "<pad>", "lstrip": true},
            "additional_special_tokens": ["<|start|>"]}"#
                .into(),
        ),
        added_tokens: Some(r#"{"<|end|>": 32001, "<|start|>": 32000}"#.into()),
        ..TokenizerFiles::default()
    };
    let tokenizer = load(&files).unwrap();
    let text = "<|start|>hello  <pad><|end|>";
    assert_eq!(ids(&tokenizer, text, true), [1, 32000, 6312, 28709, 32002, 32001]);
    assert_eq!(tokenizer.decode(&[32000, 6312, 28709, 32002], true).unwrap(), "hello");
}

#[test]
fn the_forms_are_the_same() {
    let form = |tokenizer: &Tokenizer| serde_json::to_value(tokenizer).unwrap();
    let (made, released) = (form(&sentencepiece()), form(&json()));
    for part in ["added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        assert_eq!(made[part], released[part], "{part}");
    }
    assert!(made["model"] == released["model"], "vocabulary or merges");
}

/// Parts of texts: of every kind that is treated in a way of its own.
fn parts() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-zA-Z]{1,12}",
        2 => " {1,9}",
        1 => r"[\t\n\r\x0b\x0c]{1,4}",
        1 => r"[\x00-\x1f\x7f\u{85}\u{200b}-\u{200f}\u{2028}\u{feff}]",
        1 => "[0-9]{1,9}",
        1 => r"[!-/:-@\[-`{-~]{1,4}",
        1 => "(🙂|👩‍👩‍👧|🇩🇪|👍🏽|☃️){1,4}",
        1 => "[a-zåé][\u{300}-\u{30f}]{1,3}",
        1 => r"[\u{4e00}-\u{9fff}\u{3040}-\u{30ff}\u{ac00}-\u{d7a3}]{1,6}",
        1 => r"[\u{e000}-\u{e0ff}\u{f0000}-\u{f00ff}\u{fff0}-\u{ffff}]{1,2}",
        1 => r"[▁]{1,3}",
        1 => "(<s>|</s>|<unk>|<pad>|\\[INST\\]|\\[/INST\\]|<0x0A>|<0xFF>|<<SYS>>|<s)",
        1 => r"\PC{1,6}",
        1 => "(a|aa|ab|\\.\\.|==|--){1,40}",
    ]
}

static BOTH: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| [json(), sentencepiece()]);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn random_texts(parts in prop::collection::vec(parts(), 0..12)) {
        let text = parts.concat();
        let [json, made] = &*BOTH;
        for special in [false, true] {
            let expected = ids(json, &text, special);
            prop_assert_eq!(&ids(made, &text, special), &expected, "{:?}", text);
            prop_assert_eq!(made.decode(&expected, special).unwrap(), json.decode(&expected, special).unwrap());
        }
    }
}
