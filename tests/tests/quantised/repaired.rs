//! Experts that stay, repaired in the encoding that they are stored in.

use std::{cell::Cell, fs, path::Path};

use moeprune::{
    Error, Execution, Job, OutputPlace, Progress, Recipe, Registry, Report, Resume, Silent,
    checkpoint::{Checkpoint, verify},
    core::{RepairPasses, Sparsity, repair::ExpertOutcome},
    engine::{
        REPAIRABLE_ENCODINGS, Rates, RepairCost, RepairEstimate, RepairTextSize, codes_of_repaired,
    },
    prune, read_keep_list,
};
use moeprune_model::{Compute, LanguageModel};

use crate::fixtures::{Fixture, for_each};

/// Formats that are not written, by what the fixtures' names begin with.
const REFUSED: [&str; 3] = ["awq", "gptq", "int4_pack_asym"];

fn is_written(name: &str) -> bool {
    !REFUSED.iter().any(|refused| name.starts_with(refused))
}

/// What a model is repaired with: those of its experts that the fixture keeps, and a total.
fn recipe(total: f64) -> Recipe {
    let mut recipe = Recipe::arctic();
    recipe.sparsity = Sparsity::new(total).unwrap();
    recipe.experts.sparsity = Sparsity::ZERO;
    recipe.weights.allocation = "uniform".into();
    (recipe.calibration.samples, recipe.calibration.sequence_len) = (160, 16);
    (recipe.repair, recipe.requantise) = ("refit".into(), true);
    recipe
}

/// Blocks of tokens, of which half of the vocabulary is often.
fn tokens(directory: &Path) -> std::path::PathBuf {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    let mut block = || (0..16).map(|_| next() % (64 << (next() % 2))).collect::<Vec<_>>();
    let lines = (0..240).map(|_| format!("{{\"tokens\":{:?}}}\n", block()));
    let path = directory.join("tokens.jsonl");
    fs::write(&path, lines.collect::<String>()).unwrap();
    path
}

struct Request<'a> {
    fixture: &'a Fixture,
    recipe: Recipe,
    out: &'a Path,
    resume: Resume,
}

fn run(request: Request<'_>, progress: &mut dyn Progress) -> Result<Report, Error> {
    let Request { fixture, mut recipe, out, resume } = request;
    let source = Checkpoint::open(&fixture.dir).unwrap();
    let list = out.with_extension("json");
    fs::write(&list, serde_json::to_string(&fixture.kept()).unwrap()).unwrap();
    let list = read_keep_list(&list, source.spec()).unwrap();
    let total = Some(recipe.sparsity).filter(|total| *total > Sparsity::ZERO);
    let pipeline = Registry::built_in().keeping(list, source.spec(), &mut recipe, total).unwrap();
    let text = tokens(out.parent().unwrap());
    let cpu = Execution::cpu();
    let to = OutputPlace { origin: &source, path: out, resume };
    prune(&mut Job::new(&source, &pipeline, &cpu, progress), to, &text, &recipe)
}

/// Holds a repaired model to what is promised of it, and counts parts with new codes.
fn check(name: &str, fixture: &Fixture, out: &Path, report: &Report) -> usize {
    let source = Checkpoint::open(&fixture.dir).unwrap();
    let checked = verify(out, &source, None).unwrap();
    assert!(checked.passed(), "{name}: {:?}", checked.failures().collect::<Vec<_>>());

    let repair = report.repair.as_ref().unwrap();
    assert!(!repair.layers.is_empty());
    for layer in &repair.layers {
        let held_out = layer.repair.held_out.unwrap();
        assert!(held_out.after <= held_out.before, "{name}: {held_out:?}");
        let rounding = layer.repair.rounding.unwrap();
        assert!(rounding.before > 0.0 && rounding.after > 0.0, "{name}: {rounding:?}");
    }

    let pruned = Checkpoint::open(out).unwrap();
    let model = LanguageModel::load(&pruned, pruned.spec(), &Compute::cpu()).unwrap();
    for logits in model.logits(&fixture.input_ids()).unwrap() {
        let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()), "{name}");
    }
    assert!(
        repair
            .summary
            .rounding_in_words()
            .unwrap()
            .contains("what is missing on held-out tokens by"),
        "{name}"
    );
    let new = repair.layers.iter().flat_map(|layer| layer.parts.iter().flatten());
    let experts = repair.layers.iter().flat_map(|layer| &layer.repair.experts);
    let refitted = experts.filter(|expert| expert.outcome == ExpertOutcome::Refitted).count();
    let in_codes = new.filter(|part| !part.companions.is_empty()).count();
    assert!(in_codes <= refitted, "{name}: {in_codes} of {refitted}");
    in_codes
}

