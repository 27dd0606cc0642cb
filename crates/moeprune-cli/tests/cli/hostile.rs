//! Bad input: exit code 1 (2 for wrong usage), one clear error, nothing left that looks finished.

use std::fs;

use crate::command::{CALIBRATION, Scratch};

/// Damages a model, prunes it, and expects an error with every one of `expected` in it.
fn check(model: &str, damage: impl FnOnce(&Scratch), arguments: &str, expected: &[&str]) {
    let scratch = Scratch::new(model);
    damage(&scratch);
    let before = scratch.names();
    let ran = scratch.run(&format!("prune model out {CALIBRATION} {arguments}"));
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    for part in expected {
        assert!(ran.stderr.contains(part), "`{part}` is not in:\n{}", ran.stderr);
    }
    assert_eq!(scratch.names(), before, "something was left behind");
}

fn edit_config(from: &'static str, to: &'static str) -> impl FnOnce(&Scratch) {
    move |scratch| {
        let path = scratch.path("model/config.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(path, text.replace(from, to)).unwrap();
    }
}

fn edit_weights(edit: impl FnOnce(&mut Vec<u8>)) -> impl FnOnce(&Scratch) {
    move |scratch| {
        let path = scratch.path("model/model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        edit(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

/// Makes codes ones of a layout that is not known.
fn unknown_codes(bytes: &mut [u8]) {
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in 8..header - 7 {
        match &bytes[at..at + 7] {
            b"_blocks" => bytes[at..at + 7].copy_from_slice(b"_pieces"),
            b"_scales" => bytes[at..at + 7].copy_from_slice(b"_factor"),
            _ => {}
        }
    }
}

#[test]
fn what_cannot_be_run_can_be_cut() {
    let way_out = "--sparsity equal to --expert-sparsity";
    check(
        "gpt_oss_mxfp4",
        edit_weights(|bytes| unknown_codes(bytes)),
        "",
        &["stored as U8, which is not decoded", way_out],
    );
    let scratch = Scratch::new("gpt_oss_mxfp4");
    edit_weights(|bytes| unknown_codes(bytes))(&scratch);
    let ran = scratch.run("plan model -o plan.json");
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    for part in ["stored as U8", way_out, "--keep FILE"] {
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    let ran = scratch.run("plan model -o plan.json --sparsity 0.25 --expert-sparsity 0.25");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn missing_shard() {
    let damage =
        |s: &Scratch| fs::remove_file(s.path("model/model-00003-of-00005.safetensors")).unwrap();
    check("mixtral_sharded", damage, "", &["model-00003-of-00005.safetensors"]);
}

#[test]
fn truncated_shard() {
    let damage = |s: &Scratch| {
        let path = s.path("model/model-00002-of-00005.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    check("mixtral_sharded", damage, "", &["model-00002-of-00005.safetensors"]);
}

#[test]
fn wrong_header_length() {
    for length in [0, 7, 1 << 40, u64::MAX] {
        let edit = |bytes: &mut Vec<u8>| bytes[..8].copy_from_slice(&length.to_le_bytes());
        check("arctic", edit_weights(edit), "", &["model.safetensors"]);
    }
}

#[test]
fn index_that_names_a_tensor_no_shard_has() {
    let damage = |s: &Scratch| {
        let path = s.path("model/model.safetensors.index.json");
        let text = fs::read_to_string(&path).unwrap();
        let entry = "\"weight_map\": {\"ghost\": \"model-00001-of-00005.safetensors\",";
        fs::write(path, text.replacen("\"weight_map\": {", entry, 1)).unwrap();
    };
    check("mixtral_sharded", damage, "", &["ghost"]);
}

#[test]
fn expert_count_that_does_not_match_the_tensors() {
    let count = |n| edit_config("\"num_local_experts\": 8", n);
    check("arctic", count("\"num_local_experts\": 7"), "", &["7", "8"]);
    check("arctic", count("\"num_local_experts\": 9"), "", &["9", "8"]);
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let name = "model.layers.2.block_sparse_moe.experts.1.w3.weight";
    let damage = |bytes: &mut Vec<u8>| {
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        let start = 8 + header + json[name]["data_offsets"][0].as_u64().unwrap() as usize;
        bytes[start..start + 2].copy_from_slice(&0x7f80_u16.to_le_bytes());
    };
    check("arctic", edit_weights(damage), "", &[name]);
    check("arctic", edit_weights(damage), "--sparsity 0.25 --expert-sparsity 0.25", &[name]);
    check("arctic", edit_weights(damage), "--sparsity 0.5 --expert-sparsity 0", &[name]);
}

#[test]
fn top_k_above_the_experts_left() {
    check("arctic", |_| (), "--sparsity 0.9 --expert-sparsity 0.9", &["routed to 2"]);
    let none = ["nothing would be removed", "at least 0.0625"];
    check("arctic", |_| (), "--sparsity 0.05 --expert-sparsity 0.05", &none);
    let global = "--sparsity 0.01 --expert-sparsity 0.01 --budget global";
    check("arctic", |_| (), global, &["nothing would be removed", "at least 0.0"]);
    check(
        "arctic",
        |_| (),
        "--sparsity 0.9 --expert-sparsity 0.9 --budget global",
        &["--expert-sparsity"],
    );
}

#[test]
fn output_that_exists() {
    let damage = |s: &Scratch| fs::create_dir_all(s.path("out/precious")).unwrap();
    check("arctic", damage, "", &["out", "exists", "precious"]);
}

#[test]
fn output_inside_the_model() {
    let scratch = Scratch::new("arctic");
    let ran = scratch.run(&format!("prune model model/out {CALIBRATION}"));
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("inside"), "{}", ran.stderr);
    assert!(!scratch.path("model/out").exists());
}

#[test]
fn calibration_text_that_is_too_short() {
    let damage = |s: &Scratch| fs::write(s.path("tokens.jsonl"), "{\"tokens\":[1,2]}\n").unwrap();
    check("arctic", damage, "", &["tokens.jsonl", "short"]);
}

#[test]
fn tokens_outside_the_vocabulary() {
    let damage = |s: &Scratch| {
        let ids = vec!["999"; 32].join(",");
        fs::write(s.path("tokens.jsonl"), format!("{{\"tokens\":[{ids}]}}\n")).unwrap();
    };
    check("arctic", damage, "", &["999", "256"]);
}

#[test]
fn text_without_a_tokenizer() {
    let damage = |s: &Scratch| fs::write(s.path("tokens.jsonl"), "plain text").unwrap();
    check("arctic", damage, "", &["tokenizer.json"]);
}

#[test]
fn tokens_that_the_embedding_lacks() {
    let damage = |s: &Scratch| {
        let vocab: Vec<String> = (0..300).map(|i| format!("\"t{i}\":{i}")).collect();
        let json = format!(
            "{{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],\
             \"normalizer\":null,\"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":null,\
             \"model\":{{\"type\":\"WordLevel\",\"vocab\":{{{}}},\"unk_token\":\"t0\"}}}}",
            vocab.join(",")
        );
        fs::write(s.path("model/tokenizer.json"), json).unwrap();
        fs::write(s.path("tokens.jsonl"), "t299").unwrap();
    };
    check("arctic", damage, "", &["299", "256"]);
}

#[test]
fn wrong_usage_exits_with_2() {
    let scratch = Scratch::new("arctic");
    for arguments in [
        "",
        "prune",
        "prune model out --calibration tokens.jsonl --sparsity 40",
        "prune model out --calibration tokens.jsonl --clustering nearest",
        "prune model out --calibration tokens.jsonl --samples 0",
        "frobnicate",
        "eval model --task gsm8k --data tokens.jsonl --limit 0",
        "eval model --task perplexity --data tokens.jsonl --seq-len 0",
    ] {
        let ran = scratch.run(arguments);
        assert_eq!(ran.code, 2, "moeprune {arguments}: {}", ran.stderr);
    }
}

/// Whether a model needs text is seen when it is opened: a GGUF does not.
#[test]
fn what_to_prune_by_is_named() {
    let ran = Scratch::new("arctic").run("prune model out");
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    for option in ["--calibration FILE", "--observation FILE", "--keep FILE"] {
        assert!(ran.stderr.contains(option), "{}", ran.stderr);
    }
}

#[test]
fn files_in_folders_that_are_not_there_are_refused_before_any_work() {
    check("arctic", |_| (), "--json nowhere/report.json", &["nowhere", "make it first"]);
    let scratch = Scratch::new("arctic");
    for arguments in [
        "plan model -o nowhere/plan.json",
        "observe model --calibration tokens.jsonl -o nowhere/seen.safetensors",
        "eval model --task perplexity --data tokens.jsonl --json nowhere/out.json",
    ] {
        let ran = scratch.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{arguments}: {}", ran.stderr);
        assert!(ran.stderr.contains("make it first"), "{arguments}: {}", ran.stderr);
    }
}

#[test]
fn totals_that_cannot_be_met() {
    // A fifth of 8 experts rounds to 2, which are 23 % of all decoder Linears.
    let shares = "--sparsity 0.21 --expert-sparsity 0.2";
    check("mixtral", |_| (), shares, &["more than the total of 21.00 %", "--expert-sparsity"]);
}

#[test]
fn more_samples_than_memory() {
    let scratch = Scratch::new("arctic");
    let arguments = "--calibration tokens.jsonl --samples 99999999999999 --seq-len 32";
    let ran = scratch.run(&format!("prune model out {arguments}"));
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("99999999999999"), "{}", ran.stderr);
}

#[test]
fn recipes_that_no_run_can_follow() {
    for recipe in ["[weights]\nowl_multiplier = inf", "[weights]\nowl_lamda = 0.1", "sparsity = 4"]
    {
        let scratch = Scratch::new("arctic");
        fs::write(scratch.path("r.toml"), recipe).unwrap();
        let ran = scratch.run(&format!("prune model out {CALIBRATION} --recipe r.toml"));
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains("recipe"), "{}", ran.stderr);
    }
}

#[test]
fn plan_of_another_model() {
    let scratch = Scratch::new("arctic");
    scratch.ok("plan model --sparsity 0.25 --expert-sparsity 0.25 -o plan.json");
    let text = fs::read_to_string(scratch.path("plan.json")).unwrap();
    let other = text.replacen("sha256:", "sha256:0", 1);
    fs::write(scratch.path("plan.json"), other).unwrap();
    let ran = scratch.run("apply model out --plan plan.json");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("another model"), "{}", ran.stderr);
    assert!(!scratch.path("out").exists());
}

#[test]
fn plan_edited_into_nonsense() {
    let scratch = Scratch::new("arctic");
    scratch.ok("plan model --sparsity 0.25 --expert-sparsity 0.25 --read-experts -o plan.json");
    let plan: serde_json::Value =
        serde_json::from_slice(&fs::read(scratch.path("plan.json")).unwrap()).unwrap();
    let check = |edit: fn(&mut serde_json::Value), expected: &str| {
        let mut plan = plan.clone();
        edit(&mut plan);
        fs::write(scratch.path("edited.json"), plan.to_string()).unwrap();
        let ran = scratch.run("apply model out --plan edited.json");
        assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(expected), "`{expected}` is not in {}", ran.stderr);
        assert!(!scratch.path("out").exists());
    };
    check(|p| drop(p["layers"][0]["survivors"].as_array_mut().unwrap().pop()), "survivors");
    check(|p| p["layers"][0]["tokens"] = serde_json::json!([1, 2]), "tokens");
    check(|p| p["layers"][0]["survivors"][0]["source"] = 99.into(), "ascending");
    check(|p| p["layers"][1]["layer"] = 0.into(), "twice");
    check(|p| p["layers"][0]["layer"] = 77.into(), "77");
    check(|p| p["layers"][0]["clusters"][0] = serde_json::json!([0, 0]), "two places");
    check(
        |p| {
            let cluster = p["layers"][0]["clusters"][0].clone();
            p["layers"][0]["survivors"][0]["average_of"] =
                serde_json::json!([cluster[0], cluster[0]]);
        },
        "not its cluster",
    );
    check(|p| p["format"] = 9.into(), "format 9");
    check(|p| p["typo"] = 1.into(), "typo");
}
