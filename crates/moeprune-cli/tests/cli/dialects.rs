//! Files as people have them: what is read, what is said, and the same rule in all commands.

use std::fs;

use crate::command::{CALIBRATION, Scratch};

const WEIGHTS: &str = "model/model.safetensors";
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 7\n";
/// Whole experts go, by what routers say: nothing is run.
const EXPERTS: &str = "--sparsity 0.25 --expert-sparsity 0.25";

/// Edits a weight file as header and data.
fn edit_weights(scratch: &Scratch, edit: impl FnOnce(&mut String, &mut Vec<u8>)) {
    let bytes = fs::read(scratch.path(WEIGHTS)).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
    let mut data = bytes[8 + length..].to_vec();
    edit(&mut header, &mut data);
    let length = (header.len() as u64).to_le_bytes();
    fs::write(scratch.path(WEIGHTS), [&length, header.as_bytes(), &data].concat()).unwrap();
}

fn edit_config(scratch: &Scratch, from: &str, to: &str) {
    let path = scratch.path("model/config.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn names_under_a_prefix() {
    let scratch = Scratch::new("mixtral");
    scratch.ok(&format!("plan model -o plan.json {EXPERTS}"));
    edit_weights(&scratch, |header, _| {
        *header = header
            .replace("\"model.", "\"base_model.model.model.")
            .replace("\"lm_head.", "\"base_model.model.lm_head.");
    });
    let ran = scratch.ok("inspect model");
    let note = "note: the names of tensors begin with `base_model.model.model.` before what those of this \
                family begin with `model.`";
    assert!(ran.stderr.contains(note), "{}", ran.stderr);
    scratch.ok(&format!("prune model out {CALIBRATION}"));
    scratch.ok("verify out --source model");
    // Names are how a model is stored, and not what it is.
    scratch.ok("apply model applied --plan plan.json");
    scratch.ok("verify applied --source model --plan plan.json");
}

#[test]
fn a_head_that_the_config_ties() {
    let scratch = Scratch::new("mixtral");
    let plain = scratch.ok(&format!("prune model plain {CALIBRATION}"));
    edit_config(&scratch, "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    let tied = scratch.ok(&format!("prune model tied {CALIBRATION}"));
    let total = |stdout: &str| {
        let line = stdout.lines().find(|line| line.contains("of all parameters"));
        line.expect("is said").to_owned()
    };
    assert_eq!(total(&tied.stdout), total(&plain.stdout));
    assert!(
        tied.stderr.contains("note: `tie_word_embeddings` in config.json is true, but"),
        "{}",
        tied.stderr
    );
    scratch.ok("verify tied --source model");
}

#[test]
fn a_count_in_quotes() {
    let scratch = Scratch::new("mixtral");
    edit_config(
        &scratch,
        "\"num_local_experts\": 8",
        "\"odd\": [NaN, -Infinity], \"num_local_experts\": \"8\"",
    );
    scratch.ok(&format!("prune model out {CALIBRATION} --expert-sparsity 0.25"));
    scratch.ok("verify out --source model");
    let text = fs::read_to_string(scratch.path("out/config.json")).unwrap();
    assert!(text.contains("\"odd\": [NaN, -Infinity], \"num_local_experts\": \"6\""), "{text}");
}

#[test]
fn what_stands_in_for_a_file_that_is_named() {
    let scratch = Scratch::new("mixtral");
    fs::write(scratch.path("pointer"), POINTER).unwrap();
    for arguments in [
        "apply model out --plan pointer",
        "prune model out --keep pointer",
        "plan model -o plan.json --observation pointer",
        "plan model -o plan.json --recipe pointer",
        "inspect model --family pointer",
        "observe model -o seen --imatrix pointer",
    ] {
        let ran = scratch.run(arguments);
        assert_ne!(ran.code, 0, "{arguments}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains("is a git-lfs pointer"), "{arguments}: {}", ran.stderr);
    }
    fs::write(scratch.path("model.gguf"), POINTER).unwrap();
    let ran = scratch.run("inspect model.gguf");
    assert!(ran.stderr.contains("is a git-lfs pointer"), "{}", ran.stderr);
}

#[test]
fn weights_that_are_not_finite_go_by_one_rule() {
    let name = "model.layers.1.input_layernorm.weight";
    let scratch = Scratch::new("mixtral");
    edit_weights(&scratch, |header, data| {
        let header: serde_json::Value = serde_json::from_str(header).unwrap();
        let start = header[name]["data_offsets"][0].as_u64().unwrap() as usize;
        data[start..start + 2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    });
    let ran = scratch.run(&format!("prune model out {CALIBRATION}"));
    assert_eq!(ran.code, 1, "the model is run");
    assert!(
        ran.stderr.contains(&format!("tensor `{name}` holds NaN at index 0")),
        "{}",
        ran.stderr
    );
    scratch.ok(&format!("plan model -o plan.json {EXPERTS}"));
    scratch.ok("apply model out --plan plan.json");
    let ran = scratch.ok("verify out --source model --plan plan.json");
    let said = format!("1 with NaN or infinity as the source has them; first: `{name}` holds NaN");
    assert!(ran.stdout.contains(&said), "{}", ran.stdout);
}
