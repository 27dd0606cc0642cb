//! Cards of pruned models.

use std::{fs, path::PathBuf};

use crate::command::{CALIBRATION, Scratch};

const BASE: &str = "---
license: apache-2.0
language: [en, 'no']
pipeline_tag: text-generation
metrics: [accuracy]
model-index:
- name: base
  results: [{task: {type: text-generation}, metrics: [{type: accuracy, value: 0.706}]}]
---
# The base

MMLU 70.6
";

const EXPERTS: &str = "--sparsity 0.25 --expert-sparsity 0.25";

/// A folder with a model that has a card.
fn with_card(model: &str, card: impl AsRef<[u8]>) -> Scratch {
    let scratch = Scratch::new(model);
    fs::write(scratch.path("model/README.md"), card).unwrap();
    scratch
}

fn text(scratch: &Scratch, path: &str) -> String {
    fs::read_to_string(scratch.path(path)).unwrap()
}

/// Names of cards in a folder.
fn cards(scratch: &Scratch, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(scratch.path(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("README")).collect();
    names.sort();
    names
}

#[test]
fn the_card_of_a_pruned_model() {
    let scratch = with_card("mixtral", BASE);
    scratch.ok(&format!("prune model out {CALIBRATION} --recipe arctic"));
    scratch.ok("verify out --source model");
    assert_eq!(cards(&scratch, "out"), ["README.base.md", "README.md"]);
    assert_eq!(text(&scratch, "out/README.base.md"), BASE);
    let card = text(&scratch, "out/README.md");
    assert!(!card.contains("70.6") && !card.contains("accuracy"), "{card}");
    insta::assert_snapshot!("card", card);
}

/// The same whole, and of parts; and it names no place of this machine.
#[test]
fn every_verb_that_writes_a_model_writes_a_card() {
    let scratch = with_card("mixtral", BASE);
    scratch.ok(&format!("plan model {EXPERTS} -o plan.json"));
    scratch.ok("apply model whole --plan plan.json");
    let path = |name: &str| scratch.path(name).to_str().unwrap().to_owned();
    let [model, plan, out] = ["model", "plan.json", "out"].map(path);
    scratch.ok(&format!("apply {model} {out} --plan {plan}"));
    for part in [1, 2] {
        scratch.ok(&format!("apply model part-{part} --plan plan.json --part {part}/2"));
        assert_eq!(cards(&scratch, &format!("part-{part}")), [""; 0]);
    }
    scratch.ok("join model part-1 part-2 -o joined");
    for out in ["out", "joined"] {
        assert_eq!(cards(&scratch, out), ["README.base.md", "README.md"]);
        assert_eq!(text(&scratch, &format!("{out}/README.md")), text(&scratch, "whole/README.md"));
    }
    let card = text(&scratch, "out/README.md");
    assert!(!card.contains(scratch.path("").to_str().unwrap()), "{card}");
}

#[test]
fn no_card() {
    let scratch = with_card("mixtral", BASE);
    scratch.ok(&format!("plan model {EXPERTS} -o plan.json"));
    for part in [1, 2] {
        scratch.ok(&format!("apply model part-{part} --plan plan.json --part {part}/2"));
    }
    scratch.ok(&format!("prune model pruned {CALIBRATION} --no-card"));
    scratch.ok("apply model applied --plan plan.json --no-card");
    scratch.ok("join model part-1 part-2 -o joined --no-card");
    for out in ["pruned", "applied", "joined"] {
        // The base's card would claim the base's scores.
        assert_eq!(cards(&scratch, out), ["README.base.md"]);
        assert_eq!(text(&scratch, &format!("{out}/README.base.md")), BASE);
        scratch.ok(&format!("verify {out} --source model"));
    }
}

#[test]
fn a_base_without_a_card() {
    let scratch = Scratch::new("mixtral");
    scratch.ok(&format!("prune model out {CALIBRATION} {EXPERTS}"));
    assert_eq!(cards(&scratch, "out"), ["README.md"]);
    let card = text(&scratch, "out/README.md");
    assert!(!card.contains("license:") && !card.contains("README.base.md"), "{card}");
    scratch.ok(&format!("prune model plain {CALIBRATION} {EXPERTS} --no-card"));
    assert_eq!(cards(&scratch, "plain"), [""; 0]);
    scratch.ok("verify plain --source model");
}

#[test]
fn cards_of_models_that_were_pruned_before_are_kept() {
    let scratch = with_card("arctic", BASE);
    let mut from = "model".to_owned();
    for (out, share) in [("once", 0.25), ("twice", 0.34), ("thrice", 0.5)] {
        let shares = format!("--sparsity {share} --expert-sparsity {share}");
        scratch.ok(&format!("plan {from} {shares} -o {out}.json"));
        scratch.ok(&format!("apply {from} {out} --plan {out}.json"));
        scratch.ok(&format!("verify {out} --source {from}"));
        from = out.to_owned();
    }
    let kept = ["README.base.2.md", "README.base.3.md", "README.base.md", "README.md"];
    assert_eq!(cards(&scratch, "thrice"), kept);
    assert_eq!(text(&scratch, "thrice/README.base.3.md"), BASE);
    assert_eq!(text(&scratch, "thrice/README.base.2.md"), text(&scratch, "once/README.md"));
    assert_eq!(text(&scratch, "thrice/README.base.md"), text(&scratch, "twice/README.md"));
    // Licence and language come through all of them.
    assert!(text(&scratch, "thrice/README.md").contains("license: apache-2.0\n"));
}

#[test]
fn verify_holds_the_base_card_to_the_source() {
    let scratch = with_card("mixtral", BASE);
    scratch.ok(&format!("prune model out {CALIBRATION} {EXPERTS}"));
    let fails = |expected: &str| {
        let ran = scratch.run("verify out --source model");
        assert_eq!(ran.code, 1, "{}", ran.stdout);
        assert!(ran.stdout.contains(expected), "{}", ran.stdout);
    };
    fs::write(scratch.path("out/README.md"), "another card").unwrap();
    scratch.ok("verify out --source model");
    fs::write(scratch.path("out/README.base.md"), "another").unwrap();
    fails("README.base.md differs from README.md of the source");
    fs::remove_file(scratch.path("out/README.base.md")).unwrap();
    fails("README.base.md is missing");
    // Results of before there were cards.
    fs::write(scratch.path("out/README.md"), BASE).unwrap();
    scratch.ok("verify out --source model");
}

#[test]
fn cards_that_cannot_be_understood_are_kept_and_noted() {
    let hostile: [(&[u8], &str); 7] = [
        (b"---\nlicense: \xff\n---\n", "is not UTF-8"),
        (b"---\nlicense: mit\n", "without an end"),
        (b"---\nlicense:\n\tmit\n---\n", "cannot be read"),
        (b"---\nx: [[[[\n---\n", "cannot be read"),
        (b"---\nlicense: mit\nlicense: gpl\n---\n", "gives license twice"),
        (b"---\nlicense: {a: b}\n---\n", "gives license twice, or not as text"),
        (b"\x1b[31m---\n", ""),
    ];
    let scratch = Scratch::new("mixtral");
    scratch.ok(&format!("plan model {EXPERTS} -o plan.json"));
    let long = [b"---\nx: ", &b"x".repeat(10 << 20)[..], b"\n---\n"].concat();
    for (card, expected) in hostile.into_iter().chain([(&long[..], "without an end")]) {
        fs::write(scratch.path("model/README.md"), card).unwrap();
        let ran = scratch.ok("apply model out --plan plan.json");
        assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
        assert_eq!(ran.stderr.contains("README.md"), !expected.is_empty(), "{}", ran.stderr);
        assert!(fs::read(scratch.path("out/README.base.md")).unwrap() == card);
        assert!(!text(&scratch, "out/README.md").contains("license:"));
        scratch.ok("verify out --source model");
        fs::remove_dir_all(scratch.path("out")).unwrap();
    }
}

/// A folder in the place of a card is no card, and stays.
#[test]
fn folders_with_the_name_of_a_card() {
    let scratch = Scratch::new("mixtral");
    fs::create_dir(scratch.path("model/README.md")).unwrap();
    fs::write(scratch.path("model/README.md/notes.txt"), "kept").unwrap();
    scratch.ok(&format!("prune model out {CALIBRATION} {EXPERTS}"));
    assert_eq!(text(&scratch, "out/README.base.md/notes.txt"), "kept");
    assert!(text(&scratch, "out/README.md").starts_with("---\n"));
    scratch.ok("verify out --source model");
}

/// The indented blocks of a card.
fn blocks(card: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut inside = false;
    for line in card.lines() {
        let code = line.strip_prefix("    ").or_else(|| (inside && line.is_empty()).then_some(""));
        match code {
            Some(code) if inside => *blocks.last_mut().unwrap() += &format!("{code}\n"),
            Some(code) => blocks.push(format!("{code}\n")),
            None => {}
        }
        inside = code.is_some();
    }
    blocks
}

/// What a card says makes the model again, with the same card.
#[test]
fn the_commands_of_a_card_make_the_model_again() {
    for (prepare, command) in [
        ("", format!("prune model out {CALIBRATION} --sparsity 0.5")),
        ("", format!("prune model out {CALIBRATION} --recipe reap {EXPERTS}")),
        ("", format!("prune model out {CALIBRATION} --scorer sparsegpt --pattern 2:4")),
        ("", format!("prune model out {CALIBRATION} --recipe reap --repair refit {EXPERTS}")),
        ("plan model EXPERTS -o plan.json", "apply model out --plan plan.json".into()),
        (
            "observe model CALIBRATION -o observation.safetensors",
            "prune model out --observation observation.safetensors".into(),
        ),
    ] {
        let scratch = with_card("mixtral", BASE);
        if !prepare.is_empty() {
            scratch.ok(&prepare.replace("EXPERTS", EXPERTS).replace("CALIBRATION", CALIBRATION));
        }
        scratch.ok(&command);
        let card = text(&scratch, "out/README.md");
        let [commands, recipe] = &blocks(&card)[..] else { panic!("{card}") };
        fs::write(scratch.path("recipe.toml"), recipe).unwrap();
        let _ = fs::remove_file(scratch.path("plan.json"));
        for line in commands.lines().filter(|line| !line.is_empty()) {
            let arguments = line.strip_prefix("moeprune ").unwrap();
            scratch.ok(&arguments.replace("OUT", "again"));
        }
        for file in ["model.safetensors", "README.md"] {
            let bytes = |out: &str| fs::read(scratch.path(out).join(file)).unwrap();
            assert!(bytes("out") == bytes("again"), "{command}: {file}\n{card}");
        }
    }
}

#[test]
fn a_snapshot_of_the_cache_says_which_model_it_is() {
    let scratch = with_card("mixtral", BASE);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let folder = scratch.path("hub/models--org--name/snapshots");
    fs::create_dir_all(&folder).unwrap();
    fs::rename(scratch.path("model"), folder.join(commit)).unwrap();
    let model: PathBuf = folder.join(commit);
    scratch.ok(&format!("plan {} {EXPERTS} -o plan.json", model.display()));
    scratch.ok(&format!("apply {} out --plan plan.json", model.display()));
    let card = text(&scratch, "out/README.md");
    for expected in [
        "base_model: org/name\n",
        "# name, ",
        "[org/name](https://huggingface.co/org/name) (commit `0123456789abcdef0123456789abcdef01234567`)",
        "    moeprune apply name OUT --plan plan.json\n",
    ] {
        assert!(card.contains(expected), "{expected}: {card}");
    }
    assert!(!card.contains("hub/"), "{card}");
}

/// A run that was killed when its card was written, and is resumed without one.
#[cfg(unix)]
#[test]
fn an_unfinished_card_is_removed() {
    use crate::resume::{spawn, wait_for_records};
    let scratch = with_card("arctic", BASE);
    let mut child = spawn(&scratch, &format!("prune model out {CALIBRATION}"));
    if !wait_for_records(&scratch, &mut child, 1) {
        return eprintln!("skipped: it was faster");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let unfinished = scratch.path(".out.moeprune-partial/output");
    if !unfinished.exists() {
        return eprintln!("skipped: it was faster");
    }
    fs::write(unfinished.join("README.md"), "an unfinished card").unwrap();
    scratch.ok(&format!("prune model out {CALIBRATION} --resume --no-card"));
    assert_eq!(cards(&scratch, "out"), ["README.base.md"]);
}
