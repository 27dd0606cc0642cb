//! What it takes to say that a family is known: values that public code computed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::DType;
use moeprune::{
    Execution, FromRecipe as _, Inputs, Job, OutputPlace, Pipeline, Recipe, Resume, Run, Silent,
    apply, checkpoint::verify, prune,
};
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{
    Dtype, LayerPlan, ModelSpec, Partition, Plan, Sparsity, Survivor, SurvivorReason,
};
use moeprune_model::{
    ActivationSink, Branches, Compute, Embedding, Error, GenerationOptions, Head, LanguageModel,
    Layer, LayerCache, RoutingChoice, check_runnable,
};
use safetensors::SafeTensors;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::extra_layers;

/// How far values may be from the reference's, which is computed in f32.
const TOLERANCE: f32 = 1e-4;

/// The two spellings of a config: what a newer library writes, and what was released.
const DIALECTS: [&str; 2] = ["config.json", "config.hub.json"];

/// Holds a family to a checkpoint of it, with values that public code computed beside it, in both
/// dialects of its config:
///
/// * `ref.safetensors`: `input_ids`, `logits`, `hidden.{layer}`, the experts that each router chose
///   (`router.{layer}.idx`), with a greedy continuation where there is one (`greedy`), and the logits
///   with some experts removed (`pruned.logits`, `pruned.kept.{layer}`);
/// * `pruned.json`, if there is one: what `config.json` says then, and each tensor's type, shape and
///   hash. Layers behind the decoder's last are not in it.
///
/// The default recipe must also run on it: experts go and weights of the others, and the result is
/// verified, opened and run. Layers behind the decoder's last must be pruned, kept and dropped
/// ([`extra_layers::check`]).
///
/// # Panics
/// With the first difference.
pub fn check(folder: &Path) {
    check_running(folder);
    for dialect in DIALECTS {
        let scratch = tempfile::tempdir().expect("a place for the model");
        let source = in_dialect(folder, dialect, scratch.path());
        check_pruning(folder, &source, dialect, scratch.path());
        check_default_recipe(&source, scratch.path());
        extra_layers::check(&source, expert_share(source.spec()), scratch.path());
    }
}

/// Holds files of a family that can be cut and not run to what is beside them, as [`check`] does: the
/// experts that `ref.safetensors` names go, and `pruned.json` says what is left.
///
/// # Panics
/// With the first difference.
pub fn check_cut(folder: &Path) {
    for dialect in DIALECTS {
        let scratch = tempfile::tempdir().expect("a place for the model");
        let source = in_dialect(folder, dialect, scratch.path());
        assert!(source.summary().parameters.all > 0, "it can be inspected");
        let error = check_runnable(source.spec()).expect_err("it cannot be run");
        assert!(error.to_string().contains("cannot be run"), "{error}");
        cut(folder, &source, dialect, scratch.path());
    }
}

/// The model as it is.
fn check_running(folder: &Path) {
    let mut specs = Vec::new();
    for dialect in DIALECTS {
        let scratch = tempfile::tempdir().expect("a place for the model");
        let source = in_dialect(folder, dialect, scratch.path());
        assert!(source.summary().parameters.all > 0, "it can be inspected");
        // In f32 the CPU's own code runs, in f64 the code that devices use.
        for dtype in [DType::F32, DType::F64] {
            check_forward(&source, &Expected::read(folder), &Compute::cpu_in(dtype));
        }
        // Not every dialect says how many layers there are behind the decoder's last.
        specs.push(ModelSpec { extra: None, ..source.spec().clone() });
    }
    assert_eq!(specs[0], specs[1], "the two dialects say different things");
}

/// The model with one of its configs, in a place of its own.
fn in_dialect(folder: &Path, dialect: &str, scratch: &Path) -> Checkpoint {
    let model = scratch.join("model");
    fs::create_dir(&model).expect("a folder");
    for entry in fs::read_dir(folder).expect("the fixture can be listed") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
        if !["config.json", "config.hub.json", "ref.safetensors", "pruned.json"].contains(&name) {
            fs::copy(&path, model.join(name)).expect("can be copied");
        }
    }
    fs::copy(folder.join(dialect), model.join("config.json")).expect("there is such a config");
    open(&model)
}

fn open(model: &Path) -> Checkpoint {
    Checkpoint::open(model).unwrap_or_else(|error| panic!("{error}"))
}

#[derive(Default)]
struct Chosen(Vec<u32>);

