//! Experts that a list names.

use std::{fs, path::Path};

use moeprune::{
    Error, Execution, Job, OutputPlace, Pipeline, Recipe, Registry, Resume, Silent,
    checkpoint::{Checkpoint, verify},
    core::{Plan, Sparsity},
    plan, prune_listed, read_keep_list,
    recipe::Mtp,
};

use crate::scratch::{asset, recipe};

/// Layer 0 is dense, 1 and 2 have 12 experts in 4 groups, and so has 3, behind the decoder's; 4 experts
/// are selected for each token.
fn model() -> Checkpoint {
    Checkpoint::open(&asset("parity/deepseek_v3")).unwrap()
}

const FIRST: [usize; 8] = [0, 1, 3, 4, 6, 7, 9, 10];
const LAST: [usize; 8] = [1, 2, 4, 5, 7, 8, 10, 11];

/// A plan by a list, the stages and the recipe.
fn made(
    text: &str,
    mtp: Option<Mtp>,
    total: Option<f64>,
) -> Result<(Plan, Pipeline, Recipe), Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keep.json");
    fs::write(&path, text).unwrap();
    let source = model();
    let list = read_keep_list(&path, source.spec())?;
    let mut recipe = recipe(0.4, 0.2);
    recipe.experts.mtp = mtp;
    let total = total.map(|total| Sparsity::new(total).unwrap());
    let pipeline = Registry::built_in().keeping(list, source.spec(), &mut recipe, total)?;
    let plan =
        plan(&mut Job::new(&source, &pipeline, &Execution::cpu(), &mut Silent), &recipe, None)?;
    Ok((plan, pipeline, recipe))
}

/// The experts that each layer keeps.
fn kept(plan: &Plan) -> Vec<(usize, Vec<usize>)> {
    let sources = |layer: &moeprune::core::LayerPlan| {
        (layer.layer, layer.survivors.iter().map(|survivor| survivor.source).collect())
    };
    plan.layers.iter().map(sources).collect()
}

fn lists(third: &str) -> String {
    format!("{{\"2\": {LAST:?}, \"1\": {FIRST:?}{third}}}")
}

#[test]
fn what_a_list_names_stays() {
    let check = |text: &str, mtp: Option<Mtp>, expected: &[(usize, [usize; 8])]| {
        let (plan, ..) = made(text, mtp, None).unwrap();
        let got: Vec<(usize, Vec<usize>)> = kept(&plan).into_iter().take(expected.len()).collect();
        let expected: Vec<_> =
            expected.iter().map(|(layer, kept)| (*layer, kept.to_vec())).collect();
        assert_eq!(got, expected);
        assert_eq!(plan.unstructured, None);
        assert_eq!(plan.layers.len(), if mtp == Some(Mtp::Drop) { 2 } else { 3 });
    };
    check(&lists(""), None, &[(1, FIRST), (2, LAST)]);
    check(&lists(""), Some(Mtp::Drop), &[(1, FIRST), (2, LAST)]);
    check(&lists(&format!(", \"3\": {FIRST:?}")), None, &[(1, FIRST), (2, LAST), (3, FIRST)]);
    check(&lists(&format!(", \"mtp.0\": {FIRST:?}")), None, &[(1, FIRST), (2, LAST), (3, FIRST)]);
    check(&format!("{LAST:?}"), None, &[(1, LAST), (2, LAST)]);
    let (by_list, ..) = made(&lists(""), None, None).unwrap();
    let (by_plan, ..) = made(&serde_json::to_string(&by_list).unwrap(), None, None).unwrap();
    assert_eq!(kept(&by_plan), kept(&by_list));
}

#[test]
fn a_list_of_all_experts_removes_nothing() {
    let all: Vec<usize> = (0..12).collect();
    let (plan, _, recipe) = made(&format!("{all:?}"), Some(Mtp::Keep), None).unwrap();
    assert!(plan.layers.is_empty() && plan.unstructured.is_none());
    assert_eq!(recipe.experts.sparsity, Sparsity::ZERO);
}

#[test]
fn a_total_has_weights_zeroed_too() {
    let (plan, _, recipe) = made(&lists(""), None, Some(0.5)).unwrap();
    assert_eq!(plan.unstructured.unwrap().total_sparsity, 0.5);
    assert!((recipe.experts.sparsity.value() - 1.0 / 3.0).abs() < 1e-9);
}

#[test]
fn the_result_is_verified() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, out) = (model(), scratch.path().join("out"));
    let (plan, pipeline, recipe) = made(&lists(""), None, None).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&source, &pipeline, &cpu, &mut silent);
    let to = OutputPlace { origin: &source, path: &out, resume: Resume::No };
    let report = prune_listed(&mut job, to, &recipe).unwrap();
    assert_eq!(report.recipe.experts.criterion.name, "keep-list");
    let checked = verify(Path::new(&out), &source, Some(&plan)).unwrap();
    assert!(checked.passed(), "{:?}", checked.failures().collect::<Vec<_>>());
    assert_eq!(report.layers[2].kept, LAST);
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    let check = |text: &str, mtp: Option<Mtp>, expected: &str| {
        let error = made(text, mtp, None).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let second = |list: &str| format!("{{\"1\": {FIRST:?}, \"2\": {list}}}");
    check(&lists(", \"0\": [0]"), None, "layer 0 has no experts; leave it out");
    check(&lists(", \"4\": [0]"), None, "layer 4 does not exist; the model has layers 0 to 3");
    check(&format!("{{\"1\": {FIRST:?}}}"), None, "leaves out layer 2, which has experts");
    check(&second("[0, 1, 3, 4, 6, 7, 9, 12]"), None, "layer 2 has experts 0 to 11, and no 12");
    check(&second("[0, 0, 3, 4, 6, 7, 9, 10]"), None, "layer 2 names expert 0 twice");
    check(&second("[1, 0, 3, 4, 6, 7, 9, 10]"), None, "layer 2 names expert 1 before 0");
    check(&second("[0, 3, 6]"), None, "layer 2 keeps 3 experts, but every token is routed to 4");
    check(&second("[0, 3, 6, 9]"), None, "keep at least 2 per group, 8 in all");
    check(&second("[0, 1, 2, 3, 6, 7, 9, 10]"), None, "group 0 would keep 3 experts of 3");
    check(&second("[0, 1, 3, 4, 6, 7, 9]"), None, "keep a multiple of 4");
    let twice = format!(", \"3\": {FIRST:?}, \"mtp.0\": {FIRST:?}");
    check(&lists(&twice), None, "names layer 3 twice, by its number and as `mtp.0`");
    let all: Vec<usize> = (0..12).collect();
    check(
        &lists(&format!(", \"3\": {all:?}")),
        None,
        "layer 3 is behind the decoder's and keeps 12",
    );
    let named = lists(&format!(", \"3\": {FIRST:?}"));
    check(&named, Some(Mtp::Drop), "is to be dropped; leave it out of the list");
    check(&named, Some(Mtp::Keep), "is to be kept as it is; leave it out of the list");
    check(&lists(""), Some(Mtp::Keep), "would have 12 experts and the others 8");
    check("{\"1\": [0", None, "is not JSON");
    check("{\"format\": 1}", None, "is not a plan");
}
