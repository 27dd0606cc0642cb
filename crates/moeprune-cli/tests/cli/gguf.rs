//! A GGUF model and its imatrix, from file to file.

use std::{fs, path::Path};

use serde_json::Value;

use crate::command::Scratch;

/// A GGUF and what llama-imatrix collected on it.
fn scratch() -> Scratch {
    let scratch = Scratch::new("mixtral");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/gguf");
    fs::copy(folder.join("mix32-MX.gguf"), scratch.path("model.gguf")).unwrap();
    for name in ["im.gguf", "im.dat"] {
        fs::copy(folder.join("imatrix").join(name), scratch.path(name)).unwrap();
    }
    scratch
}

/// Three commands, as the documentation has them.
#[test]
fn to_a_smaller_file() {
    let scratch = scratch();
    scratch.ok("observe model.gguf --imatrix im.gguf -o model.obs");
    let prune =
        "prune model.gguf small.gguf --observation model.obs --criterion frequency --sparsity 0.25";
    let ran = scratch.ok(prune);
    assert!(ran.stdout.contains("Engines that load it: llama.cpp"), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("whole experts go and nothing else, here 25.00 %"),
        "{}",
        ran.stderr
    );
    let checks = scratch.ok("verify small.gguf --source model.gguf").stdout;
    assert!(checks.contains("0.2500 of the experts"), "{checks}");
    let report: Value =
        serde_json::from_slice(&fs::read(scratch.path("small.gguf.report.json")).unwrap()).unwrap();
    assert_eq!(report["layers"][0]["kept"].as_array().unwrap().len(), 6);
    assert!(scratch.path("small.gguf.report.md").is_file());
    // In steps, with the imatrix cut along: the same file.
    let plan =
        "plan model.gguf --observation model.obs --criterion frequency --sparsity 0.25 -o p.json";
    scratch.ok(plan);
    scratch.ok("apply model.gguf s.gguf --plan p.json --imatrix im.gguf --imatrix-out s.im.gguf");
    assert!(
        fs::read(scratch.path("small.gguf")).unwrap() == fs::read(scratch.path("s.gguf")).unwrap()
    );
    // Where the tokens of the experts that went would go now, it does not say.
    let ran = scratch.run("observe s.gguf --imatrix s.im.gguf -o s.obs");
    assert!(ran.code == 1 && ran.stderr.contains("cut along with its model"), "{}", ran.stderr);
}

#[test]
fn what_is_refused() {
    let scratch = scratch();
    scratch.ok("plan model.gguf --sparsity 0.25 -o p.json");
    let check = |arguments: &str, expected: &str| {
        let ran = scratch.run(arguments);
        assert_eq!(ran.code, 1, "{arguments}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{arguments}: {}", ran.stderr);
    };
    check("apply model.gguf out --plan p.json", "must end in .gguf");
    check("observe model.gguf --calibration tokens.jsonl -o o", "--imatrix FILE");
    check(
        "eval model.gguf --task perplexity --data tokens.jsonl",
        "is GGUF, which is cut and not run",
    );
    check(
        "plan model.gguf --sparsity 0.4 --expert-sparsity 0.2 -o q",
        "zeroing weights is for safetensors",
    );
    check("plan model.gguf --criterion reap --sparsity 0.25 -o q", "observation");
    check("apply model.gguf o.gguf --plan p.json --imatrix im.dat --imatrix-out i.gguf", "im.dat");
    check(
        "apply model o --plan p.json --imatrix im.gguf --imatrix-out i.gguf",
        "an imatrix is cut along with a GGUF model",
    );
    fs::write(scratch.path("cut.gguf"), &fs::read(scratch.path("model.gguf")).unwrap()[..4000])
        .unwrap();
    check("inspect cut.gguf", "cut.gguf");
    fs::write(scratch.path("text.gguf"), "no model").unwrap();
    check("inspect text.gguf", "text.gguf");
    for left in ["out", "o.gguf", "i.gguf", "o"] {
        assert!(!scratch.path(left).exists(), "{left}");
    }
}
