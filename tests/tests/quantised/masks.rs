//! Weights zeroed in codes.

use std::{fs, path::Path};

use candle_core::DType;
use moeprune::{
    Execution, FromRecipe as _, Job, OutputPlace, Pipeline, Progress, Recipe, Report, Resume,
    Silent,
    checkpoint::{Checkpoint, verify},
    core::Sparsity,
    prune,
};
use moeprune_model::Compute;

use crate::fixtures::{Fixture, for_each};

/// Half of what the Linears have, by Wanda with one ratio.
fn recipe() -> Recipe {
    let mut recipe = Recipe::arctic();
    (recipe.sparsity, recipe.experts.sparsity) = (Sparsity::new(0.5).unwrap(), Sparsity::ZERO);
    recipe.weights.allocation = "uniform".into();
    (recipe.calibration.samples, recipe.calibration.sequence_len) = (4, 16);
    recipe
}

pub(crate) fn tokens(directory: &Path) -> std::path::PathBuf {
    let block = |first: usize| (0..16).map(|at| (first + 7 * at) % 128).collect::<Vec<_>>();
    let lines = (0..8).map(|at| format!("{{\"tokens\":{:?}}}\n", block(13 * at)));
    let path = directory.join("tokens.jsonl");
    fs::write(&path, lines.collect::<String>()).unwrap();
    path
}

fn run(fixture: &Fixture, recipe: &Recipe, out: &Path) -> Result<Report, moeprune::Error> {
    run_on(&Execution::cpu(), &mut Silent, fixture, recipe, out)
}

fn run_on(
    execution: &Execution,
    progress: &mut dyn Progress,
    fixture: &Fixture,
    recipe: &Recipe,
    out: &Path,
) -> Result<Report, moeprune::Error> {
    let source = Checkpoint::open(&fixture.dir)?;
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    let to = OutputPlace { origin: &source, path: out, resume: Resume::No };
    let text = tokens(out.parent().unwrap());
    prune(&mut Job::new(&source, &pipeline, execution, progress), to, &text, recipe)
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

/// A progress that keeps what is noted.
#[derive(Debug, Default)]
pub(crate) struct Notes(pub(crate) Vec<String>);

impl Progress for Notes {
    fn note(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }
}

/// As on a device: the forward pass is another, the zeros go into the codes all the same.
#[test]
fn half_of_the_weights_where_codes_are_decoded_on_the_host() {
    let execution = Execution::on(Compute::cpu_in(DType::BF16), None);
    for_each(|name, fixture| {
        let scratch = tempfile::tempdir().unwrap();
        let (out, mut notes) = (scratch.path().join("out"), Notes::default());
        let report = run_on(&execution, &mut notes, fixture, &recipe(), &out);
        let achieved = report.unwrap_or_else(|e| panic!("{name}: {e}")).sparsity.achieved.linears;
        assert!((0.45..0.6).contains(&achieved), "{name}: {achieved}");
        let source = Checkpoint::open(&fixture.dir).unwrap();
        let checked = verify(&out, &source, None).unwrap();
        assert!(checked.passed(), "{name}: {:?}", checked.failures().collect::<Vec<_>>());
        let said = notes.0.iter().filter(|note| note.contains("are decoded on the host"));
        assert_eq!(said.count(), 1, "{name}: {:?}", notes.0);
    });
}
