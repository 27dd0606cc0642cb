//! Experts in a form that is not decoded: they go or stay, byte for byte.

use std::{fs, path::Path, sync::Arc};

use moeprune::{
    Calibration, Error, Evaluation, Execution, FromRecipe as _, Inputs, Job, OutputPlace, Pipeline,
    Recipe, Registry, Remedy, Resume, Run, Silent, apply,
    checkpoint::{Checkpoint, Family, verify},
    core::{ParameterCounts, Plan},
    evaluate, plan, prune, prune_listed, read_keep_list,
    recipe::StageChoice,
};
use moeprune_files::{Access, LocalFiles, MemoryFiles};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::scratch::{asset, copy, observe, recipe, tokens};

const NAME: &str = "parity/gpt_oss_mxfp4";

/// Tensors of a file and their names.
type Tensors<'a> = Vec<(String, TensorView<'a>)>;

/// Two layers of six experts, two of which are selected for each token. Names of tensors with codes are ones
/// that say nothing of their layout.
fn model() -> Checkpoint {
    let scratch = tempfile::tempdir().unwrap();
    let model = copy(NAME, scratch.path());
    let path = model.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in 8..header - 7 {
        match &bytes[at..at + 7] {
            b"_blocks" => bytes[at..at + 7].copy_from_slice(b"_pieces"),
            b"_scales" => bytes[at..at + 7].copy_from_slice(b"_factor"),
            _ => {}
        }
    }
    fs::write(&path, bytes).unwrap();
    let files = MemoryFiles::copy_of(&LocalFiles::open(&model, Access::Read).unwrap()).unwrap();
    Checkpoint::open_files(Arc::new(files), None).unwrap()
}

fn made(source: &Checkpoint, recipe: &Recipe) -> Result<Plan, Error> {
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    plan(&mut Job::new(source, &pipeline, &Execution::cpu(), &mut Silent), recipe, None)
}

/// The model after a plan; it is verified.
fn applied(
    source: &Checkpoint,
    recipe: &Recipe,
    plan: &Plan,
    out: &Path,
) -> Result<Checkpoint, Error> {
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    let run = Run::claim(out, source, Resume::No)?;
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(source, &pipeline, &cpu, &mut silent);
    let report = apply(&mut job, run, plan, Inputs::None)?;
    let verified = verify(out, source, None).unwrap();
    assert!(verified.passed(), "{:?}", verified.failures().collect::<Vec<_>>());
    let counted = verified.sparsity.unwrap().experts;
    assert!((counted - recipe.experts.sparsity.value()).abs() < 0.01, "{counted}");
    assert!((report.sparsity.achieved.linears - verified.sparsity.unwrap().linears).abs() < 1e-9);
    Ok(Checkpoint::open_with(out, Some(source.family().clone())).unwrap())
}

#[test]
fn router_distance_decides() {
    let check = |share: f64, kept: usize| {
        let scratch = tempfile::tempdir().unwrap();
        let (source, recipe) = (model(), recipe(share, share));
        let plan = made(&source, &recipe).unwrap();
        let pruned = applied(&source, &recipe, &plan, &scratch.path().join("out")).unwrap();
        for layer in &pruned.spec().layers {
            assert_eq!(layer.moe().unwrap().experts, kept);
        }
        let name = "model.layers.1.mlp.experts.down_proj_factor";
        let (from, to) =
            (source.tensor_by_name(name).unwrap(), pruned.tensor_by_name(name).unwrap());
        assert_eq!((to.shape(), to.bytes().len()), (&[kept, 64, 1][..], 64 * kept));
        let rows: Vec<&[u8]> = from.bytes().chunks(64).collect();
        assert!(to.bytes().chunks(64).all(|row| rows.contains(&row)));
    };
    check(1.0 / 6.0, 5);
    // A cluster of three or more: rows of the router say which of them stays.
    check(0.5, 3);
}

#[test]
fn a_list_decides() {
    let scratch = tempfile::tempdir().unwrap();
    let list = scratch.path().join("keep.json");
    fs::write(&list, "[0, 2, 5]").unwrap();
    let source = model();
    let list = read_keep_list(&list, source.spec()).unwrap();
    let mut recipe = recipe(0.5, 0.5);
    let pipeline = Registry::built_in().keeping(list, source.spec(), &mut recipe, None).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&source, &pipeline, &cpu, &mut silent);
    let path = &scratch.path().join("out");
    let to = OutputPlace { origin: &source, path, resume: Resume::No };
    prune_listed(&mut job, to, &recipe).unwrap();
    let verified = verify(path, &source, None).unwrap();
    assert!(verified.passed(), "{:?}", verified.failures().collect::<Vec<_>>());
}

#[test]
fn they_count_as_the_matrices_that_they_stand_for() {
    let source = model();
    let counts = ParameterCounts::of(source.spec());
    assert_eq!(counts.experts, 2 * 6 * 3 * 64 * 32);
    assert_eq!(counts, source.summary().parameters);
}

