//! Models that are written in parts and joined: the bytes that one run writes.
#![cfg(unix)]

mod killed;
mod refused;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::command::{CALIBRATION, Scratch};

/// Every file below `path`. Of reports, all bytes but those of seconds and memory.
fn bytes_of(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    if path.is_file() {
        let name = path.file_name().unwrap().to_string_lossy();
        let bytes = fs::read(path).unwrap();
        let bytes = match name.contains("report.") {
            true => without_times(&String::from_utf8(bytes).unwrap()).into_bytes(),
            false => bytes,
        };
        return BTreeMap::from([(PathBuf::new(), bytes)]);
    }
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    let below = |entry: fs::DirEntry| {
        let all = bytes_of(&entry.path()).into_iter();
        all.map(move |(name, bytes)| (Path::new(&entry.file_name()).join(name), bytes))
    };
    entries.flat_map(below).collect()
}

/// A report without the numbers that no two runs have in common: in both forms there are as many lines.
fn without_times(report: &str) -> String {
    let mut in_steps = false;
    let line = |line: &str| {
        in_steps = line == "## Steps" || in_steps && !line.starts_with("## ");
        let name = line.trim_start().split(':').next().unwrap_or_default();
        match name {
            "\"seconds\"" | "\"peak_rss_bytes\"" => name.to_owned(),
            _ if in_steps => line.split('|').take(2).collect(),
            _ => line.to_owned(),
        }
    };
    report.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Makes an observation `obs`, and a plan `plan.json` that zeroes weights by it.
fn by_stored_statistics(model: &str) -> Scratch {
    let scratch = Scratch::new(model);
    scratch.ok(&format!("observe model {CALIBRATION} -o obs"));
    scratch.ok("plan model --observation obs --sparsity 0.5 --expert-sparsity 0.25 -o plan.json");
    scratch
}

/// Makes a plan by which whole experts go, `plan.json`.
fn whole_experts(model: &str) -> Scratch {
    let scratch = Scratch::new(model);
    scratch.ok("plan model --sparsity 0.25 --expert-sparsity 0.25 -o plan.json");
    scratch
}

const STORED: &str = "apply model OUT --plan plan.json --observation obs";
const EXPERTS: &str = "apply model OUT --plan plan.json";

/// The parts of `of`, from 1, in an order that depends on `seed`.
fn shuffled(of: usize, seed: u64) -> Vec<usize> {
    let mut parts: Vec<usize> = (1..=of).collect();
    let mut random = seed;
    for last in (1..of).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        parts.swap(last, (random >> 33) as usize % (last + 1));
    }
    parts
}

/// Writes all parts in any order and joins them in any order, for each number of parts; `apply` has `OUT` where the
/// output goes.
fn check(scratch: &Scratch, apply: &str, numbers: &[usize]) {
    let model = apply.split(' ').nth(1).unwrap();
    let ending = if model.ends_with(".gguf") { ".gguf" } else { "" };
    let whole = format!("whole{ending}");
    scratch.ok(&apply.replace("OUT", &whole));
    let reports = |name: &str| -> Vec<PathBuf> {
        let beside =
            [".report.json", ".report.md"].map(|end| scratch.path(&format!("{name}{end}")));
        beside.into_iter().filter(|path| path.exists()).collect()
    };
    for &of in numbers {
        for part in shuffled(of, of as u64) {
            scratch.ok(&format!(
                "{} --part {part}/{of}",
                apply.replace("OUT", &format!("part-{part}"))
            ));
        }
        let parts = shuffled(of, 77).iter().map(|part| format!("part-{part}")).collect::<Vec<_>>();
        let out = format!("out{ending}");
        scratch.ok(&format!("join {model} {} -o {out}", parts.join(" ")));
        let (is, expected) = (bytes_of(&scratch.path(&out)), bytes_of(&scratch.path(&whole)));
        assert_eq!(is.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        assert!(is == expected, "{of} parts");
        assert_eq!(reports(&out).len(), reports(&whole).len());
        for (is, expected) in reports(&out).iter().zip(reports(&whole)) {
            assert!(bytes_of(is) == bytes_of(&expected), "{}", is.display());
            fs::remove_file(is).unwrap();
        }
        let left = scratch.names().into_iter().filter(|name| name.contains("part-"));
        assert_eq!(left.collect::<Vec<_>>(), [""; 0], "left behind");
        remove(&scratch.path(&out));
    }
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

const NUMBERS: [usize; 6] = [1, 2, 3, 4, 7, 16];

#[test]
fn weights_by_stored_statistics() {
    check(&by_stored_statistics("mixtral_sharded"), STORED, &NUMBERS);
    check(&by_stored_statistics("arctic"), STORED, &[2, 3]);
    check(&by_stored_statistics("mixtral_fused"), STORED, &[3]);
}

#[test]
fn whole_experts_of_any_layout() {
    check(&whole_experts("mixtral_sharded"), EXPERTS, &NUMBERS);
    // Layers behind the decoder's, in a file of their own, and experts in one tensor.
    check(&whole_experts("glm4_moe"), EXPERTS, &[2, 5]);
    check(&whole_experts("qwen3_next"), EXPERTS, &[3]);
    check(&whole_experts("gpt_oss"), EXPERTS, &[2]);
}

#[test]
fn what_is_stored_in_codes() {
    for model in ["gptq_mixtral", "fp8_block_qwen3_moe", "mxfp4_gpt_oss"] {
        check(&whole_experts(&format!("../quantised/{model}")), EXPERTS, &[2, 3]);
    }
    let scratch = Scratch::new("../quantised/gptq_mixtral");
    scratch.ok("plan model --scorer magnitude --sparsity 0.5 --expert-sparsity 0.25 -o plan.json");
    check(&scratch, EXPERTS, &[2]);
}

#[test]
fn experts_that_are_averaged() {
    let scratch = Scratch::new("mixtral_sharded");
    scratch.ok(&format!("observe model {CALIBRATION} -o obs"));
    scratch.ok(
        "plan model --observation obs --sparsity 0.5 --expert-sparsity 0.5 --survivor weighted-average -o plan.json",
    );
    check(&scratch, STORED, &[2, 3]);
}

/// What has holes is not taken for weights, also where a file says itself what the model is.
#[test]
fn a_part_is_no_model() {
    let scratch = whole_experts("mixtral");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/gguf/mix32-MX.gguf");
    fs::copy(file, scratch.path("model.gguf")).unwrap();
    scratch.ok("plan model.gguf --sparsity 0.25 -o gguf.json");
    for (model, plan) in [("model", "plan.json"), ("model.gguf", "gguf.json")] {
        for part in ["1", "2"] {
            scratch.ok(&format!("apply {model} part --plan {plan} --part {part}/2"));
            let names: Vec<_> = bytes_of(&scratch.path("part")).into_keys().collect();
            assert_eq!(names.len(), 2, "{names:?}");
            assert!(names[0].extension().is_some_and(|ending| ending == "part"), "{names:?}");
            let ran = scratch.run("inspect part");
            assert_eq!(ran.code, 1, "{}", ran.stdout);
            remove(&scratch.path("part"));
        }
    }
}

/// One file, which is copied together from the parts.
#[test]
fn gguf() {
    let scratch = Scratch::new("mixtral");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/gguf/mix32-MX.gguf");
    fs::copy(file, scratch.path("model.gguf")).unwrap();
    scratch.ok("plan model.gguf --sparsity 0.25 -o plan.json");
    check(&scratch, "apply model.gguf OUT --plan plan.json", &NUMBERS[1..5]);
}