impl ActivationSink for Chosen {
    fn routing(&mut self, choice: &RoutingChoice<'_>) -> Result<(), Error> {
        self.0.extend(choice.indices);
        Ok(())
    }
}

fn check_forward(source: &Checkpoint, expected: &Expected, compute: &Compute) {
    let spec = source.spec();
    let ids = expected.token_rows("input_ids");
    let shape = (ids.len(), ids[0].len(), spec.hidden);
    let embedding = Embedding::load(source, spec, compute).expect("the embedding is read");
    let hidden = embedding.embed(&ids.concat()).expect("tokens are known");
    let mut hidden = hidden.reshape(shape).expect("has that shape");
    // In layers that see keys which the one before them selected.
    let mut before = LayerCache::new(shape.0);
    for layer in 0..spec.layers.len() {
        assert_close(&format!("hidden.{layer}"), &floats(&hidden), expected);
        let mut chosen = Chosen::default();
        let loaded = Layer::load(source, spec, layer, compute).unwrap_or_else(|e| panic!("{e}"));
        let mut cache = LayerCache::new(shape.0);
        if loaded.takes_over_keys() {
            cache.see_the_keys_of(&before).expect("as many sequences");
        }
        let kept = (spec.longest_streamed() < spec.max_positions).then_some(&mut cache);
        hidden = loaded.forward(&hidden, 0, kept, &mut chosen).expect("the layer runs");
        before = cache;
        let experts = expected.integers(&format!("router.{layer}.idx")).unwrap_or_default();
        assert_eq!(chosen.0, experts, "experts chosen in layer {layer}");
    }
    let head = Head::load(source, spec, compute).expect("the head is read");
    let last = head.norm(&hidden).expect("the last norm");
    assert_close(&format!("hidden.{}", spec.layers.len()), &floats(&last), expected);
    assert_close("logits", &floats(&head.logits(&hidden).expect("logits")), expected);

    let model = LanguageModel::load(source, spec, compute).expect("the model is read");
    check_likelihoods(&model, &ids, &expected.floats("logits"));
    if expected.integers("greedy").is_some() {
        let continued = expected.token_rows("greedy");
        let max_new_tokens = continued[0].len();
        let options = GenerationOptions { max_new_tokens, ..GenerationOptions::default() };
        let got = model.generate(&ids, &options, &mut |_, _| false).expect("it generates");
        assert_eq!(got, continued, "greedy tokens");
    }
}

/// The rest of each sequence after its beginning, and other rests, are as likely as the reference's logits say.
fn check_likelihoods(model: &LanguageModel, ids: &[Vec<u32>], logits: &[f32]) {
    let (len, vocab) = (ids[0].len(), model.vocab());
    let begun = (len / 2).max(1);
    let branches: Vec<Branches> = ids
        .iter()
        .map(|ids| Branches {
            context: ids[..begun].to_vec(),
            continuations: vec![ids[begun..].to_vec(), ids[begun..=begun].to_vec(), vec![7]],
        })
        .collect();
    let found = model.branch_likelihoods(&branches).expect("they are scored");
    for (sequence, (branches, found)) in branches.iter().zip(found).enumerate() {
        for (tokens, found) in branches.continuations.iter().zip(found) {
            let first = sequence * len + begun - 1;
            let rows = logits[first * vocab..].chunks_exact(vocab).zip(tokens);
            let expected: f64 = rows.map(|(row, &token)| log_probability(row, token)).sum();
            let off = (found.sum - expected).abs();
            assert!(off < 1e-3, "sequence {sequence}: {} and not {expected}", found.sum);
        }
    }
}

fn log_probability(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    f64::from(logits[token as usize] - max) - sum.ln()
}

fn check_pruning(folder: &Path, source: &Checkpoint, dialect: &str, scratch: &Path) {
    let (expected, pruned) = (Expected::read(folder), cut(folder, source, dialect, scratch));
    let model = LanguageModel::load(&pruned, pruned.spec(), &Compute::cpu()).expect("it runs");
    let logits = model.logits(&expected.token_rows("input_ids")).expect("it runs");
    let logits: Vec<f32> = logits.iter().flat_map(floats).collect();
    assert_close("pruned.logits", &logits, &expected);
}

