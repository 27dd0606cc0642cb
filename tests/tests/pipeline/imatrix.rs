//! An imatrix in place of a run of the model: what llama-imatrix collected on the GGUF of `gguf/mix32`,
//! against an observation of the same tokens.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use moeprune::{
    Calibration, Execution, FromRecipe, ImatrixFile, Inputs, Job, Pipeline, Recipe, Resume, Run,
    Silent, apply,
    checkpoint::Checkpoint,
    core::{AttentionProjection, InputMoments, LinearId, MlpProjection, Observation, Plan},
    gguf::imatrix::{ImatrixEntry, Tally},
    observe_imatrix, plan,
    recipe::Statistics,
};
use safetensors::SafeTensors;

use crate::scratch::{asset, observe};

fn model() -> Checkpoint {
    Checkpoint::open(&asset("gguf/mix32")).unwrap()
}

fn from_imatrix(names: &[&str]) -> Result<Observation, String> {
    let read = |name: &&str| ImatrixFile::read(&asset(&format!("gguf/imatrix/{name}")));
    observe_imatrix(&model(), names.iter().map(read)).map_err(|error| error.to_string())
}

/// The model run on the tokens that the imatrix is of.
fn from_a_run() -> Observation {
    let mut recipe = Recipe::arctic();
    recipe.calibration.samples = 64;
    recipe.calibration.sequence_len = 128;
    let text = asset("gguf/imatrix/im.jsonl");
    observe(&model(), &Calibration::read(&text, &model(), &recipe).unwrap()).unwrap()
}

/// The plan of a criterion.
fn planned(observation: &Observation, criterion: &str) -> Result<Plan, String> {
    planned_with(observation, |recipe| recipe.experts.criterion = criterion.parse().unwrap())
}

/// The default plan, but for what is changed.
fn planned_with(
    observation: &Observation,
    change: impl FnOnce(&mut Recipe),
) -> Result<Plan, String> {
    let mut recipe = Recipe::arctic();
    recipe.weights.statistics = Statistics::Stored;
    change(&mut recipe);
    let (model, pipeline) = (model(), Pipeline::from_recipe(&recipe).unwrap());
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&model, &pipeline, &cpu, &mut silent);
    plan(&mut job, &recipe, Some(observation)).map_err(|error| error.to_string())
}

#[test]
fn tokens_of_experts_are_those_of_a_run() {
    let (stored, run) = (from_imatrix(&["im.gguf"]).unwrap(), from_a_run());
    for (stored, run) in stored.layers.iter().zip(&run.layers) {
        let (stored, run) = (stored.routing.as_ref().unwrap(), run.routing.as_ref().unwrap());
        assert_eq!((stored.tokens, stored.top_k), (run.tokens, run.top_k));
        assert_eq!(stored.counts, run.counts);
        assert!(stored.gate_sums.is_empty() && stored.coactivation.is_empty());
    }
    let [tag] = &stored.corpora[..] else { panic!("one text") };
    assert_eq!((tag.name.as_str(), tag.tokens()), ("imatrix im.gguf of im.txt", 8192));
    assert_eq!(stored.model_fingerprint, run.model_fingerprint);
}

/// The largest difference of two inputs, relative to the larger.
fn off(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let relative =
        |(a, b): (&f64, &f64)| (a - b).abs() / a.abs().max(b.abs()).max(f64::MIN_POSITIVE);
    a.iter().zip(b).map(relative).fold(0.0, f64::max)
}

#[test]
fn squared_inputs_are_those_of_a_run() {
    let (stored, run) = (from_imatrix(&["im.gguf"]).unwrap(), from_a_run());
    let mut worst = BTreeMap::<String, f64>::new();
    for (stored, run) in stored.layers.iter().zip(&run.layers) {
        let sites: Vec<LinearId> = run.inputs.keys().copied().collect();
        assert_eq!(stored.inputs.keys().copied().collect::<Vec<_>>(), sites);
        for site in sites {
            let (a, b) = (&stored.inputs[&site], &run.inputs[&site]);
            assert_eq!(a.tokens, b.tokens, "{site}");
            // Which chunks had tokens for an expert is in no imatrix.
            assert!(a.calls >= b.calls && a.calls <= 64, "{site}");
            assert_eq!(a.calls, if site.expert().is_none() { b.calls } else { a.tokens.min(64) });
            let worst = worst.entry(site.with_expert(0).to_string()).or_default();
            *worst = worst.max(off(&a.sum_squares, &b.sum_squares));
        }
    }
    assert!(worst.values().all(|&off| off < 1e-4), "{worst:?}");
    assert!(worst["expert.0.gate"] < 1e-5 && worst["expert.0.down"] < 1e-5, "{worst:?}");
}

/// Means over what reached the input.
fn means(moments: &InputMoments) -> Vec<f64> {
    moments.sum_squares.iter().map(|sum| sum / moments.tokens as f64).collect()
}

