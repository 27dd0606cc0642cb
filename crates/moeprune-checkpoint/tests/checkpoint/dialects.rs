//! Configs in the spellings that people have them in.

use std::fs;

use moeprune_checkpoint::{Checkpoint, verify};
use proptest::prelude::*;

use crate::{
    fixture::{Model, apply, check_refused, parity, plan_keeping},
    pruned::{as_it_is, check_passes},
};

const FILE: &str = "model.safetensors";

fn edited(from: &str, to: &str) -> Model {
    let model = Model::copy_of("mixtral");
    if from != to {
        model.edit_text("config.json", |text| text.replacen(from, to, 1));
    }
    model
}

/// Prunes and verifies, and checks what the config says then.
fn check_pruned(model: &Model, expected: &str) {
    let source = model.open().expect("opens");
    let plain = Checkpoint::open(&parity("mixtral")).expect("opens");
    assert_eq!(source.spec().layers, plain.spec().layers);
    let plan = plan_keeping(&source, &[0, 2, 3, 5, 6, 7]);
    let out = model.root.path().join("out");
    apply(&source, &plan, &out, as_it_is);
    check_passes(&verify(&out, &source, Some(&plan)).expect("verifies"));
    let text = fs::read(out.join("config.json")).expect("reads");
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(text.contains(expected), "{text}");
}

#[test]
fn counts_keep_their_spelling() {
    let check = |before: &str, after: &str| {
        let key = "\"num_local_experts\": ";
        let model = edited("\"num_local_experts\": 8", &format!("{key}{before}"));
        check_pruned(&model, &format!("{key}{after},"));
    };
    check("8", "6");
    check("\"8\"", "\"6\"");
    check("8.0", "6.0");
    check("8e0", "6.0");
    check("\"8.0\"", "\"6.0\"");
    check("[8, 8, 8]", "6");
    check("[\"8\", \"8\", \"8\"]", "\"6\"");
}

#[test]
fn aliases_in_two_spellings() {
    let both = "\"num_experts\": \"8\", \"num_local_experts\": 8";
    let model = edited("\"num_local_experts\": 8", both);
    check_pruned(&model, "\"num_experts\": \"6\", \"num_local_experts\": 6,");
    let differ = "\"num_experts\": \"9\", \"num_local_experts\": 8";
    let model = edited("\"num_local_experts\": 8", differ);
    check_refused(model.open(), &["`num_local_experts` is 8 but `num_experts` is \"9\""]);
}

#[test]
fn other_counts_and_switches() {
    let check = |from: &str, to: &str| check_pruned(&edited(from, to), to);
    check("\"hidden_size\": 64", "\"hidden_size\": \"64\"");
    check("\"hidden_size\": 64", "\"hidden_size\": 6.4e1");
    check("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": \"1e-05\"");
    check("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 2.0");
    for switch in ["false", "0", "\"false\"", "\"False\"", "null"] {
        check("\"tie_word_embeddings\": false", &format!("\"tie_word_embeddings\": {switch}"));
    }
}

#[test]
fn what_is_not_read_is_carried_unchanged() {
    let odd = r#""odd": [NaN, -Infinity, {"Infinity": Infinity}], "model_type""#;
    check_pruned(&edited("\"model_type\"", odd), odd);
    let model = Model::copy_of("mixtral");
    model.edit_text("config.json", |text| format!("\u{feff}{text}"));
    check_pruned(&model, "\"num_local_experts\": 6");
    let text = fs::read(model.root.path().join("out/config.json")).expect("reads");
    assert!(text.starts_with(b"\xef\xbb\xbf{"), "the mark stays");
}