#[test]
fn of_each_format_that_is_written() {
    for_each(|name, fixture| {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let request = Request { fixture, recipe: recipe(0.0), out: &out, resume: Resume::No };
        match run(request, &mut Silent) {
            Ok(report) => {
                assert!(is_written(name), "{name}");
                let parts = check(name, fixture, &out, &report);
                assert!(parts > 0, "{name}: nothing was repaired");
            }
            Err(error) => {
                assert!(!is_written(name), "{name}: {error}");
                let error = error.to_string();
                assert!(error.contains(REPAIRABLE_ENCODINGS), "{name}: {error}");
            }
        }
    });
}

#[test]
fn estimates_count_the_rounding_of_each_sweep() {
    for_each(|name, fixture| {
        let source = Checkpoint::open(&fixture.dir).unwrap();
        let tokens = RepairTextSize { fitted: 1000, held_out: 200, block: 100 };
        let kept = fixture.kept();
        let passes = |sweeps| RepairPasses { sweeps, ..RepairPasses::default() };
        let estimate = |sweeps| {
            let kept = |layer| kept.get(&layer).map_or(0, Vec::len);
            let rates = Rates { disk: 1e9, compute: 1e9 };
            RepairEstimate::of(&source, kept, tokens, passes(sweeps), rates).operations
        };
        let (mut sweeps, mut rounding) = (0.0, 0.0);
        let bits = codes_of_repaired(&source).unwrap().bits;
        assert_eq!(bits.is_some(), is_written(name), "{name}");
        let spec = source.spec();
        for (layer, experts) in kept.range(..spec.layers.len()) {
            let moe = spec.moe_of(*layer).unwrap();
            let cost = RepairCost::of_layer(spec, moe, experts.len(), 1200, passes(1));
            sweeps += cost.sweep;
            rounding += bits.map_or(0.0, |bits| cost.in_codes(moe, bits).rounding);
        }
        assert_eq!(rounding > 0.0, is_written(name), "{name}");
        let (got, expected) = (estimate(3) - estimate(2), sweeps + rounding);
        assert!((got / expected - 1.0).abs() < 1e-6, "{name}: {got}, expected {expected}");
    });
}

#[test]
fn and_then_masked() {
    for_each(|name, fixture| {
        if !is_written(name) {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let request = Request { fixture, recipe: recipe(0.6), out: &out, resume: Resume::No };
        let report = run(request, &mut Silent).unwrap_or_else(|e| panic!("{name}: {e}"));
        check(name, fixture, &out, &report);
    });
}

#[test]
fn after_masks() {
    for_each(|name, fixture| {
        if !matches!(name, "fp8_block_qwen3_moe" | "int4_pack_deepseek_v3" | "mxfp4_gpt_oss") {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let mut recipe = recipe(0.7);
        recipe.weights.refit = Some("refit:keep_zeros=true".parse().unwrap());
        let request = Request { fixture, recipe, out: &out, resume: Resume::No };
        let result = run(request, &mut Silent);
        if !name.starts_with("fp8") {
            // More would round to zero.
            assert!(result.unwrap_err().to_string().contains("codes of four bits"), "{name}");
            return;
        }
        let report = result.unwrap_or_else(|e| panic!("{name}: {e}"));
        check(name, fixture, &out, &report);
        let refit = report.refit.unwrap();
        assert!(refit.summary.rounding.is_some() && refit.summary.changed > 0, "{name}");
    });
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

fn weights(out: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|end| end == "safetensors"));
    let mut files: Vec<_> = files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn stopped_and_resumed() {
    for_each(|name, fixture| {
        if !matches!(name, "fp8_block_qwen3_moe" | "int4_pack_deepseek_v3") {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let run = |out: &Path, resume, steps| {
            let mut progress = StopsAfter(Cell::new(steps));
            let request = Request { fixture, recipe: recipe(0.0), out, resume };
            run(request, &mut progress).map(|_| u64::MAX - progress.0.get())
        };
        let whole = scratch.path().join("whole");
        let steps = run(&whole, Resume::No, u64::MAX).unwrap() * 7 / 8;
        for eighth in [2, 4, 6] {
            let out = scratch.path().join(format!("out-{eighth}"));
            assert!(run(&out, Resume::No, steps * eighth / 8).unwrap_err().is_stop(), "{name}");
            run(&out, Resume::Yes, u64::MAX).unwrap();
            assert!(weights(&out) == weights(&whole), "{name}: stopped after {eighth} eighths");
        }
    });
}

#[test]
fn only_if_it_is_said() {
    for_each(|name, fixture| {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let recipe = Recipe { requantise: false, ..recipe(0.0) };
        let request = Request { fixture, recipe, out: &out, resume: Resume::No };
        let error = run(request, &mut Silent).unwrap_err();
        assert!(error.is_wrong_usage(), "{name}: {error}");
        let error = error.to_string();
        assert_eq!(error.contains("--requantise"), is_written(name), "{name}: {error}");
        assert!(!out.exists());
    });
}
