//! One plan and one observation for a model in codes and in numbers.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use moeprune::{
    Calibration, Execution, FromRecipe as _, Inputs, Job, Pipeline, Recipe, Report, Resume, Run,
    apply,
    checkpoint::{Checkpoint, verify},
    core::{
        Dtype, LayerSpec, LinearId, MlpProjection, Observation, Plan, Sparsity, TensorBytes,
        TensorId, TensorSource as _,
    },
    plan,
};
use safetensors::tensor::TensorView;

use crate::masks::{Notes, tokens};

/// The same model in numbers: BF16 experts, everything that is in no codes as it was.
fn twin(source: &Checkpoint, directory: &Path) -> PathBuf {
    let model = directory.join("twin");
    fs::create_dir(&model).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(source.config_text()).unwrap();
    config.as_object_mut().unwrap().remove("quantization_config").unwrap();
    fs::write(model.join("config.json"), config.to_string()).unwrap();
    let mut tensors = BTreeMap::new();
    for stored in source.tensors() {
        let module = stored.part.and_then(|part| Some((part, source.stored_part(part)?)));
        match module {
            Some((part, module)) if module.main.name == stored.name => {
                let weight = source.weight(part).unwrap();
                let numbers =
                    TensorBytes::encode(Dtype::BF16, weight.shape(), &weight.to_f32()).unwrap();
                tensors.insert(format!("{}.weight", module.module), numbers);
            }
            Some(_) => {}
            None if stored.name.ends_with("_blocks") || stored.name.ends_with("_scales") => {}
            None => {
                let tensor = source.tensor_by_name(&stored.name).unwrap();
                tensors.insert(stored.name.clone(), tensor);
            }
        }
    }
    if source.tensors().any(|stored| stored.name.ends_with("_blocks")) {
        tensors.extend(fused(source));
    }
    write(&model.join("model.safetensors"), &tensors);
    model
}

