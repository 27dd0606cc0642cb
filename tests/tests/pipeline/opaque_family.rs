//! A family that can be pruned without being run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use moeprune::{
    Calibration, Evaluation, Execution, FromRecipe as _, Inputs, Job, OutputPlace, Pipeline,
    Remedy, Resume, Run, Silent, apply,
    checkpoint::{Checkpoint, Family, verify},
    evaluate, plan, prune,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::scratch::{copy, observe, recipe, tokens};

const OPAQUE: &str = include_str!("../../../crates/moeprune-checkpoint/tests/families/opaque.toml");
const BIAS: &str = "block_sparse_moe.e_score_correction_bias";

/// Mixtral with what the family adds: norms on queries, a correction bias that numbers the
/// experts, and a layer behind the last.
fn model(directory: &Path) -> PathBuf {
    let model = copy("parity/mixtral", directory);
    let path = model.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let numbers: Vec<u8> = (0..8).flat_map(|e| (e as f32).to_le_bytes()).collect();
    let ones: Vec<u8> = (0..16).flat_map(|_| 1f32.to_le_bytes()).collect();
    let mut tensors: Vec<(String, TensorView<'_>)> = stored.tensors().into_iter().collect();
    for layer in 0..3 {
        for (name, values) in [(BIAS, &numbers), ("self_attn.q_norm.weight", &ones)] {
            let view = TensorView::new(Dtype::F32, vec![values.len() / 4], values).unwrap();
            tensors.push((format!("model.layers.{layer}.{name}"), view));
        }
    }
    let view = TensorView::new(Dtype::F32, vec![16], &ones).unwrap();
    tensors.push(("model.layers.3.eh_proj.weight".to_owned(), view));
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let extra = "{\n  \"num_nextn_predict_layers\": 1,";
    fs::write(model.join("config.json"), config.replacen('{', extra, 1)).unwrap();
    fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    model
}

fn open(model: &Path, policy: &str) -> Checkpoint {
    let family = Family::from_toml(&OPAQUE.replace("\"keep\"", &format!("\"{policy}\""))).unwrap();
    Checkpoint::open_with(model, Some(family)).unwrap()
}

#[test]
fn it_is_planned_applied_and_verified() {
    check("keep");
    check("drop");
}

fn check(policy: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let source = open(&model(scratch.path()), policy);
    let recipe = recipe(0.25, 0.25);
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let (execution, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&source, &pipeline, &execution, &mut silent);
    let made = plan(&mut job, &recipe, None).unwrap();
    let out = scratch.path().join("out");
    let run = Run::claim(&out, &source, Resume::No).unwrap();
    apply(&mut job, run, &made, Inputs::None).unwrap();

    let pruned = open(&out, policy);
    assert_eq!(pruned.spec().extra.is_some(), policy == "keep");
    let report = verify(&out, &source, Some(&made)).unwrap();
    assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
    for layer in &made.layers {
        let bias = pruned.tensor_by_name(&format!("model.layers.{}.{BIAS}", layer.layer)).unwrap();
        let kept = layer.survivors.iter().map(|survivor| survivor.source as f32);
        assert_eq!(bias.to_f32().unwrap(), kept.collect::<Vec<_>>());
    }
}

#[test]
fn what_would_run_it_says_what_is_missing_before_any_work() {
    let scratch = tempfile::tempdir().unwrap();
    let source = open(&model(scratch.path()), "keep");
    let text = tokens(scratch.path(), 8, 64, 256);
    let (recipe, execution) = (recipe(0.25, 0.25), Execution::cpu());
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let expected = "attention kind `opaque` of layer 0 cannot be run; the model can be inspected, \
                    planned by router distance or a keep-list, applied and verified";
    let check = |error: &dyn std::error::Error| assert_eq!(error.to_string(), expected);
    let check_with_way_out = |error: &dyn std::error::Error| {
        assert_eq!(error.to_string(), format!("{expected}; {}", Remedy::WholeExperts));
    };

    check(&Calibration::read(&text, &source, &recipe).map(drop).unwrap_err());
    let zeroing = crate::scratch::recipe(0.5, 0.25);
    let by_inputs = Pipeline::from_recipe(&zeroing).unwrap();
    let mut quiet = Silent;
    let mut job = Job::new(&source, &by_inputs, &execution, &mut quiet);
    check_with_way_out(&plan(&mut job, &zeroing, None).map(drop).unwrap_err());
    let plain = Checkpoint::open(&crate::scratch::asset("parity/mixtral")).unwrap();
    let calibration = Calibration::read(&text, &plain, &recipe).unwrap();
    check(&observe(&source, &calibration).map(drop).unwrap_err());
    let out = scratch.path().join("out");
    let to = OutputPlace { origin: &source, path: &out, resume: Resume::No };
    let mut silent = Silent;
    let mut job = Job::new(&source, &pipeline, &execution, &mut silent);
    check_with_way_out(&prune(&mut job, to, &text, &recipe).map(drop).unwrap_err());
    assert!(!out.exists());
    let what = Evaluation {
        task: "perplexity",
        data: &text,
        limit: None,
        fewshot: None,
        fewshot_data: None,
        batch: 1,
        sequence_len: None,
    };
    check(&evaluate(&source, &what, &execution, &mut Silent).map(drop).unwrap_err());
}