#[test]
fn what_is_needed_is_named() {
    let check =
        |from: &str, to: &str, expected: &str| check_refused(edited(from, to).open(), &[expected]);
    check("\"hidden_size\": 64", "\"hidden_size\": NaN", "`hidden_size` must be a whole number");
    check("\"hidden_size\": 64", "\"hidden_size\": Infinity", "got Infinity");
    check("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": NaN", "got NaN");
    check("\"num_local_experts\": 8", "\"num_local_experts\": \"N\"", "got \"N\"");
    check("\"num_local_experts\": 8", "\"num_local_experts\": [8, NaN, 8]", "got [8, NaN, 8]");
    check(
        "\"model_type\": \"mixtral\"",
        "\"model_type\": NaN",
        "`model_type` must be a string, got NaN",
    );
    check("\"num_local_experts\": 8", "\"num_local_experts\": 8,\n// of them", "a comment");
    check("\"use_cache\": true", "\"use_cache\": True", "a word of Python's");
    check("\"use_cache\": true", "\"o\": {\"a\": 1, \"a\": 2}", "`a` appears twice at line");
}

#[test]
fn text_of_other_kinds() {
    let text = fs::read_to_string(parity("mixtral").join("config.json")).expect("reads");
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [utf16.clone(), [&b"\xff\xfe"[..], &utf16].concat()] {
        let model = Model::copy_of("mixtral");
        fs::write(model.path("config.json"), bytes).expect("writes");
        check_refused(model.open(), &["config.json", "UTF-16"]);
    }
    let comma = text.trim_end().trim_end_matches('}').trim_end().to_owned() + ",\n}\n";
    let model = Model::copy_of("mixtral");
    fs::write(model.path("config.json"), &comma).expect("writes");
    let line = format!("remove it at line {}", comma.lines().count());
    check_refused(model.open(), &["a comma before the bracket that closes", &line]);
}

#[test]
fn other_files_of_json() {
    let index = "model.safetensors.index.json";
    let model = Model::copy_of("mixtral_sharded");
    let with_odd = |text: String| text.replacen('{', "\u{feff}{\"odd\": [NaN, Infinity],", 1);
    model.edit_text(index, with_odd);
    model.open().expect("opens");
    for (file, expected) in [("generation_config.json", vec![7]), ("config.json", vec![1])] {
        let model = Model::copy_of("mixtral");
        let text = "\u{feff}{\"temperature\": NaN, \"eos_token_id\": \"7\"}";
        fs::write(model.path("generation_config.json"), text).expect("writes");
        if file == "config.json" {
            fs::write(model.path("generation_config.json"), "{\"a\": NaN}").expect("writes");
            model.edit_text(file, |text| text.replacen('{', "{\"eos_token_id\": [1.0], ", 1));
        }
        let ids = model.open().and_then(|checkpoint| checkpoint.eos_token_ids());
        if let Ok(ids) = ids {
            assert_eq!(ids, expected);
        } else {
            check_refused(ids, &["`eos_token_id` appears twice"]);
        }
    }
    let model = Model::copy_of("mixtral");
    fs::write(model.path("generation_config.json"), "{\"eos_token_id\": NaN}").expect("writes");
    check_refused(model.open().expect("opens").eos_token_ids(), &["eos_token_id is NaN"]);
}

/// A model of which the config says that the head is the embedding.
fn tied(said: &str) -> Model {
    edited("\"tie_word_embeddings\": false", &format!("\"tie_word_embeddings\": {said}"))
}

#[test]
fn a_head_that_is_stored_is_the_head() {
    let plain = Checkpoint::open(&parity("mixtral")).expect("opens");
    for said in ["true", "\"true\"", "1"] {
        let model = tied(said);
        let source = model.open().expect("opens");
        assert!(!source.spec().tied_embeddings);
        assert_eq!(source.spec().parts().len(), plain.spec().parts().len());
        let notes: Vec<&str> = source.notes().collect();
        let [note] = notes[..] else { panic!("{notes:?}") };
        assert!(
            note.contains("`tie_word_embeddings`") && note.contains("`lm_head.weight`"),
            "{note}"
        );
        check_pruned(&model, &format!("\"tie_word_embeddings\": {said}"));
    }
}

#[test]
fn a_head_that_is_the_embedding() {
    let model = tied("true");
    model.edit_tensors(FILE, |tensors| {
        let embedding = tensors.iter().find(|t| t.name == "model.embed_tokens.weight");
        let bytes = embedding.expect("is there").bytes.clone();
        tensors.iter_mut().find(|t| t.name == "lm_head.weight").expect("is there").bytes = bytes;
    });
    let source = model.open().expect("opens");
    assert_eq!(source.notes().count(), 0, "nothing contradicts");
    check_pruned(&model, "\"tie_word_embeddings\": true");
}

#[test]
fn no_head() {
    let without = |said: &str| {
        let model = tied(said);
        model.edit_tensors(FILE, |tensors| tensors.retain(|t| t.name != "lm_head.weight"));
        model
    };
    let source = without("true").open().expect("opens");
    assert!(source.spec().tied_embeddings);
    for said in ["\"false\"", "null", "0"] {
        check_refused(
            without(said).open(),
            &["`lm_head.weight`", "is missing", "`tie_word_embeddings`"],
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A count that is not the model's is refused by name, in any spelling, and its own is taken.
    #[test]
    fn any_spelling_of_a_count(number in 1_u32..12, quoted: bool, point: bool, spaces in " {0,2}") {
        let number_text = if point { format!("{number}.0") } else { number.to_string() };
        let text = if quoted { format!("\"{number_text}\"") } else { number_text };
        let key = "\"num_local_experts\":";
        let model = Model::copy_of("mixtral");
        model.edit_text("config.json", |old| old.replacen("\"num_local_experts\": 8", &format!("{key}{spaces} {text} "), 1));
        match model.open() {
            Ok(source) => {
                prop_assert_eq!(number, 8);
                let rewritten = source.config_with_experts(&[5, 5, 5]).expect("rewrites");
                let five = text.replace('8', "5");
                let expected = format!("{key}{spaces} {five} ");
                prop_assert!(rewritten.contains(&expected), "{}", rewritten);
            }
            Err(error) => {
                prop_assert_ne!(number, 8);
                let says = format!("says {number} experts");
                let said = error.to_string();
                prop_assert!(said.contains(&says) || said.contains("`num_experts_per_tok`"), "{}", said);
            }
        }
    }
}