#[test]
fn the_older_form_has_the_same_means() {
    let (old, new) = (from_imatrix(&["im.dat"]).unwrap(), from_imatrix(&["im.gguf"]).unwrap());
    for (old, new) in old.layers.iter().zip(&new.layers) {
        assert!(old.routing.is_none());
        assert!(old.inputs.keys().eq(new.inputs.keys()));
        for (site, moments) in &old.inputs {
            assert!(off(&means(moments), &means(&new.inputs[site])) < 1e-6, "{site}");
        }
    }
    let frequency = planned(&old, "frequency").unwrap_err();
    assert!(frequency.contains("there is none"), "{frequency}");
}

#[test]
fn files_add_up() {
    let check = |name: &str| {
        let (one, two) = (from_imatrix(&[name]).unwrap(), from_imatrix(&[name, name]).unwrap());
        let mut expected = one.clone();
        expected.add(&one).unwrap();
        assert_eq!(two, expected);
    };
    check("im.gguf");
    check("im.dat");
    let mixed = from_imatrix(&["im.gguf", "im.dat"]).unwrap_err();
    assert!(mixed.contains("they do not add up"), "{mixed}");
}

#[test]
fn experts_that_go_are_those_of_a_run() {
    let (stored, run) = (from_imatrix(&["im.gguf"]).unwrap(), from_a_run());
    for criterion in ["frequency", "stun"] {
        let plan = |observation| planned(observation, criterion).unwrap();
        let (stored, run) = (plan(&stored), plan(&run));
        assert_eq!(stored.layers, run.layers, "{criterion}");
        assert_eq!(stored.unstructured, run.unstructured);
    }
}

#[test]
fn what_an_imatrix_has_not_is_said() {
    let stored = from_imatrix(&["im.gguf"]).unwrap();
    let check = |criterion: &str, expected: &str| {
        let error = planned(&stored, criterion).unwrap_err();
        assert!(error.contains(expected) && error.contains("observe the model"), "{error}");
    };
    check("gate", "no gate weights");
    check("reap", "no norms of the experts' outputs");
    check("ean", "no norms of the experts' outputs");
    check("peak", "no peaks of the experts' outputs");
}

/// Which weights of each tensor of a pruned model are zero.
fn zeros(folder: &Path) -> BTreeMap<String, Vec<bool>> {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let is_zero = |pair: &[u8]| pair[0] == 0 && pair[1] & 0x7f == 0;
    let zeros = |bytes: &[u8]| bytes.chunks_exact(2).map(is_zero).collect();
    tensors.iter().map(|(name, tensor)| (name.to_owned(), zeros(tensor.data()))).collect()
}

fn applied(observation: &Observation, plan: &Plan, out: PathBuf) -> Result<PathBuf, String> {
    let recipe: Recipe = serde_json::from_value(plan.recipe.clone()).unwrap();
    let (model, pipeline) = (model(), Pipeline::from_recipe(&recipe).unwrap());
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let run = Run::claim(&out, &model, Resume::No).unwrap();
    let mut job = Job::new(&model, &pipeline, &cpu, &mut silent);
    let applied = apply(&mut job, run, plan, Inputs::Observation(observation));
    applied.map(|_| out).map_err(|error| error.to_string())
}

/// The share of the weights that one model has zeroed and the other has not, of all that one has zeroed.
fn differing(a: &Path, b: &Path) -> f64 {
    let (a, b) = (zeros(a), zeros(b));
    assert!(a.keys().eq(b.keys()));
    let (mut differ, mut zero) = (0, 0);
    for (name, a) in &a {
        differ += a.iter().zip(&b[name]).filter(|(a, b)| a != b).count();
        zero += a.iter().filter(|&&zero| zero).count();
    }
    assert!(zero > 100_000, "{zero}");
    differ as f64 / zero as f64
}

#[test]
fn weights_that_are_zeroed_are_those_of_a_run() {
    let run = from_a_run();
    let check = |name: &str, change: fn(&mut Recipe), most: f64| {
        let scratch = tempfile::tempdir().unwrap();
        let observation = from_imatrix(&[name]).unwrap();
        let plan = planned_with(&run, change).unwrap();
        let expected = applied(&run, &plan, scratch.path().join("run")).unwrap();
        let pruned = applied(&observation, &plan, scratch.path().join(name)).unwrap();
        let share = differing(&pruned, &expected);
        assert!(share <= most, "{name}: {share}");
    };
    let uniform = |recipe: &mut Recipe| recipe.weights.allocation = "uniform".parse().unwrap();
    let per_token = |recipe: &mut Recipe| {
        recipe.weights.scorer = "wanda:normalization=per-token".parse().unwrap()
    };
    // 0 when this was written: near-ties alone could differ.
    check("im.gguf", uniform, 1e-5);
    check("im.gguf", per_token, 1e-5);
    check("im.dat", per_token, 1e-5);
    // OWL compares Linears by their sums per chunk that reached them, which is not known of experts.
    check("im.gguf", |_| (), 0.03);
    let observation = from_imatrix(&["im.dat"]).unwrap();
    let (plan, scratch) = (planned(&run, "stun").unwrap(), tempfile::tempdir().unwrap());
    let error = applied(&observation, &plan, scratch.path().join("out")).unwrap_err();
    assert!(error.contains("no calls") && error.contains("per-token"), "{error}");
}

