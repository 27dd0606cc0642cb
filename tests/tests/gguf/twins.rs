//! One observation and one plan for a model in safetensors and in GGUF.

use std::{fs, path::Path};

use moeprune::{
    Calibration, Execution, Inputs, Job, Pipeline, Recipe, Registry, Resume, Run, Silent, apply,
    checkpoint::{Checkpoint, verify},
    core::{Fingerprint, Observation, Plan, SameModel, Sparsity},
    plan,
};

use crate::{
    cut::keep,
    fixtures::{KEPT, assets},
};

fn models() -> (Checkpoint, Checkpoint) {
    let open = |name: &str| Checkpoint::open(&assets().join(name)).unwrap();
    (open("mix32"), open("mix32-MX.gguf"))
}

/// A recipe that takes a quarter of the experts, and nothing else, by `criterion`.
fn recipe(criterion: &str) -> Recipe {
    let mut recipe = Recipe::arctic();
    let quarter = Sparsity::new(0.25).unwrap();
    (recipe.sparsity, recipe.experts.sparsity) = (quarter, quarter);
    recipe.experts.criterion = criterion.into();
    recipe.calibration.samples = 4;
    recipe.calibration.sequence_len = 32;
    recipe
}

fn observed(model: &Checkpoint, recipe: &Recipe) -> Observation {
    let text = tempfile::NamedTempFile::new().unwrap();
    fs::write(text.path(), "What one expert does not know, another may. ".repeat(40)).unwrap();
    let calibration = Calibration::read(text.path(), model, recipe).unwrap();
    let pipeline = Registry::built_in().pipeline(recipe).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    Job::new(model, &pipeline, &cpu, &mut silent).observe(&calibration).unwrap()
}

fn planned(model: &Checkpoint, recipe: &Recipe, observation: Option<&Observation>) -> Plan {
    let pipeline: Pipeline = Registry::built_in().pipeline(recipe).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    plan(&mut Job::new(model, &pipeline, &cpu, &mut silent), recipe, observation).unwrap()
}

fn kept(plan: &Plan) -> Vec<Vec<usize>> {
    let of_layer = |layer: &moeprune::core::LayerPlan| {
        layer.survivors.iter().map(|survivor| survivor.source).collect()
    };
    plan.layers.iter().map(of_layer).collect()
}

#[test]
fn are_known_by_their_routers() {
    let (numbers, file) = models();
    let (a, b) = (numbers.fingerprint().unwrap(), file.fingerprint().unwrap());
    assert_eq!(Fingerprint::compare(&a, &b), SameModel::RoutersAlike);
}

/// The experts are the same by what the routers say, and by what was observed of the model in numbers.
#[test]
fn lose_the_same_experts() {
    let (numbers, file) = models();
    for criterion in ["stun", "frequency", "reap"] {
        let recipe = recipe(criterion);
        let observation = (criterion != "stun").then(|| observed(&numbers, &recipe));
        let plans = [&numbers, &file].map(|model| planned(model, &recipe, observation.as_ref()));
        assert_eq!(kept(&plans[0]), kept(&plans[1]), "{criterion}");
    }
}

fn applied(model: &Checkpoint, plan: &Plan, out: &Path) {
    let recipe = recipe("stun");
    let pipeline = Registry::built_in().pipeline(&recipe).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let run = Run::claim(out, model, Resume::No).unwrap();
    apply(&mut Job::new(model, &pipeline, &cpu, &mut silent), run, plan, Inputs::None).unwrap();
    let report = verify(out, model, Some(plan)).unwrap();
    assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
}

/// A plan that was made of one is applied to the other.
#[test]
fn share_a_plan() {
    let (numbers, file) = models();
    let scratch = tempfile::tempdir().unwrap();
    applied(&file, &planned(&numbers, &recipe("stun"), None), &scratch.path().join("a.gguf"));
    applied(&numbers, &planned(&file, &recipe("stun"), None), &scratch.path().join("b"));
}

/// What is cut out of one is the twin of what is cut out of the other.
#[test]
fn stay_twins() {
    let scratch = tempfile::tempdir().unwrap();
    let (a, b) = (scratch.path().join("a"), scratch.path().join("b.gguf"));
    keep(&assets().join("mix32"), &a, &KEPT).unwrap();
    keep(&assets().join("mix32-MX.gguf"), &b, &KEPT).unwrap();
    let [a, b] = [a, b].map(|path| Checkpoint::open(&path).unwrap().fingerprint().unwrap());
    assert_eq!(Fingerprint::compare(&a, &b), SameModel::RoutersAlike);
}