#[test]
fn what_would_run_or_decode_them_says_what_is_missing() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, execution) = (model(), Execution::cpu());
    let expected = "experts of layer 0 are stored as U8, which is not decoded yet, so that the model \
                    cannot be run; start from its bf16 form to run it, or cut whole experts of this \
                    one, by router distance or a keep-list";
    let check = |error: &dyn std::error::Error| assert_eq!(error.to_string(), expected);
    let check_with_way_out = |error: &dyn std::error::Error| {
        assert_eq!(error.to_string(), format!("{expected}; {}", Remedy::WholeExperts));
    };

    let text = tokens(scratch.path(), 8, 64, 128);
    let some = recipe(0.25, 0.25);
    check(&Calibration::read(&text, &source, &some).map(drop).unwrap_err());
    let decoded = Checkpoint::open(&asset("parity/gpt_oss")).unwrap();
    let calibration = Calibration::read(&text, &decoded, &some).unwrap();
    check(&observe(&source, &calibration).map(drop).unwrap_err());
    let out = scratch.path().join("out");
    let pipeline = Pipeline::from_recipe(&some).unwrap();
    let mut silent = Silent;
    let mut job = Job::new(&source, &pipeline, &execution, &mut silent);
    let to = OutputPlace { origin: &source, path: &out, resume: Resume::No };
    check_with_way_out(&prune(&mut job, to, &text, &some).map(drop).unwrap_err());
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
    // Nor are weights zeroed, by inputs or without.
    let mut zeroing = recipe(0.5, 0.25);
    check_with_way_out(&made(&source, &zeroing).map(drop).unwrap_err());
    zeroing.weights.scorer = StageChoice::new("magnitude");
    check_with_way_out(&made(&source, &zeroing).map(drop).unwrap_err());
    assert!(!out.exists());
}

#[test]
fn they_are_not_averaged() {
    let scratch = tempfile::tempdir().unwrap();
    let source = model();
    let mut merging = recipe(0.5, 0.5);
    merging.experts.survivor = StageChoice::new("average");
    let error = made(&source, &merging)
        .and_then(|plan| applied(&source, &merging, &plan, &scratch.path().join("out")))
        .map(drop)
        .unwrap_err();
    let message = error.to_string();
    assert!(message.contains("cannot be averaged; select one of each cluster"), "{message}");
}

#[test]
fn a_config_that_says_so_of_numbers_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let model = copy("parity/gpt_oss", scratch.path());
    let path = model.join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    let with = "{\n  \"quantization_config\": {\"quant_method\": \"mxfp4\"},";
    fs::write(&path, config.replacen('{', with, 1)).unwrap();
    let message = Checkpoint::open(&model).map(drop).unwrap_err().to_string();
    assert!(message.contains("no tensor is in codes"), "{message}");
}

#[test]
fn what_is_missing_or_misshapen_is_named() {
    let check = |change: &dyn Fn(&mut Tensors<'_>), expected: &[&str]| {
        let scratch = tempfile::tempdir().unwrap();
        let model = copy(NAME, scratch.path());
        let path = model.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let stored = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: Tensors<'_> = stored.tensors().into_iter().collect();
        change(&mut tensors);
        fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        let message = Checkpoint::open(&model).map(drop).unwrap_err().to_string();
        assert!(expected.iter().all(|part| message.contains(part)), "{message}");
    };
    const SCALES: &str = "model.layers.1.mlp.experts.down_proj_scales";
    check(&|tensors| tensors.retain(|(name, _)| name != SCALES), &[SCALES, "is missing"]);
    static OF_FIVE: [u8; 5 * 64] = [0; 5 * 64];
    let fewer = |tensors: &mut Tensors<'_>| {
        tensors.retain(|(name, _)| name != SCALES);
        let view = TensorView::new(Dtype::U8, vec![5, 64, 1], &OF_FIVE);
        tensors.push((SCALES.to_owned(), view.unwrap()));
    };
    check(&fewer, &[SCALES, "[5, 64, 1]", "asks for [6, 64, 1]"]);
}

/// The same model with a tensor for each expert.
#[test]
fn a_tensor_for_each_expert() {
    let scratch = tempfile::tempdir().unwrap();
    let model = copy(NAME, scratch.path());
    let path = model.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors<'_> = Vec::new();
    for (name, view) in stored.tensors() {
        let Some((layer, what)) = name.split_once("experts.").filter(|_| view.dtype() == Dtype::U8)
        else {
            tensors.push((name, view));
            continue;
        };
        let (shape, data) = (view.shape()[1..].to_vec(), view.data());
        for (expert, slab) in data.chunks(data.len() / 6).enumerate() {
            let name = format!("{layer}experts.{expert}.{what}");
            tensors.push((name, TensorView::new(Dtype::U8, shape.clone(), slab).unwrap()));
        }
    }
    fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let mut descriptor =
        include_str!("../../../crates/moeprune-checkpoint/families/gpt_oss.toml").to_owned();
    descriptor.push_str("\n[experts.opaque]\n");
    descriptor.push_str(
        "said = { key = \"quantization_config\", member = \"quant_method\", value = \"mxfp4\" }\n",
    );
    descriptor.push_str("[experts.opaque.tensors]\n");
    for of in ["gate_up_proj_blocks", "gate_up_proj_scales", "down_proj_blocks", "down_proj_scales"]
    {
        descriptor.push_str(&format!("{of} = \"mlp.experts.{{expert}}.{of}\"\n"));
    }
    let family = Family::from_toml(&descriptor).unwrap();
    let source = Checkpoint::open_with(&model, Some(family)).unwrap();
    let recipe = recipe(0.5, 0.5);
    let plan = made(&source, &recipe).unwrap();
    let pruned = applied(&source, &recipe, &plan, &scratch.path().join("out")).unwrap();
    for layer in &plan.layers {
        let name = |expert: usize| {
            format!("model.layers.{}.mlp.experts.{expert}.down_proj_blocks", layer.layer)
        };
        for (expert, survivor) in layer.survivors.iter().enumerate() {
            let was = source.tensor_by_name(&name(survivor.source)).unwrap();
            assert_eq!(pruned.tensor_by_name(&name(expert)).unwrap(), was);
        }
        assert!(pruned.tensor_by_name(&name(3)).is_err());
    }
}
