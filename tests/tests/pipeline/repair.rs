//! Experts that stay and make up for those that go: what a run with a repair must keep, end to end.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
};

use moeprune::{
    CalibrationTexts, Execution, FromRecipe, Job, OutputPlace, Pipeline, Progress, Recipe, Report,
    Resume, Silent,
    checkpoint::{Checkpoint, verify},
    core::repair::ExpertOutcome,
    engine::OtherText,
    model::{Compute, LanguageModel},
    prune,
    recipe::Budget,
};

use crate::scratch::{asset, recipe, run_on, tokens};

/// So many blocks that experts of untrained models, too, are fitted to more than the blocks themselves.
const SAMPLES: usize = 128;

/// A share of the experts by REAP, the others refitted, and no weight zeroed.
fn experts_only(share: f64) -> Recipe {
    let mut recipe = recipe(share, share);
    (recipe.calibration.samples, recipe.calibration.sequence_len) = (SAMPLES, 32);
    recipe.experts.criterion = "reap".into();
    recipe.repair = "refit".into();
    recipe
}

/// Blocks for a recipe, and more that are held out.
fn text(scratch: &Path, vocab: usize) -> PathBuf {
    tokens(scratch, SAMPLES + SAMPLES / 8, 32, vocab as u64)
}

/// What a run must keep of any model: it ends, the result passes verification, opens and runs, and held-out
/// tokens are reproduced no worse.
#[track_caller]
fn check(name: &str, recipe: &Recipe) -> Report {
    let scratch = tempfile::tempdir().unwrap();
    let (model, out) = (asset(name), scratch.path().join("out"));
    let source = Checkpoint::open(&model).unwrap();
    let text = text(scratch.path(), source.spec().vocab);
    let report = run_on(&Execution::cpu(), &model, &out, &text, recipe)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let verified = verify(&out, &source, None).unwrap();
    assert!(verified.passed(), "{name}: {:?}", verified.failures().collect::<Vec<_>>());
    let pruned = Checkpoint::open(&out).unwrap();
    let running = LanguageModel::load(&pruned, pruned.spec(), &Compute::cpu()).unwrap();
    let ids = (0..16).map(|i| (7 * i * i + 5) % pruned.spec().vocab as u32).collect();
    for logits in running.logits(&[ids]).unwrap() {
        let logits: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()), "{name}");
    }
    let repair = report.repair.as_ref().unwrap_or_else(|| panic!("{name}: nothing was repaired"));
    assert!(!repair.layers.is_empty() && refitted(&report) > 0, "{name}: {:?}", repair.summary);
    for layer in &repair.layers {
        let number = layer.repair.layer;
        let error = layer.repair.held_out.unwrap_or_else(|| panic!("{name}: nothing was held out"));
        assert!(error.after <= error.before * (1.0 + 1e-6), "{name}, layer {number}: {error:?}");
        assert!(layer.repair.errors.iter().all(|e| e.is_finite()), "{name}, layer {number}");
        let growths = layer.repair.experts.iter().map(|expert| expert.growth);
        assert!(growths.into_iter().all(f64::is_finite), "{name}, layer {number}");
    }
    report
}

/// How many experts have new weights.
fn refitted(report: &Report) -> usize {
    let layers = report.repair.iter().flat_map(|repair| &repair.layers);
    let experts = layers.flat_map(|layer| &layer.repair.experts);
    experts.filter(|expert| expert.outcome == ExpertOutcome::Refitted).count()
}

#[test]
fn the_embedded_model() {
    check("nano", &experts_only(0.5));
}

#[test]
fn softmax_routers() {
    check("parity/mixtral", &experts_only(0.25));
    check("parity/arctic", &experts_only(0.25));
    check("parity/qwen3_moe_fused", &experts_only(0.25));
}

#[test]
fn groups_and_corrections() {
    check("parity/deepseek_v3", &experts_only(0.33));
    check("parity/ernie4_5_moe", &experts_only(0.25));
    check("parity/minimax_m2", &experts_only(0.25));
}

#[test]
fn biases_of_down_projections() {
    check("parity/gpt_oss", &experts_only(0.25));
}

#[test]
fn gates_on_inputs() {
    check("parity/llama4", &experts_only(0.25));
}

