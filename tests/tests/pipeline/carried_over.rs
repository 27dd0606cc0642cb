//! What is not pruned arrives unchanged.

use std::fs;

use moeprune::checkpoint::{Checkpoint, verify};

use crate::scratch::{asset, copy, recipe, run, tokens};

#[test]
fn other_files_and_config_keys_arrive_byte_for_byte() {
    let scratch = tempfile::tempdir().unwrap();
    let model = copy("parity/arctic", scratch.path());
    fs::write(model.join("tokenizer.model"), [0, 159, 146, 150]).unwrap();
    fs::create_dir(model.join("extra")).unwrap();
    fs::write(model.join("extra/notes.txt"), "as it is").unwrap();
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let strange = "{\n   \"zzz_unknown\" : [1e-05,  2.50],";
    fs::write(model.join("config.json"), config.replacen('{', strange, 1)).unwrap();

    let out = scratch.path().join("out");
    let calibration = tokens(scratch.path(), 8, 64, 256);
    run(&model, &out, &calibration, &recipe(0.25, 0.25)).unwrap();

    assert_eq!(fs::read(out.join("tokenizer.model")).unwrap(), [0, 159, 146, 150]);
    assert_eq!(fs::read(out.join("extra/notes.txt")).unwrap(), b"as it is");
    let expected = fs::read_to_string(model.join("config.json"))
        .unwrap()
        .replace("\"num_local_experts\": 8", "\"num_local_experts\": 6");
    assert_eq!(fs::read_to_string(out.join("config.json")).unwrap(), expected);
}

#[test]
fn kept_experts_are_bit_identical_when_only_experts_go() {
    for model in ["parity/arctic", "parity/mixtral_sharded"] {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let calibration = tokens(scratch.path(), 8, 64, 256);
        run(&asset(model), &out, &calibration, &recipe(0.25, 0.25)).unwrap();
        let source = Checkpoint::open(&asset(model)).unwrap();
        let report = verify(&out, &source, None).unwrap();
        for check in &report.checks {
            assert!(check.passed, "{}: {}", check.name, check.detail);
        }
    }
}
