//! Layers behind the decoder's, if a model has some: pruned, kept and dropped.

use std::path::Path;

use moeprune::{
    Execution, FromRecipe as _, Inputs, Job, Pipeline, Recipe, Resume, Run, Silent, apply,
    checkpoint::verify, plan, recipe::Mtp,
};
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{Plan, Sparsity};

/// Removes a share of the experts of a model that has layers behind the decoder's, under each policy.
///
/// Pruned, such layers have as many experts as those of the decoder that have most; kept, they are
/// refused if they have more; dropped, no tensor of them is left. What is written must be verified and
/// open again.
///
/// # Panics
/// With the first difference.
pub fn check(source: &Checkpoint, share: Sparsity, scratch: &Path) {
    if source.spec().extra.is_none() {
        return;
    }
    for (mtp, share) in
        [(Mtp::Prune, share), (Mtp::Keep, share), (Mtp::Keep, Sparsity::ZERO), (Mtp::Drop, share)]
    {
        let case = format!("{mtp:?} at {share:?}");
        let experts = source.spec().extra_moe().next().is_some();
        let refused = mtp == Mtp::Keep && share != Sparsity::ZERO && experts;
        match made(source, mtp, share) {
            Err(_) if refused => {}
            Err(error) => panic!("{case}: {error}"),
            Ok(_) if refused => panic!("{case}: is not refused"),
            Ok(plan) => check_applied(source, &plan, mtp, &scratch.join(&case)),
        }
    }
}

fn made(source: &Checkpoint, mtp: Mtp, share: Sparsity) -> Result<Plan, moeprune::Error> {
    let mut recipe = Recipe::arctic();
    (recipe.sparsity, recipe.experts.sparsity, recipe.experts.mtp) = (share, share, Some(mtp));
    let pipeline = Pipeline::from_recipe(&recipe)?;
    plan(&mut Job::new(source, &pipeline, &Execution::cpu(), &mut Silent), &recipe, None)
}

fn check_applied(source: &Checkpoint, plan: &Plan, mtp: Mtp, out: &Path) {
    let pipeline = Pipeline::from_recipe(&Recipe::arctic()).expect("a built-in recipe");
    let run = Run::claim(out, source, Resume::No).expect("a free place");
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(source, &pipeline, &cpu, &mut silent);
    apply(&mut job, run, plan, Inputs::None).unwrap_or_else(|error| panic!("{mtp:?}: {error}"));
    let report = verify(out, source, Some(plan)).expect("the result can be verified");
    assert!(report.passed(), "{mtp:?}: {:?}", report.failures().collect::<Vec<_>>());

    let pruned = Checkpoint::open(out).unwrap_or_else(|error| panic!("{mtp:?}: {error}"));
    let experts = |layer: usize| pruned.spec().moe_of(layer).map(|moe| moe.experts);
    let most = (0..pruned.spec().layers.len()).filter_map(experts).max();
    for (layer, moe) in pruned.spec().extra_moe() {
        assert_eq!(Some(moe.experts), most, "{mtp:?}: experts of layer {layer}");
    }
    let extra = source.tensors().filter(|tensor| source.is_extra(tensor));
    let is_left = |name: &str| pruned.tensors().any(|tensor| tensor.name == name);
    let left = extra.filter(|tensor| is_left(&tensor.name)).count();
    assert_eq!(left == 0, mtp == Mtp::Drop, "{mtp:?}: {left} tensors are left");
}
