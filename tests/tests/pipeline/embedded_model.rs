//! The embedded model is as good as its README says, and survives the default pipeline.

use moeprune::{Evaluation, Execution, Recipe, Silent, checkpoint::Checkpoint, evaluate};

use crate::scratch::{asset, run};

fn strict_match(model: &Checkpoint, limit: usize) -> f64 {
    let what = Evaluation {
        task: "gsm8k_zeroshot",
        data: &asset("nano/data/test.jsonl"),
        limit: Some(limit),
        fewshot: None,
        fewshot_data: None,
        batch: 64,
        sequence_len: None,
    };
    evaluate(model, &what, &Execution::cpu(), &mut Silent).unwrap().metric("strict-match").unwrap()
}

#[test]
fn dense_and_at_40_percent() {
    let dense = Checkpoint::open(&asset("nano")).unwrap();
    let accuracy = strict_match(&dense, 100);
    assert!(accuracy >= 0.95, "dense: {accuracy}");

    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let mut recipe = Recipe::arctic();
    recipe.calibration.samples = 16;
    let calibration = asset("nano/data/calibration.jsonl");
    let report = run(&asset("nano"), &out, &calibration, &recipe).unwrap();
    assert!((report.sparsity.achieved.linears - 0.4).abs() < 5e-4);
    assert!(report.layers.iter().all(|layer| layer.kept.len() == 26));
    let accuracy = strict_match(&Checkpoint::open(&out).unwrap(), 100);
    assert!(accuracy >= 0.85, "at 40 %: {accuracy}");
}
