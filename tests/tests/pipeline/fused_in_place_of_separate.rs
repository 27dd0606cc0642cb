//! Every family of separate experts also opens files that hold them fused, as transformers 5 keeps them.

use std::{collections::BTreeMap, fs, path::Path};

use moeprune::{
    Execution, FromRecipe as _, Inputs, Job, Pipeline, Resume, Run, Silent, apply,
    checkpoint::{Checkpoint, verify},
    core::TensorSource as _,
    plan,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::scratch::{asset, recipe};

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The matrices of an expert in their order in fused tensors, of either naming.
const FUSED: [(&str, &str); 6] = [
    ("gate_proj", "gate_up_proj"),
    ("w1", "gate_up_proj"),
    ("up_proj", "gate_up_proj"),
    ("w3", "gate_up_proj"),
    ("down_proj", "down_proj"),
    ("w2", "down_proj"),
];

/// Joins the experts of each layer, `renamed` (from, to) what their names have before that.
fn fuse(separate: &SafeTensors<'_>, renamed: (&str, &str)) -> Tensors {
    let mut tensors = Tensors::new();
    let mut experts: BTreeMap<(String, usize, usize), (&str, TensorView<'_>)> = BTreeMap::new();
    for (name, view) in separate.tensors() {
        let matrix = name.split_once(".experts.").and_then(|(layer, rest)| {
            let (expert, matrix) = rest.split_once('.')?;
            let place = FUSED.iter().position(|(from, _)| matrix.starts_with(from))?;
            Some(((format!("{layer}.experts"), expert.parse().ok()?, place), FUSED[place].1))
        });
        match matrix {
            Some((key, fused)) => drop(experts.insert(key, (fused, view))),
            None => {
                let whole = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
                tensors.insert(name.replace(renamed.0, renamed.1), whole);
            }
        }
    }
    // A matrix of one expert after that of the one before it; of gate and up first the rows of gate.
    for ((layer, expert, _), (fused, view)) in &experts {
        let name = format!("{layer}.{fused}").replace(renamed.0, renamed.1);
        let empty = || (view.dtype(), vec![0, 0, view.shape()[1]], Vec::new());
        let (_, shape, bytes) = tensors.entry(name).or_insert_with(empty);
        shape[0] = expert + 1;
        if *expert == 0 {
            shape[1] += view.shape()[0];
        }
        bytes.extend(view.data());
    }
    tensors
}

/// Every part of the two, bit for bit.
fn check_same(a: &Checkpoint, b: &Checkpoint, model: &str) {
    assert_eq!(a.spec(), b.spec(), "{model}");
    for part in a.spec().parts() {
        let (ours, theirs) = (a.tensor(part.id).unwrap(), b.tensor(part.id).unwrap());
        assert!(ours == theirs, "{model}: {} differs", part.id);
    }
}

/// Without a share of its experts.
fn cut(source: &Checkpoint, out: &Path, share: f64) -> Checkpoint {
    let recipe = recipe(share, share);
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(source, &pipeline, &cpu, &mut silent);
    let plan = plan(&mut job, &recipe, None).unwrap();
    apply(&mut job, Run::claim(out, source, Resume::No).unwrap(), &plan, Inputs::None).unwrap();
    let report = verify(out, source, Some(&plan)).unwrap();
    assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
    Checkpoint::open(out).unwrap()
}

fn check(model: &str, share: f64, renamed: (&str, &str)) {
    let (from, scratch) = (asset(&format!("parity/{model}")), tempfile::tempdir().unwrap());
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir(at("model")).unwrap();
    fs::copy(from.join("config.json"), at("model/config.json")).unwrap();
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let tensors = fuse(&SafeTensors::deserialize(&bytes).unwrap(), renamed);
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    fs::write(at("model/model.safetensors"), file).unwrap();

    let separate = Checkpoint::open(&from).unwrap();
    let fused = Checkpoint::open(&at("model")).unwrap_or_else(|error| panic!("{error}"));
    check_same(&separate, &fused, model);
    let expected = cut(&separate, &at("separate"), share);
    check_same(&expected, &cut(&fused, &at("fused"), share), model);
}

#[test]
fn opens_and_is_cut_as_separate_experts_are() {
    let as_stored = ("", "");
    for model in ["qwen3_moe_mixed", "qwen2_moe_mixed", "olmoe_clip", "dots1", "glm4_moe_lite"] {
        check(model, 0.25, as_stored);
    }
    for model in ["moonlight", "glm_moe_dsa", "lfm2_moe", "hunyuan_v1_moe", "kimi_linear"] {
        check(model, 0.25, as_stored);
    }
    for model in ["deepseek_v2", "deepseek_v3", "deepseek_v32"] {
        check(model, 0.34, as_stored);
    }
    check("ernie4_5_moe", 0.25, ("mlp.moe_statics", "mlp.gate.moe_statics"));
}

#[test]
fn under_either_name_of_the_block() {
    for model in ["mixtral", "minimax_m2", "phimoe"] {
        check(model, 0.25, ("", ""));
        check(model, 0.25, ("block_sparse_moe", "mlp"));
    }
    check("phimoe", 0.25, ("block_sparse_moe.gate", "mlp.router"));
}