#[test]
fn multipliers_of_residuals() {
    check("parity/granitemoe", &experts_only(0.25));
}

#[test]
fn norms_after_the_sum_and_scales_per_expert() {
    check("parity/gemma4", &experts_only(0.25));
}

#[test]
fn two_matrices_per_expert() {
    check("parity/nemotron_h", &experts_only(0.25));
}

#[test]
fn rivals() {
    check("parity/phimoe", &experts_only(0.25));
}

/// By any way of choosing the experts that go.
#[test]
fn with_any_criterion_and_budget() {
    for criterion in ["stun", "ean", "random", "reconstruction:tokens=64"] {
        let mut recipe = experts_only(0.5);
        recipe.experts.criterion = criterion.parse().unwrap();
        check("parity/arctic", &recipe);
    }
    for survivor in ["average", "weighted-average"] {
        let mut recipe = experts_only(0.5);
        recipe.experts.criterion = "stun".into();
        recipe.experts.survivor = survivor.into();
        check("parity/arctic", &recipe);
    }
    let mut global = experts_only(0.4);
    global.experts.budget = Budget::Global;
    check("parity/arctic", &global);
}

/// Before any way of zeroing weights, those that were refitted among them.
#[test]
fn before_any_masks() {
    type Change = fn(&mut Recipe);
    let masks: [(f64, Change); 4] = [
        (0.6, |recipe| recipe.weights.allocation = "uniform".into()),
        (0.6, |recipe| recipe.weights.allocation = "owl".into()),
        (0.6, |recipe| recipe.weights.scorer = "sparsegpt:least_tokens=1".parse().unwrap()),
        (0.5, |recipe| recipe.weights.pattern = "2:4".parse().unwrap()),
    ];
    for (total, change) in masks {
        let mut with_masks = recipe(total, 0.25);
        (with_masks.calibration.samples, with_masks.calibration.sequence_len) = (SAMPLES, 32);
        with_masks.experts.criterion = "reap".into();
        with_masks.repair = "refit".into();
        change(&mut with_masks);
        let report = check("parity/arctic", &with_masks);
        assert!(report.sparsity.achieved.linears > 0.4, "{:?}", report.sparsity);
    }
}

fn weights(out: &Path) -> Vec<u8> {
    fs::read(out.join("model.safetensors")).unwrap()
}

