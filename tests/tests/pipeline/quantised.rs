//! Quantised models: whole experts go, by router distance or a list, byte for byte.

use std::{collections::BTreeMap, fs, path::Path};

use moeprune::{
    Error, Execution, FromRecipe as _, Inputs, Job, OutputPlace, Pipeline, Recipe, Registry,
    Resume, Run, Silent, apply,
    checkpoint::{Checkpoint, verify},
    core::Plan,
    plan, prune_listed, read_keep_list,
};
use moeprune_tests::quantised_models;
use sha2::{Digest, Sha256};

use crate::scratch::recipe;

fn model(name: &str) -> Checkpoint {
    Checkpoint::open(&quantised_models::folder(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn made(source: &Checkpoint, recipe: &Recipe) -> Result<Plan, Error> {
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    plan(&mut Job::new(source, &pipeline, &Execution::cpu(), &mut Silent), recipe, None)
}

#[track_caller]
fn check_verified(out: &Path, source: &Checkpoint) {
    let verified = verify(out, source, None).unwrap();
    assert!(verified.passed(), "{:?}", verified.failures().collect::<Vec<_>>());
}

#[test]
fn router_distance_decides() {
    for name in quantised_models::names() {
        let name = name.as_str();
        let (source, scratch) = (model(name), tempfile::tempdir().unwrap());
        let recipe = recipe(0.2, 0.2);
        let plan = made(&source, &recipe).unwrap_or_else(|e| panic!("{name}: {e}"));
        let out = scratch.path().join("out");
        let pipeline = Pipeline::from_recipe(&recipe).unwrap();
        let run = Run::claim(&out, &source, Resume::No).unwrap();
        let (cpu, mut silent) = (Execution::cpu(), Silent);
        let mut job = Job::new(&source, &pipeline, &cpu, &mut silent);
        apply(&mut job, run, &plan, Inputs::None).unwrap_or_else(|e| panic!("{name}: {e}"));
        check_verified(&out, &source);
        let experts = |of: &Checkpoint| -> usize {
            of.spec().layers.iter().filter_map(|layer| layer.moe()).map(|moe| moe.experts).sum()
        };
        assert!(experts(&Checkpoint::open(&out).unwrap()) < experts(&source), "{name}");
    }
}

#[test]
fn a_list_decides_and_every_byte_is_as_expected() {
    for name in quantised_models::names() {
        let name = name.as_str();
        let (source, scratch) = (model(name), tempfile::tempdir().unwrap());
        let expected = quantised_models::expected(name);
        let list = scratch.path().join("keep.json");
        fs::write(&list, expected["kept"].to_string()).unwrap();
        let list = read_keep_list(&list, source.spec()).unwrap();
        let mut recipe = recipe(0.5, 0.5);
        let pipeline =
            Registry::built_in().keeping(list, source.spec(), &mut recipe, None).unwrap();
        let (cpu, mut silent) = (Execution::cpu(), Silent);
        let mut job = Job::new(&source, &pipeline, &cpu, &mut silent);
        let path = &scratch.path().join("out");
        let to = OutputPlace { origin: &source, path, resume: Resume::No };
        prune_listed(&mut job, to, &recipe).unwrap_or_else(|e| panic!("{name}: {e}"));
        check_verified(path, &source);
        let pruned = Checkpoint::open(path).unwrap();
        let tensors: BTreeMap<String, (String, String, String, Vec<usize>)> =
            serde_json::from_value(expected["pruned_tensors"].clone()).unwrap();
        assert!(pruned.tensors().count() == tensors.len(), "{name}");
        for (tensor, (_, hash, dtype, shape)) in tensors {
            let got = pruned.tensor_by_name(&tensor).unwrap();
            let sha256 = Sha256::digest(got.bytes());
            let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!((sha256, got.dtype().to_string()), (hash, dtype), "{name}: {tensor}");
            assert_eq!(got.shape(), shape, "{name}: {tensor}");
        }
    }
}