/// The model without the experts that the reference went without.
fn cut(folder: &Path, source: &Checkpoint, dialect: &str, scratch: &Path) -> Checkpoint {
    let expected = Expected::read(folder);
    let plan = plan_that_keeps(source, &expected);
    let out = scratch.join("out");
    let pipeline = Pipeline::from_recipe(&Recipe::arctic()).expect("a built-in recipe");
    let run = Run::claim(&out, source, Resume::No).expect("a free place");
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(source, &pipeline, &cpu, &mut silent);
    apply(&mut job, run, &plan, Inputs::None).unwrap_or_else(|error| panic!("{error}"));

    let pruned = open(&out);
    let report = verify(&out, source, Some(&plan)).expect("the result can be verified");
    assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
    let written = folder.join("pruned.json");
    if written.exists() {
        check_written(&pruned, source, dialect, &written);
    }
    pruned
}

/// Two fifths of the weights go, of them a part as whole experts: a quarter, or what groups of experts
/// allow.
fn check_default_recipe(source: &Checkpoint, scratch: &Path) {
    let mut recipe = Recipe::arctic();
    recipe.sparsity = Sparsity::new(0.4).expect("a share");
    recipe.experts.sparsity = expert_share(source.spec());
    (recipe.calibration.samples, recipe.calibration.sequence_len) = (8, 32);
    let pipeline = Pipeline::from_recipe(&recipe).expect("a built-in recipe");
    let text = scratch.join("tokens.jsonl");
    fs::write(&text, calibration_text(source.spec().vocab)).expect("can be written");
    let path = &scratch.join("by_default");
    let to = OutputPlace { origin: source, path, resume: Resume::No };
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(source, &pipeline, &cpu, &mut silent);
    prune(&mut job, to, &text, &recipe).unwrap_or_else(|error| panic!("{error}"));

    let verified = verify(path, source, None).expect("the result can be verified");
    assert!(verified.passed(), "{:?}", verified.failures().collect::<Vec<_>>());
    let pruned = open(path);
    let experts = |spec: &ModelSpec| -> usize {
        spec.layers.iter().filter_map(|layer| layer.moe()).map(|moe| moe.experts).sum()
    };
    assert!(experts(pruned.spec()) < experts(source.spec()), "no expert went");
    let model = LanguageModel::load(&pruned, pruned.spec(), &Compute::cpu()).expect("it loads");
    let logits = model.logits(&[vec![3, 1, 4, 1, 5]]).expect("it runs");
    assert!(floats(&logits[0]).iter().all(|logit| logit.is_finite()));
}

/// A quarter; of experts in groups as many as leave each group the same number.
fn expert_share(spec: &ModelSpec) -> Sparsity {
    let moe = spec.layers.iter().find_map(|layer| layer.moe()).expect("a layer with experts");
    let share = match moe.router.groups() {
        Some(groups) => groups.count as f64 / moe.experts as f64,
        None => 0.25,
    };
    Sparsity::new(share).expect("a share")
}

/// Blocks of tokens that look drawn, the same each time.
fn calibration_text(vocab: usize) -> String {
    let mut state = 1_u64;
    let mut draw = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % vocab as u64
    };
    let mut line = || {
        let ids: Vec<u64> = (0..32).map(|_| draw()).collect();
        format!("{{\"tokens\":{ids:?}}}\n")
    };
    (0..8).map(|_| line()).collect()
}

/// A plan by which the experts go that the reference went without.
fn plan_that_keeps(source: &Checkpoint, expected: &Expected) -> Plan {
    let mut layers = Vec::new();
    for (layer, spec) in source.spec().layers.iter().enumerate() {
        let Some(moe) = spec.moe() else { continue };
        let kept = expected.integers(&format!("pruned.kept.{layer}")).expect("some are kept");
        let kept: Vec<usize> = kept.into_iter().map(|expert| expert as usize).collect();
        let survivor = |&expert: &usize| Survivor::kept(expert, SurvivorReason::Salient);
        let groups = (0..moe.experts).map(|expert| vec![expert]).collect();
        layers.push(LayerPlan {
            layer,
            experts_before: moe.experts,
            clusters: Partition::new(moe.experts, groups).expect("each expert alone"),
            survivors: kept.iter().map(survivor).collect(),
            dropped: (0..moe.experts).filter(|expert| !kept.contains(expert)).collect(),
            tokens: Vec::new(),
        });
    }
    Plan {
        format: 1,
        tool: String::new(),
        model_fingerprint: source.fingerprint().expect("routers can be read"),
        observation_sha256: None,
        corpora: Vec::new(),
        recipe: serde_json::to_value(Recipe::arctic()).expect("a recipe is JSON"),
        unstructured: None,
        repairs: false,
        layers,
        extra: None,
    }
}

