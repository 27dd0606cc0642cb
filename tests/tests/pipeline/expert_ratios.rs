//! A plan in which single experts have their own ratios.

use moeprune::{
    Calibration, Execution, FromRecipe, Inputs, Job, Pipeline, Resume, Run, Silent, apply,
    checkpoint::{Checkpoint, count_zeros, verify},
    core::{ExpertRatio, LinearId, MlpProjection, Plan, TensorId, TensorSource},
    plan,
};

use crate::scratch::{asset, recipe, tokens};

fn edited(ratios: &[(usize, usize, f64)]) -> Result<(Checkpoint, tempfile::TempDir), String> {
    let scratch = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&asset("parity/arctic")).unwrap();
    let mut recipe = recipe(0.5, 0.25);
    recipe.weights.allocation = "uniform".into();
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let text = tokens(scratch.path(), 8, 64, source.spec().vocab as u64);
    let (on, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&source, &pipeline, &on, &mut silent);
    let mut plan: Plan = plan(&mut job, &recipe, None).unwrap();
    let survivor = |layer: usize, place: usize| plan.layers[layer].survivors.get(place);
    let named = ratios.iter().map(|&(layer, place, ratio)| {
        let expert = survivor(layer, place).map_or(place, |s| s.source);
        ExpertRatio { layer, expert, ratio }
    });
    let named: Vec<ExpertRatio> = named.collect();
    plan.unstructured.as_mut().unwrap().expert_ratios = named;
    let out = scratch.path().join("out");
    let run = Run::claim(&out, &source, Resume::No).unwrap();
    let calibration = Calibration::read(&text, &source, &recipe).unwrap();
    let inputs = Inputs::Calibration(&calibration);
    apply(&mut job, run, &plan, inputs).map_err(|error| error.to_string())?;
    let verified = verify(&out, &source, Some(&plan)).unwrap();
    let failures: Vec<_> = verified.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");
    Ok((Checkpoint::open(&out).unwrap(), scratch))
}

fn share(model: &Checkpoint, layer: usize, expert: usize) -> f64 {
    let of = |projection| {
        let id = TensorId::linear(layer, LinearId::Expert(expert, projection));
        let tensor = model.tensor(id).unwrap();
        (count_zeros(&tensor).unwrap(), tensor.elements())
    };
    let (zeros, all) =
        MlpProjection::ALL.map(of).iter().fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
    zeros as f64 / all as f64
}

#[test]
fn experts_may_be_sparser_or_denser_than_their_layer() {
    let (model, _scratch) = edited(&[(0, 1, 0.75), (1, 2, 0.0)]).unwrap();
    let near = |layer, expert, expected: f64| {
        let share = share(&model, layer, expert);
        assert!((share - expected).abs() < 2e-3, "layer {layer} expert {expert}: {share}");
    };
    near(0, 1, 0.75);
    near(1, 2, 0.0);
    // The others have what reaches the total from what experts leave.
    near(0, 0, share(&model, 2, 0));
}

#[test]
fn what_is_no_ratio_of_an_expert_is_refused() {
    let refused = |ratios: &[(usize, usize, f64)], expected: &str| {
        let error = edited(ratios).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    refused(&[(0, 1, 1.0)], "sparsity must be at least 0 and below 1");
    refused(&[(0, 1, 0.5), (0, 1, 0.5)], "twice");
    refused(&[(0, 10_000, 0.5)], "there is none");
}
