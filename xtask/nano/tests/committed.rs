//! What is committed in `assets/nano` is what this code makes.

use nano::config::Config;
use nano::corpus::Corpus;
use nano::data;
use nano::train::{SEED, TOKENIZER_PROBLEMS, tokenizer};
use std::path::PathBuf;

fn committed(name: &str) -> String {
    let assets = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano");
    std::fs::read_to_string(assets.join(name)).expect(name)
}

#[test]
fn the_problems() {
    for (name, text) in data::files(&Corpus::new(SEED)).unwrap() {
        assert!(committed(&format!("data/{name}")) == text, "{name} differs");
    }
}

#[test]
fn the_tokenizer() {
    let made = tokenizer(&Corpus::new(SEED), TOKENIZER_PROBLEMS, &Config::nano()).unwrap();
    assert!(committed("tokenizer.json") == made.json().unwrap());
}
