//! Experts that stay, repaired in the encoding that they are stored in.

use std::{fs, path::Path};

use moeprune::{
    Error, Execution, Job, OutputPlace, Progress, Recipe, Registry, Report, Resume, Silent,
    checkpoint::{Checkpoint, verify},
    core::Sparsity,
    engine::REPAIRABLE_ENCODINGS,
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
    (recipe.calibration.samples, recipe.calibration.sequence_len) = (40, 16);
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
    let lines = (0..60).map(|_| format!("{{\"tokens\":{:?}}}\n", block()));
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

/// The parts that have other weights or scales than in the source, by their names.
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
        println!(
            "{name} {}: {:?} {held_out:?} {rounding:?} rev {} {:?}",
            layer.repair.layer,
            layer.repair.errors,
            layer.repair.reverted,
            layer.repair.experts.iter().map(|e| (e.outcome, e.ridge)).collect::<Vec<_>>()
        );
        assert!(rounding.before > 0.0 && rounding.after > 0.0, "{name}: {rounding:?}");
    }

    let pruned = Checkpoint::open(out).unwrap();
    let model = LanguageModel::load(&pruned, pruned.spec(), &Compute::cpu()).unwrap();
    for logits in model.logits(&fixture.input_ids()).unwrap() {
        let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()), "{name}");
    }
    let parts = repair.layers.iter().flat_map(|layer| layer.parts.iter().flatten());
    parts.filter(|part| !part.companions.is_empty()).count()
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
                println!("{name}: {parts}");
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