fn write(path: &Path, tensors: &BTreeMap<String, TensorBytes<'_>>) {
    let views = tensors.iter().map(|(name, tensor)| {
        let dtype = match tensor.dtype() {
            Dtype::BF16 => safetensors::Dtype::BF16,
            Dtype::F32 => safetensors::Dtype::F32,
            other => panic!("{name} is {other}"),
        };
        (name, TensorView::new(dtype, tensor.shape().to_vec(), tensor.bytes()).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The experts of gpt-oss as its own code stores them: `[experts, in, out]`, gate and up in turn.
fn fused(source: &Checkpoint) -> BTreeMap<String, TensorBytes<'static>> {
    let (spec, mut tensors) = (source.spec(), BTreeMap::new());
    for (layer, moe) in spec.layers.iter().enumerate().filter_map(|(l, of)| Some((l, of.moe()?))) {
        let (hidden, inner) = (spec.hidden, moe.expert.inner);
        let (mut gate_up, mut down) = (Vec::new(), Vec::new());
        for expert in 0..moe.experts {
            let values = |projection| {
                let id = TensorId::linear(layer, LinearId::Expert(expert, projection));
                source.weight(id).unwrap().to_f32()
            };
            let [gate, up] = [MlpProjection::Gate, MlpProjection::Up].map(values);
            for column in 0..hidden {
                let rows = (0..inner).map(|row| row * hidden + column);
                gate_up.extend(rows.flat_map(|at| [gate[at], up[at]]));
            }
            let values = values(MlpProjection::Down);
            for column in 0..inner {
                down.extend((0..hidden).map(|row| values[row * inner + column]));
            }
        }
        let experts = moe.experts;
        let mut insert = |name: &str, shape: [usize; 3], values: &[f32]| {
            let tensor = TensorBytes::encode(Dtype::BF16, shape, values).unwrap();
            tensors.insert(format!("model.layers.{layer}.mlp.experts.{name}"), tensor);
        };
        insert("gate_up_proj", [experts, hidden, 2 * inner], &gate_up);
        insert("down_proj", [experts, inner, hidden], &down);
    }
    tensors
}

/// A fifth of the experts, and weights up to 40 % of the Linears.
fn recipe() -> Recipe {
    let mut recipe = Recipe::arctic();
    recipe.sparsity = Sparsity::new(0.4).unwrap();
    recipe.experts.sparsity = Sparsity::new(0.2).unwrap();
    recipe.weights.allocation = "uniform".into();
    (recipe.calibration.samples, recipe.calibration.sequence_len) = (4, 16);
    recipe
}

/// Runs `work` with a job on a model, and returns what was noted too.
fn with_job<R>(model: &Checkpoint, work: impl FnOnce(&mut Job<'_>) -> R) -> (R, Vec<String>) {
    let pipeline = Pipeline::from_recipe(&recipe()).unwrap();
    let (cpu, mut notes) = (Execution::cpu(), Notes::default());
    let done = work(&mut Job::new(model, &pipeline, &cpu, &mut notes));
    (done, notes.0)
}

fn observed(model: &Checkpoint, text: &Path) -> Observation {
    let calibration = Calibration::read(text, model, &recipe()).unwrap();
    with_job(model, |job| job.observe(&calibration).unwrap()).0
}

fn planned(model: &Checkpoint, observation: &Observation) -> (Plan, Vec<String>) {
    with_job(model, |job| plan(job, &recipe(), Some(observation)).unwrap())
}

/// Applies a plan that was made on `one` to `other`, with the observation of `one`.
fn applied(
    other: &Checkpoint,
    plan: &Plan,
    seen: &Observation,
    out: &Path,
) -> (Report, Vec<String>) {
    with_job(other, |job| {
        let run = Run::claim(out, other, Resume::No).unwrap();
        apply(job, run, plan, Inputs::Observation(seen)).unwrap()
    })
}

/// What is made on `one` fits `other`, and it is said so.
fn check(name: &str, one: &Checkpoint, other: &Checkpoint, directory: &Path, said: &str) {
    let seen = observed(one, &tokens(directory));
    let (own, notes) = planned(one, &seen);
    assert!(notes.iter().all(|note| !note.contains(said)), "{name}: {notes:?}");
    let (of_other, notes) = planned(other, &seen);
    assert_eq!(own.layers, of_other.layers, "{name}");
    let notes_of = |notes: &[String], what: &str| {
        notes.iter().filter(|note| note.contains(what) && note.contains(said)).count()
    };
    assert_eq!(notes_of(&notes, "the observation was made from"), 1, "{name}: {notes:?}");
    let out = directory.join("out");
    let (report, notes) = applied(other, &own, &seen, &out);
    assert_eq!(notes_of(&notes, "the plan was made from"), 1, "{name}: {notes:?}");
    let reported = report.model.stored_otherwise.unwrap_or_default();
    assert!(reported.contains(said), "{name}: {reported}");
    assert!(reported.contains("here, experts are stored as"), "{name}: {reported}");
    let markdown = fs::read_to_string(out.join("moeprune-report.md")).unwrap();
    assert!(markdown.contains(said), "{name}: {markdown}");
    let checked = verify(&out, other, Some(&own)).unwrap();
    assert!(checked.passed(), "{name}: {:?}", checked.failures().collect::<Vec<_>>());
}

fn fixture(name: &str) -> Checkpoint {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/quantised");
    Checkpoint::open(&root.join(name)).unwrap()
}

/// Models that differ in how they are stored alone.
const STORED: &str = "the same model, stored as ";

#[test]
fn in_codes_and_in_numbers() {
    for name in ["fp8_block_qwen3_moe", "int4_pack_deepseek_v3", "gptq_mixtral", "mxfp4_gpt_oss"] {
        let scratch = tempfile::tempdir().unwrap();
        let codes = fixture(name);
        let numbers = Checkpoint::open(&twin(&codes, scratch.path())).unwrap();
        assert!(numbers.spec().layers.iter().any(|layer: &LayerSpec| layer.moe().is_some()));
        let there = scratch.path().join("there");
        fs::create_dir(&there).unwrap();
        check(name, &codes, &numbers, &there, STORED);
        let back = scratch.path().join("back");
        fs::create_dir(&back).unwrap();
        check(name, &numbers, &codes, &back, STORED);
    }
}

/// The twin with routers in f32, of which each value was changed.
fn with_routers(model: &Path, out: PathBuf, change: fn(f32) -> f32) -> Checkpoint {
    let source = Checkpoint::open(model).unwrap();
    let mut tensors = BTreeMap::new();
    for stored in source.tensors() {
        let mut tensor = source.tensor_by_name(&stored.name).unwrap();
        if stored.name.ends_with("mlp.gate.weight") {
            let values: Vec<f32> = tensor.to_f32().unwrap().into_iter().map(change).collect();
            tensor = TensorBytes::encode(Dtype::F32, tensor.shape(), &values).unwrap();
        }
        tensors.insert(stored.name.clone(), tensor);
    }
    fs::create_dir(&out).unwrap();
    fs::copy(model.join("config.json"), out.join("config.json")).unwrap();
    write(&out.join("model.safetensors"), &tensors);
    Checkpoint::open(&out).unwrap()
}

#[test]
fn routers_that_were_rounded_are_named() {
    let (scratch, codes) = (tempfile::tempdir().unwrap(), fixture("fp8_block_qwen3_moe"));
    let model = twin(&codes, scratch.path());
    let fine =
        with_routers(&model, scratch.path().join("fine"), |v| f32::from_bits(v.to_bits() | 0x1234));
    let said = "a model whose routers differ from this one's by rounding to bf16 only";
    for (to, one, other) in [("there", &fine, &codes), ("back", &codes, &fine)] {
        let directory = scratch.path().join(to);
        fs::create_dir(&directory).unwrap();
        check(to, one, other, &directory, said);
    }
}

#[test]
fn other_routers_are_another_model() {
    let (scratch, codes) = (tempfile::tempdir().unwrap(), fixture("fp8_block_qwen3_moe"));
    let model = twin(&codes, scratch.path());
    let other = with_routers(&model, scratch.path().join("other"), |v| 1.01 * v);
    let seen = observed(&codes, &tokens(scratch.path()));
    let refused = with_job(&other, |job| plan(job, &recipe(), Some(&seen)).unwrap_err()).0;
    assert!(refused.to_string().contains("is of another model"), "{refused}");
    assert!(refused.to_string().contains("how many experts a token takes differ"), "{refused}");
    let (own, _) = planned(&codes, &seen);
    let run = Run::claim(&scratch.path().join("out"), &other, Resume::No).unwrap();
    let refused = with_job(&other, |job| apply(job, run, &own, Inputs::None).unwrap_err()).0;
    assert!(refused.to_string().contains("is for another model"), "{refused}");
}
