//! Quantised models: whole experts go, by router distance or a list, and everything else says what it
//! would need.

use std::{collections::BTreeMap, fs, path::Path};

use moeprune::{
    Calibration, Error, Evaluation, Execution, FromRecipe as _, Inputs, Job, OutputPlace, Pipeline,
    Recipe, Registry, Remedy, Resume, Run, Silent, apply,
    checkpoint::{Checkpoint, verify},
    core::Plan,
    evaluate, plan, prune_listed, read_keep_list,
    recipe::StageChoice,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::scratch::{asset, observe, recipe, tokens};

const FIXTURES: [&str; 15] = [
    "awq_qwen3_moe",
    "fp8_block_deepseek_v3",
    "fp8_block_e8m0_qwen3_moe",
    "fp8_block_qwen3_moe",
    "fp8_channel_glm4_moe",
    "fp8_tensor_mixtral",
    "gptq_act_qwen3_moe",
    "gptq_mixtral",
    "gptq_v2_qwen3_moe",
    "int4_pack_asym_qwen3_moe",
    "int4_pack_deepseek_v3",
    "mxfp4_ct_qwen3_moe",
    "mxfp4_gpt_oss",
    "nvfp4_ct_qwen3_moe",
    "nvfp4_modelopt_qwen3_moe",
];

fn model(name: &str) -> Checkpoint {
    Checkpoint::open(&asset("quantised").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn made(source: &Checkpoint, recipe: &Recipe) -> Result<Plan, Error> {
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    plan(&mut Job::new(source, &pipeline, &Execution::cpu(), &mut Silent), recipe, None)
}

#[track_caller]
fn check_verified(out: &Path, source: &Checkpoint) {
    let verified = verify(out, source, None).unwrap();
    assert!(verified.passed(), "{:?}", verified.failures().collect::<Vec<_>>());
}

#[test]
fn router_distance_decides() {
    for name in FIXTURES {
        let (source, scratch) = (model(name), tempfile::tempdir().unwrap());
        let recipe = recipe(0.2, 0.2);
        let plan = made(&source, &recipe).unwrap_or_else(|e| panic!("{name}: {e}"));
        let out = scratch.path().join("out");
        let pipeline = Pipeline::from_recipe(&recipe).unwrap();
        let run = Run::claim(&out, &source, Resume::No).unwrap();
        let (cpu, mut silent) = (Execution::cpu(), Silent);
        let mut job = Job::new(&source, &pipeline, &cpu, &mut silent);
        apply(&mut job, run, &plan, Inputs::None).unwrap_or_else(|e| panic!("{name}: {e}"));
        check_verified(&out, &source);
        let experts = |of: &Checkpoint| -> usize {
            of.spec().layers.iter().filter_map(|layer| layer.moe()).map(|moe| moe.experts).sum()
        };
        assert!(experts(&Checkpoint::open(&out).unwrap()) < experts(&source), "{name}");
    }
}

#[test]
fn a_list_decides_and_every_byte_is_as_expected() {
    for name in FIXTURES {
        let (source, scratch) = (model(name), tempfile::tempdir().unwrap());
        let expected = fs::read_to_string(asset("quantised").join(name).join("expect.json"));
        let expected: Value = serde_json::from_str(&expected.unwrap()).unwrap();
        let list = scratch.path().join("keep.json");
        fs::write(&list, expected["kept"].to_string()).unwrap();
        let list = read_keep_list(&list, source.spec()).unwrap();
        let mut recipe = recipe(0.5, 0.5);
        let pipeline =
            Registry::built_in().keeping(list, source.spec(), &mut recipe, None).unwrap();
        let (cpu, mut silent) = (Execution::cpu(), Silent);
        let mut job = Job::new(&source, &pipeline, &cpu, &mut silent);
        let path = &scratch.path().join("out");
        let to = OutputPlace { origin: &source, path, resume: Resume::No };
        prune_listed(&mut job, to, &recipe).unwrap_or_else(|e| panic!("{name}: {e}"));
        check_verified(path, &source);
        let pruned = Checkpoint::open(path).unwrap();
        let tensors: BTreeMap<String, (String, String, String, Vec<usize>)> =
            serde_json::from_value(expected["pruned_tensors"].clone()).unwrap();
        assert!(pruned.tensors().count() == tensors.len(), "{name}");
        for (tensor, (_, hash, dtype, shape)) in tensors {
            let got = pruned.tensor_by_name(&tensor).unwrap();
            let sha256 = Sha256::digest(got.bytes());
            let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!((sha256, got.dtype().to_string()), (hash, dtype), "{name}: {tensor}");
            assert_eq!(got.shape(), shape, "{name}: {tensor}");
        }
    }
}

#[test]
fn what_would_run_or_decode_them_says_what_is_missing() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, execution) = (model("gptq_v2_qwen3_moe"), Execution::cpu());
    let expected = "stored as GPTQ INT4, which is not decoded yet, so that the model cannot be run";
    let check = |error: &dyn std::error::Error, more: &str| {
        let message = error.to_string();
        assert!(message.contains(expected) && message.contains(more), "{message}");
    };
    let text = tokens(scratch.path(), 8, 64, 128);
    let some = recipe(0.25, 0.25);
    check(&Calibration::read(&text, &source, &some).map(drop).unwrap_err(), "keep-list");
    let what = Evaluation {
        task: "perplexity",
        data: &text,
        limit: None,
        fewshot: None,
        fewshot_data: None,
        batch: 1,
        sequence_len: None,
    };
    check(&evaluate(&source, &what, &execution, &mut Silent).map(drop).unwrap_err(), "");
    let decoded = Checkpoint::open(&asset("parity/qwen3_moe_mixed")).unwrap();
    let calibration = Calibration::read(&text, &decoded, &some).unwrap();
    check(&observe(&source, &calibration).map(drop).unwrap_err(), "");
    let mut zeroing = recipe(0.5, 0.25);
    zeroing.weights.scorer = StageChoice::new("magnitude");
    let whole = Remedy::WholeExperts.to_string();
    check(&made(&source, &zeroing).map(drop).unwrap_err(), &whole);
    let mut merging = recipe(0.5, 0.5);
    merging.experts.survivor = StageChoice::new("average");
    let plan = made(&source, &merging).unwrap();
    let run = Run::claim(&scratch.path().join("out"), &source, Resume::No).unwrap();
    let pipeline = Pipeline::from_recipe(&merging).unwrap();
    let mut silent = Silent;
    let mut job = Job::new(&source, &pipeline, &execution, &mut silent);
    let message = apply(&mut job, run, &plan, Inputs::None).map(drop).unwrap_err().to_string();
    assert!(message.contains("cannot be averaged; select one of each cluster"), "{message}");
}