/// The same bytes, however many threads there are and blocks run together.
#[test]
fn threads_and_micro_batches_do_not_matter() {
    let scratch = tempfile::tempdir().unwrap();
    let text = tokens(scratch.path(), 12, 32, 256);
    let mut recipe = recipe(0.6, 0.5);
    recipe.calibration.sequence_len = 32;
    recipe.repair = "refit".into();
    let with = |threads: usize, micro_batch: usize| {
        let out = scratch.path().join(format!("out-{threads}-{micro_batch}"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let execution = Execution::on(Compute::cpu(), Some(micro_batch));
        let run = || run_on(&execution, &asset("parity/arctic"), &out, &text, &recipe);
        pool.install(run).unwrap();
        weights(&out)
    };
    let one = with(1, 1);
    for (threads, micro_batch) in [(2, 1), (8, 1), (2, 3), (2, 100)] {
        assert!(one == with(threads, micro_batch), "{threads} threads, {micro_batch} at a time");
    }
}

/// Asks to stop when it was asked so often.
#[derive(Debug)]
struct StopsAfter(Cell<u64>);

impl Progress for StopsAfter {
    fn should_stop(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left == 0
    }
}

/// Runs that stop anywhere and are resumed end in the bytes of one that does not. (Killed ones:
/// `crates/moeprune-cli/tests/cli/resume.rs`.)
fn check_stops(recipe: &Recipe, stops: u64) {
    let scratch = tempfile::tempdir().unwrap();
    let (model, text) = (asset("parity/arctic"), tokens(scratch.path(), 12, 32, 256));
    let source = Checkpoint::open(&model).unwrap();
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    let run = |out: &Path, resume: Resume, steps: u64| {
        let to = OutputPlace { origin: &source, path: out, resume };
        let (execution, mut progress) = (Execution::cpu(), StopsAfter(Cell::new(steps)));
        let mut job = Job::new(&source, &pipeline, &execution, &mut progress);
        prune(&mut job, to, &text, recipe).map(|_| u64::MAX - progress.0.get())
    };
    let whole = scratch.path().join("whole");
    // How often a repair looks whether to stop depends on how long it takes.
    let steps = run(&whole, Resume::No, u64::MAX).unwrap() * 7 / 8;
    let mut random = 0x9e37_79b9_u64;
    for number in 0..stops {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let out = scratch.path().join(format!("out-{number}"));
        let first = (random >> 33) % steps;
        assert!(run(&out, Resume::No, first).unwrap_err().is_stop(), "after {first} of {steps}");
        // Stopped once more, wherever that is.
        let second = run(&out, Resume::Yes, (random >> 20) % steps);
        if second.is_err_and(|error| error.is_stop()) {
            run(&out, Resume::Yes, u64::MAX).unwrap();
        }
        assert!(weights(&out) == weights(&whole), "stopped after {first} of {steps}");
    }
}

#[test]
fn stopped_runs_are_resumed_to_the_same_bytes() {
    let mut recipe = recipe(0.6, 0.5);
    recipe.calibration.sequence_len = 32;
    recipe.repair = "refit".into();
    check_stops(&recipe, 12);
}

#[test]
fn so_are_runs_that_refit_what_masks_left() {
    let mut recipe = recipe(0.6, 0.5);
    recipe.calibration.sequence_len = 32;
    recipe.weights.refit = Some("refit:keep_zeros=true".parse().unwrap());
    check_stops(&recipe, 12);
}

/// As many zeros with a refit after masks as without, and other weights.
#[test]
fn masks_stay_when_what_they_left_is_refitted() {
    let scratch = tempfile::tempdir().unwrap();
    let text = tokens(scratch.path(), SAMPLES + SAMPLES / 8, 32, 256);
    let with = |refit: Option<&str>| {
        let mut recipe = recipe(0.5, 0.0);
        (recipe.calibration.samples, recipe.calibration.sequence_len) = (SAMPLES, 32);
        recipe.weights.refit = refit.map(|refit| refit.parse().unwrap());
        let out = scratch.path().join(refit.map_or("plain", |_| "refitted"));
        let model = asset("parity/mixtral");
        let report = run_on(&Execution::cpu(), &model, &out, &text, &recipe).unwrap();
        let verified = verify(&out, &Checkpoint::open(&model).unwrap(), None).unwrap();
        assert!(verified.passed(), "{:?}", verified.failures().collect::<Vec<_>>());
        (weights(&out), report)
    };
    let (plain, refitted) = (with(None), with(Some("refit:keep_zeros=true")));
    assert!(plain.0 != refitted.0);
    let zeros = |report: &Report| report.sparsity.achieved.linears;
    assert!((zeros(&plain.1) - zeros(&refitted.1)).abs() < 1e-6);
    let summary = &refitted.1.refit.as_ref().unwrap().summary;
    assert!(summary.fitted.after < summary.fitted.before, "{summary:?}");
}

/// A text on which a repair is only measured does not change what it does.
#[test]
fn a_text_that_is_measured_changes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let folder = scratch.path().join(name);
        fs::create_dir(&folder).unwrap();
        folder
    };
    let text = tokens(&folder("text"), SAMPLES + SAMPLES / 8, 32, 256);
    let other = tokens(&folder("other"), 40, 32, 90);
    let recipe = experts_only(0.5);
    let source = Checkpoint::open(&asset("parity/arctic")).unwrap();
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let with = |others: &[OtherText<'_>], name: &str| {
        let out = scratch.path().join(name);
        let to = OutputPlace { origin: &source, path: &out, resume: Resume::No };
        let (execution, mut silent) = (Execution::cpu(), Silent);
        let mut job = Job::new(&source, &pipeline, &execution, &mut silent);
        let texts = CalibrationTexts { text: (&text).into(), others };
        let report = prune(&mut job, to, texts, &recipe).unwrap();
        (weights(&out), report.repair.unwrap())
    };
    let alone = with(&[], "alone");
    let measured = with(&[OtherText { path: &other, fitted: 0 }], "measured");
    assert!(alone.0 == measured.0);
    assert_eq!(alone.1.layers[0].repair, measured.1.layers[0].repair);
    assert!(measured.1.layers[0].held_out[1].is_some());
}
