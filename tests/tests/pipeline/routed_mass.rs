//! What a token's experts weigh together, before experts go and after.

use moeprune::{
    Calibration, Execution, FromRecipe as _, Inputs, Job, Pipeline, Resume, Run, Silent, apply,
    checkpoint::Checkpoint,
    core::{Observation, REPORT_TEXT_FILE},
    plan,
};

use crate::scratch::{asset, observe, recipe, run, tokens};

/// The mean weight of a token's experts in a layer, from sums by expert.
fn mass(seen: &Observation, layer: usize) -> Option<f64> {
    let routing = seen.layers[layer].routing.as_ref()?;
    Some(routing.gate_sums.iter().sum::<f64>() / routing.tokens as f64)
}

/// Prunes a quarter of the experts, and holds the masses that the report has of the first layer with
/// experts to observations of the model before and of the pruned one: what reaches that layer does not
/// depend on the experts of others.
fn check(model: &str, first: usize, changes: bool) {
    let scratch = tempfile::tempdir().unwrap();
    let mut recipe = recipe(0.3, 0.25);
    recipe.calibration.sequence_len = 16;
    let vocab = Checkpoint::open(&asset(model)).unwrap().spec().vocab as u64;
    let text = tokens(scratch.path(), 8, 16, vocab);
    let out = scratch.path().join("out");
    let report = run(&asset(model), &out, &text, &recipe).unwrap();
    let markdown = std::fs::read_to_string(out.join(REPORT_TEXT_FILE)).unwrap();
    assert_eq!(markdown.contains("## Routed mass"), changes, "{model}");
    let Some(got) = report.layers[first].routed_mass else {
        assert!(!changes, "{model}: the report has no mass");
        return;
    };
    assert!(changes, "{model}: the mass does not change");
    let source = Checkpoint::open(&asset(model)).unwrap();
    let calibration = Calibration::read(&text, &source, &recipe).unwrap();
    let before = mass(&observe(&source, &calibration).unwrap(), first).unwrap();
    // Behind other layers the inputs are those of the pruned model.
    let tolerance = if first == 0 { 1e-6 } else { 0.05 };
    assert!((got.before - before).abs() < tolerance * before, "{model}: {got:?}, {before}");
    assert!(got.after.unwrap() > got.before, "{model}: {got:?}");
    for layer in &report.layers {
        assert_eq!(layer.routed_mass.is_some(), layer.kept.len() < layer.experts_before, "{model}");
    }
}

#[test]
fn grows_where_weights_are_not_renormalised() {
    check("parity/qwen2_moe_mixed", 1, true);
    check("parity/phimoe", 0, true);
}

/// Removes a quarter of the experts and nothing else: the masses before are those of the observation, and
/// the report says why there are none after, and how to measure them.
fn check_experts_only(model: &str, changes: bool) {
    let scratch = tempfile::tempdir().unwrap();
    let mut recipe = recipe(0.25, 0.25);
    recipe.calibration.sequence_len = 16;
    let source = Checkpoint::open(&asset(model)).unwrap();
    let text = tokens(scratch.path(), 8, 16, source.spec().vocab as u64);
    let out = scratch.path().join("out");
    let report = run(&asset(model), &out, &text, &recipe).unwrap();
    let markdown = std::fs::read_to_string(out.join(REPORT_TEXT_FILE)).unwrap();
    assert_eq!(report.mass_unmeasured.is_some(), changes, "{model}");
    if let Some(why) = &report.mass_unmeasured {
        assert!(why.contains("the pruned model was not run; of the unpruned model"), "{why}");
        assert!(why.contains("`moeprune observe` on the pruned model"), "{why}");
        assert!(markdown.contains(why) && markdown.contains(" | not measured |"), "{markdown}");
    }
    let calibration = Calibration::read(&text, &source, &recipe).unwrap();
    let seen = observe(&source, &calibration).unwrap();
    for layer in &report.layers {
        let lost = layer.kept.len() < layer.experts_before;
        let got = layer.routed_mass;
        assert_eq!(got.is_some(), lost && changes, "{model}");
        let before = got.map(|mass| (mass.before, mass.after));
        assert_eq!(
            before,
            got.and_then(|_| mass(&seen, layer.index)).map(|mass| (mass, None)),
            "{model}"
        );
    }
}

#[test]
fn before_is_of_the_observation_where_nothing_else_is_run() {
    check_experts_only("parity/qwen2_moe_mixed", true);
    check_experts_only("parity/gemma4", true);
    check_experts_only("parity/deepseek_v3", false);
}

/// With a plan alone nothing is known, and the report says so.
#[test]
fn nothing_is_known_where_nothing_is_run() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, recipe) = (asset("parity/qwen2_moe_mixed"), recipe(0.25, 0.25));
    let source = Checkpoint::open(&source).unwrap();
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&source, &pipeline, &cpu, &mut silent);
    let plan = plan(&mut job, &recipe, None).unwrap();
    let claimed = Run::claim(&scratch.path().join("out"), &source, Resume::No).unwrap();
    let report = apply(&mut job, claimed, &plan, Inputs::None).unwrap();
    assert!(report.layers.iter().all(|layer| layer.routed_mass.is_none()));
    assert!(report.mass_unmeasured.unwrap().contains("was not run, nor was the model observed"));
}

#[test]
fn is_not_reported_where_it_is_always_the_same() {
    check("parity/mixtral", 0, false);
    check("parity/deepseek_v3", 1, false);
}
