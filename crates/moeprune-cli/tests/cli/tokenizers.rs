//! Models whose tokenizer is of another form than `tokenizer.json`, and tokens that they have no row for.

use std::{fs, path::Path};

use crate::command::Scratch;

const CALIBRATION: &str = "--calibration text.jsonl --samples 2 --seq-len 24";

/// A model with a SentencePiece model of 240 pieces and a config, and texts to calibrate on.
fn with_sentencepiece(config: &str) -> Scratch {
    let scratch = Scratch::new("mixtral");
    let assets =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tokenizers/sentencepiece");
    fs::copy(assets.join("bpe_small.model"), scratch.path("model/tokenizer.model")).unwrap();
    fs::write(scratch.path("model/tokenizer_config.json"), config).unwrap();
    let line = "{\"text\": \"Maya has 20 toys. She buys 4 more, and gives 3 of them away. How many are left?\"}\n";
    fs::write(scratch.path("text.jsonl"), line.repeat(8)).unwrap();
    scratch
}

#[test]
fn a_sentencepiece_model_alone() {
    let scratch = with_sentencepiece("{}");
    scratch.ok(&format!("prune model pruned {CALIBRATION}"));
    assert!(scratch.path("pruned/tokenizer.model").exists());
    scratch.ok(&format!("observe pruned {CALIBRATION} -o a.obs"));
    scratch.ok("eval pruned --task perplexity --data text.jsonl --seq-len 24");
}

#[test]
fn a_token_beyond_the_embedding_until_it_occurs() {
    let decoder = r#"{"added_tokens_decoder": {"300": {"content": "<pad>", "special": true}}}"#;
    let scratch = with_sentencepiece(decoder);
    scratch.ok(&format!("observe model {CALIBRATION} -o a.obs"));
    let line = "{\"text\": \"Maya has <pad> 20 toys.\"}\n";
    fs::write(scratch.path("text.jsonl"), line.repeat(8)).unwrap();
    let ran = scratch.run(&format!("observe model {CALIBRATION} -o b.obs"));
    assert_eq!(ran.code, 1);
    let expected = ["text.jsonl", "line 1", "token id 300 (\"<pad>\")", "256 rows"];
    assert!(expected.iter().all(|text| ran.stderr.contains(text)), "{}", ran.stderr);
}

#[test]
fn a_tokenizer_that_is_not_read() {
    let scratch = with_sentencepiece("{}");
    fs::write(scratch.path("model/tokenizer.model"), "IQ== 0\nIg== 1\n").unwrap();
    let ran = scratch.run(&format!("observe model {CALIBRATION} -o a.obs"));
    let expected = ["tokenizer.model is a tiktoken vocabulary", "save_pretrained"];
    assert!(expected.iter().all(|text| ran.stderr.contains(text)), "{}", ran.stderr);
    fs::remove_file(scratch.path("model/tokenizer.model")).unwrap();
    let ran = scratch.run(&format!("observe model {CALIBRATION} -o a.obs"));
    assert!(ran.stderr.contains("there is no tokenizer.json (nor"), "{}", ran.stderr);
}