/// What the pruned files must hold.
#[derive(Deserialize)]
struct Written {
    #[serde(flatten)]
    configs: BTreeMap<String, serde_json::Value>,
    /// Type, shape, and the first sixteen digits of the hash.
    sha256_16: BTreeMap<String, (String, Vec<usize>, String)>,
}

fn check_written(pruned: &Checkpoint, source: &Checkpoint, dialect: &str, written: &Path) {
    let written: Written = read_json(written);
    let config = |text: &str| serde_json::from_str::<BTreeMap<String, serde_json::Value>>(text);
    let mut expected = config(source.config_text()).expect("a config is JSON");
    let changes: BTreeMap<String, serde_json::Value> =
        serde_json::from_value(written.configs[dialect].clone()).expect("keys and values");
    for (key, value) in changes {
        set(&mut expected, &key, value);
    }
    assert_eq!(config(pruned.config_text()).expect("a config is JSON"), expected);

    let mut left: Vec<&String> = written.sha256_16.keys().collect();
    for tensor in pruned.tensors().filter(|tensor| !pruned.is_extra(tensor)) {
        let name = &tensor.name;
        let Some((dtype, shape, hash)) = written.sha256_16.get(name) else {
            assert!(tensor.part.is_none() && tensor.experts.is_none(), "{name} is written");
            continue;
        };
        let read = pruned.tensor_by_name(name).expect("can be read");
        assert_eq!((torch_name(tensor.dtype), &tensor.shape), (&**dtype, shape), "{name}");
        let digest = Sha256::digest(read.bytes());
        let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digits, *hash, "bytes of {name}");
        left.retain(|other| *other != name);
    }
    assert!(left.is_empty(), "not written: {left:?}");
}

/// Sets the value under a key, in which a dot descends into an object.
fn set(members: &mut BTreeMap<String, serde_json::Value>, key: &str, value: serde_json::Value) {
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    let place = members.entry(first.to_owned()).or_default();
    let pointer = rest.split('.').filter(|step| !step.is_empty());
    let place = pointer.fold(place, |object, step| &mut object[step]);
    *place = value;
}

fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::BF16 => "bfloat16",
        Dtype::F16 => "float16",
        Dtype::F32 => "float32",
        Dtype::U8 => "uint8",
        other => panic!("{other} is no type of the references"),
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&fs::read(path).expect("can be read")).expect("is JSON")
}

/// What the public code computed.
struct Expected {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Expected {
    fn read(folder: &Path) -> Self {
        let path = folder.join("ref.safetensors");
        Self { bytes: fs::read(&path).expect("there are references"), path }
    }

    fn bytes(&self, name: &str) -> Option<(Vec<usize>, safetensors::Dtype, Vec<u8>)> {
        let stored = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let tensor = stored.tensor(name).ok()?;
        Some((tensor.shape().to_vec(), tensor.dtype(), tensor.data().to_vec()))
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let found = self.bytes(name);
        let (_, _, bytes) = found.unwrap_or_else(|| panic!("{}: {name}", self.path.display()));
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// Whole numbers of any width, none of them large.
    fn integers(&self, name: &str) -> Option<Vec<u32>> {
        let (_, dtype, bytes) = self.bytes(name)?;
        let width = match dtype {
            safetensors::Dtype::I64 => 8,
            safetensors::Dtype::I32 => 4,
            other => panic!("{name} is {other:?}"),
        };
        let number = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        Some(bytes.chunks_exact(width).map(number).collect())
    }

    /// Sequences of tokens, `[sequences, tokens]`.
    fn token_rows(&self, name: &str) -> Vec<Vec<u32>> {
        let shape = self.bytes(name).unwrap_or_else(|| panic!("no {name}")).0;
        let tokens = self.integers(name).unwrap_or_default();
        tokens.chunks(shape[1]).map(<[u32]>::to_vec).collect()
    }
}

#[track_caller]
fn assert_close(name: &str, got: &[f32], expected: &Expected) {
    let want = expected.floats(name);
    assert_eq!(got.len(), want.len(), "{name}");
    let off = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off <= TOLERANCE, "{name} of {} is off by {off}", expected.path.display());
}

fn floats(tensor: &candle_core::Tensor) -> Vec<f32> {
    let flat = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all());
    flat.and_then(|tensor| tensor.to_vec1()).expect("values of a tensor")
}
