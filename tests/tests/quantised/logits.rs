//! What quantised models compute, whole and without some of their experts.

use std::fs;

use candle_core::{DType, Tensor};
use moeprune::{
    Execution, Job, OutputPlace, Recipe, Registry, Resume, Silent,
    checkpoint::{Checkpoint, verify},
    core::Sparsity,
    prune_listed, read_keep_list,
};
use moeprune_model::{Compute, LanguageModel};

use crate::fixtures::{Fixture, for_each};

fn assert_logits(name: &str, checkpoint: &Checkpoint, fixture: &Fixture, expected: &str) {
    assert_logits_on(&Compute::cpu(), name, checkpoint, fixture, expected);
}

fn assert_logits_on(
    compute: &Compute,
    name: &str,
    checkpoint: &Checkpoint,
    fixture: &Fixture,
    expected: &str,
) {
    let model = LanguageModel::load(checkpoint, checkpoint.spec(), compute);
    let model = model.unwrap_or_else(|e| panic!("{name}: {e}"));
    let logits = model.logits(&fixture.input_ids()).unwrap();
    let numbers = |of: &Tensor| of.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
    let got: Vec<f32> = logits.iter().flat_map(|of| numbers(of).unwrap()).collect();
    let expected = fixture.floats(expected);
    assert_eq!(got.len(), expected.len(), "{name}");
    let differences = got.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    let largest = differences.fold(0.0_f32, f32::max);
    assert!(largest < 1e-4, "{name}: {largest}");
}

#[test]
fn equal_the_reference() {
    for_each(|name, fixture| {
        let checkpoint = Checkpoint::open(&fixture.dir).unwrap();
        assert_logits(name, &checkpoint, fixture, "logits");
    });
}

/// As on a device, where weights are held in the type they are stored in: codes are decoded into the type
/// that is computed in.
#[test]
fn equal_the_reference_in_another_type() {
    for_each(|name, fixture| {
        let checkpoint = Checkpoint::open(&fixture.dir).unwrap();
        let compute = Compute::cpu_in(DType::F64);
        assert_logits_on(&compute, name, &checkpoint, fixture, "logits");
    });
}

/// Prunes a model to the experts that a list names.
fn cut(fixture: &Fixture, out: &std::path::Path) {
    let source = Checkpoint::open(&fixture.dir).unwrap();
    let list = out.with_extension("json");
    fs::write(&list, serde_json::to_string(&fixture.kept()).unwrap()).unwrap();
    let list = read_keep_list(&list, source.spec()).unwrap();
    let mut recipe = Recipe::built_in("arctic").unwrap();
    (recipe.sparsity, recipe.experts.sparsity) = (Sparsity::ZERO, Sparsity::ZERO);
    let pipeline = Registry::built_in().keeping(list, source.spec(), &mut recipe, None).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&source, &pipeline, &cpu, &mut silent);
    let to = OutputPlace { origin: &source, path: out, resume: Resume::No };
    prune_listed(&mut job, to, &recipe).unwrap();
}

#[test]
fn equal_the_reference_without_some_experts() {
    for_each(|name, fixture| {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        cut(fixture, &out);
        let source = Checkpoint::open(&fixture.dir).unwrap();
        let pruned = Checkpoint::open(&out).unwrap();
        assert_logits(name, &pruned, fixture, "pruned.logits");
        let checked = verify(&out, &source, None).unwrap();
        assert!(checked.passed(), "{name}: {:?}", checked.failures().collect::<Vec<_>>());
    });
}
