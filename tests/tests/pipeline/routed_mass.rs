//! What a token's experts weigh together, before experts go and after.

use moeprune::{
    Calibration,
    checkpoint::Checkpoint,
    core::{Observation, REPORT_TEXT_FILE},
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
    assert!(got.after > got.before, "{model}: {got:?}");
    for layer in &report.layers {
        assert_eq!(layer.routed_mass.is_some(), layer.kept.len() < layer.experts_before, "{model}");
    }
}

#[test]
fn grows_where_weights_are_not_renormalised() {
    check("parity/qwen2_moe_mixed", 1, true);
    check("parity/phimoe", 0, true);
}

#[test]
fn is_not_reported_where_it_is_always_the_same() {
    check("parity/mixtral", 0, false);
    check("parity/deepseek_v3", 1, false);
}
