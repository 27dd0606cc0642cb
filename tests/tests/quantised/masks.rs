//! Weights zeroed in codes.

use std::{fs, path::Path};

use moeprune::{
    Execution, FromRecipe as _, Job, OutputPlace, Pipeline, Recipe, Report, Resume, Silent,
    checkpoint::{Checkpoint, verify},
    core::Sparsity,
    prune,
};

use crate::fixtures::{Fixture, for_each};

/// Half of what the Linears have, by Wanda with one ratio.
fn recipe() -> Recipe {
    let mut recipe = Recipe::arctic();
    (recipe.sparsity, recipe.experts.sparsity) = (Sparsity::new(0.5).unwrap(), Sparsity::ZERO);
    recipe.weights.allocation = "uniform".into();
    (recipe.calibration.samples, recipe.calibration.sequence_len) = (4, 16);
    recipe
}

fn tokens(directory: &Path) -> std::path::PathBuf {
    let block = |first: usize| (0..16).map(|at| (first + 7 * at) % 128).collect::<Vec<_>>();
    let lines = (0..8).map(|at| format!("{{\"tokens\":{:?}}}\n", block(13 * at)));
    let path = directory.join("tokens.jsonl");
    fs::write(&path, lines.collect::<String>()).unwrap();
    path
}

fn run(fixture: &Fixture, recipe: &Recipe, out: &Path) -> Result<Report, moeprune::Error> {
    let source = Checkpoint::open(&fixture.dir)?;
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    let to = OutputPlace { origin: &source, path: out, resume: Resume::No };
    let text = tokens(out.parent().unwrap());
    prune(&mut Job::new(&source, &pipeline, &Execution::cpu(), &mut Silent), to, &text, recipe)
}

#[test]
fn half_of_the_weights_of_each() {
    for_each(|name, fixture| {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let report = run(fixture, &recipe(), &out).unwrap_or_else(|e| panic!("{name}: {e}"));
        let achieved = report.sparsity.achieved.linears;
        assert!((0.45..0.6).contains(&achieved), "{name}: {achieved}");
        let source = Checkpoint::open(&fixture.dir).unwrap();
        let checked = verify(&out, &source, None).unwrap();
        assert!(checked.passed(), "{name}: {:?}", checked.failures().collect::<Vec<_>>());
    });
}