#[test]
fn an_observation_without_an_input_that_is_needed_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let mut observation = from_imatrix(&["im.gguf"]).unwrap();
    let plan = planned(&observation, "frequency").unwrap();
    let output = LinearId::Attention(AttentionProjection::Output);
    observation.layers[1].inputs.remove(&output);
    let error = applied(&observation, &plan, scratch.path().join("out")).unwrap_err();
    assert!(error.contains("none of attention.output in layer 1"), "{error}");
}

/// What is said of an imatrix that was changed.
fn refused(change: impl FnOnce(&mut BTreeMap<String, ImatrixEntry>)) -> String {
    let mut file = ImatrixFile::read(&asset("gguf/imatrix/im.gguf")).unwrap();
    change(&mut file.imatrix.entries);
    observe_imatrix(&model(), [Ok(file)]).unwrap_err().to_string()
}

/// The counts of an entry.
fn counts<'a>(entries: &'a mut BTreeMap<String, ImatrixEntry>, name: &str) -> &'a mut Vec<u64> {
    match &mut entries.get_mut(name).unwrap().tally {
        Tally::Tokens(counts) => counts,
        Tally::Calls(_) => panic!("{name} has no counts"),
    }
}

#[test]
fn an_imatrix_of_another_model_is_named() {
    let check = |error: String, expected: &str| {
        assert!(error.starts_with("imatrix im.gguf: ") && error.contains(expected), "{error}");
    };
    let error = refused(|entries| {
        let entry = entries.get_mut("blk.1.attn_output.weight").unwrap();
        entry.inputs = 64;
        entry.sums.truncate(64);
    });
    let expected = "tensor `blk.1.attn_output.weight`: expected 128 inputs (attention.output of layer 1), \
                    got 64 inputs";
    check(error, expected);
    let error = refused(|entries| {
        let entry = entries.get_mut("blk.0.ffn_down_exps.weight").unwrap();
        entry.matrices = 4;
        entry.sums.truncate(4 * 128);
        entry.tally = Tally::Tokens(vec![1; 4]);
    });
    check(
        error,
        "expected 128 inputs of each of 8 experts (expert.0.down of layer 0), got 128 inputs of",
    );
    let error = refused(|entries| {
        let entry = entries["blk.0.attn_q.weight"].clone();
        entries.insert("blk.3.attn_q.weight".into(), entry);
    });
    check(error, "tensor `blk.3.attn_q.weight` is of layer 3, expected one of the model's 3");
    check(refused(BTreeMap::clear), "it has no tensor of this model: expected such as `blk.0.");
}

#[test]
fn counts_that_contradict_each_other_are_named() {
    let check = |error: String, expected: &str| assert!(error.contains(expected), "{error}");
    let error = refused(|entries| counts(entries, "blk.0.ffn_up_exps.weight")[3] += 1);
    check(error, "expected the same counts, got 372 and 373 for expert 3");
    let error = refused(|entries| counts(entries, "blk.0.attn_k.weight")[0] -= 1);
    check(error, "got 8192 and 8191; collect");
    let error = refused(|entries| {
        for name in ["gate", "up", "down"] {
            counts(entries, &format!("blk.0.ffn_{name}_exps.weight")).fill(5327);
        }
    });
    check(error, "expected counts that sum to 8192 tokens × 2 experts, got 42616");
    let error = refused(|entries| {
        for name in ["gate", "up", "down"] {
            counts(entries, &format!("blk.2.ffn_{name}_exps.weight"))[0] = 0;
        }
    });
    check(error, "expected zeros for expert 0, to which no token was routed");
}

#[test]
fn an_expert_without_tokens_in_the_older_form_has_none() {
    let mut file = ImatrixFile::read(&asset("gguf/imatrix/im.dat")).unwrap();
    let entry = file.imatrix.entries.get_mut("blk.1.ffn_gate_exps.weight").unwrap();
    // As llama-imatrix writes it: a mean of 1, times the calls.
    entry.sums[128 * 5..128 * 6].fill(55.0);
    let observed = observe_imatrix(&model(), [Ok(file)]).unwrap();
    let idle = &observed.layers[1].inputs[&LinearId::Expert(5, MlpProjection::Gate)];
    assert_eq!(*idle, InputMoments::new(128));
}
