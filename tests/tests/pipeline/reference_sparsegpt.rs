//! The published SparseGPT code, through the whole pipeline.

use moeprune::{
    Recipe,
    checkpoint::Checkpoint,
    core::Sparsity,
    model::{Compute, LanguageModel},
};

use crate::{
    reference_masks::Reference,
    scratch::{run, widened},
};

/// Weights are compared with this share of the largest of their matrix: f32 sums in another order,
/// through the layers before.
const TOLERANCE: f32 = 2e-4;

/// On weights in f32, as the reference keeps them: what a layer is changed to is what the next one's
/// inputs come from.
fn check(model: &str, reference: &str) {
    let reference = Reference::read(reference);
    let scratch = tempfile::tempdir().unwrap();
    let model = widened(&format!("parity/{model}"), scratch.path());
    let out = scratch.path().join("out");
    let mut recipe = Recipe::reference();
    recipe.weights.ratio = Some(Sparsity::new(0.5).unwrap());
    recipe.weights.scorer = "sparsegpt:threshold=reference,least_tokens=1".parse().unwrap();
    recipe.calibration.samples = 8;
    recipe.calibration.sequence_len = 64;
    let report = run(&model, &out, &reference.calibration(scratch.path()), &recipe).unwrap();
    assert_eq!(report.scored_linears, 0);

    let pruned = Checkpoint::open(&out).unwrap();
    let tensors = reference.tensors();
    let (mut compared, mut flipped, mut weights) = (0, 0, 0);
    for name in tensors.names().into_iter().filter_map(|name| name.strip_prefix("mask.")) {
        let got = pruned.tensor_by_name(name).unwrap();
        let mask = reference.mask(name, got.shape()[1]);
        let got = got.to_f32().unwrap();
        let expected = reference.f32s(&format!("weight.{name}"));
        let largest = expected.iter().fold(0.0_f32, |most, w| most.max(w.abs()));
        for ((got, expected), pruned) in got.iter().zip(&expected).zip(&mask) {
            if (*got == 0.0) != *pruned {
                flipped += 1;
            } else {
                let off = (got - expected).abs();
                assert!(off <= TOLERANCE * largest, "{name}: {got}, reference {expected}");
            }
        }
        weights += got.len();
        compared += 1;
    }
    assert!(compared > 80, "only {compared} masks in the reference");
    assert_eq!(flipped, 0, "of {weights} weights");

    let language_model = LanguageModel::load(&pruned, pruned.spec(), &Compute::cpu()).unwrap();
    let logits = language_model.logits(&reference.ids("input_ids")).unwrap();
    let got = logits.iter().flat_map(|l| l.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    for (got, expected) in got.zip(reference.f32s("logits")) {
        assert!((got - expected).abs() < 1e-3, "logit {got}, reference {expected}");
    }
}

#[test]
fn mixtral_sparsegpt_50() {
    check("mixtral", "mixtral_sparsegpt50_upstream");
}

#[test]
fn arctic_sparsegpt_50() {
    check("arctic", "arctic_sparsegpt50_upstream");
}
