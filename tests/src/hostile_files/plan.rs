//! A plan.

use std::{collections::BTreeMap, fs};

use moeprune::{
    Execution, FromRecipe, Inputs, Job, Pipeline, Recipe, Resume, Run, Silent, apply,
    checkpoint::{Checkpoint, verify},
    core::{InputMoments, LayerObservation, Observation, Plan, RoutingSums},
    plan, read_plan,
};
use serde::Deserialize;

use super::{Place, Target, bounded, models};

/// `plan.json` for a small Mixtral, read, applied with stored statistics, and verified.
#[derive(Debug)]
pub struct PlanFile {
    place: Place,
    checkpoint: Checkpoint,
    observation: Observation,
}

impl Target for PlanFile {
    const NAME: &'static str = "plan";

    fn new() -> Self {
        let place = Place::new();
        let checkpoint = small_checkpoint(&place);
        let observation = small_observation(&checkpoint);
        Self { place, checkpoint, observation }
    }

    fn valid(&self) -> Vec<(&'static str, Vec<u8>)> {
        let made = |recipe: &str| {
            let recipe = Recipe::from_toml(recipe).expect("is a recipe");
            let pipeline = Pipeline::from_recipe(&recipe).expect("names stages");
            let mut silent = Silent;
            let cpu = Execution::cpu();
            let mut job = Job::new(&self.checkpoint, &pipeline, &cpu, &mut silent);
            let plan = plan(&mut job, &recipe, Some(&self.observation));
            serde_json::to_vec(&plan.expect("fits")).expect("writes to memory")
        };
        let experts = "sparsity = 0.25\n[experts]\nsparsity = 0.25\n";
        let both = "sparsity = 0.5\n[experts]\nsparsity = 0.25\n";
        vec![
            ("experts_only", made(experts)),
            (
                "averaged",
                made(&format!("{experts}survivor = {{ name = \"nearest\", average_at_most = 3 }}")),
            ),
            ("merged", made(&format!("{experts}survivor = \"weighted-average\""))),
            ("ranked", made(&format!("{experts}criterion = \"reap\""))),
            ("owl", made(both)),
            ("magnitude", made(&format!("{both}[weights]\nscorer = \"magnitude\""))),
        ]
    }

    fn run(&self, bytes: &[u8]) -> Result<(), String> {
        let Self { place, checkpoint, observation } = self;
        let path = place.write("plan.json", bytes);
        let read = bounded(bytes.len(), || read_plan(&path));
        let plan = read.map_err(|error| place.redacted(error))?;
        let text = serde_json::to_string(&plan).expect("was read from JSON");
        let again: Plan = serde_json::from_str(&text).expect("was written by the same code");
        assert_eq!(again, plan);
        let recipe = Recipe::deserialize(&plan.recipe).map_err(|error| error.to_string())?;
        apply_and_verify(place, checkpoint, &plan, &recipe, observation)
    }
}

/// Two layers of four experts.
pub(super) fn small_checkpoint(place: &Place) -> Checkpoint {
    let model = models::mixtral(2, 4);
    place.write("model/config.json", &model.config);
    place.write("model/model.safetensors", models::shard(&model.tensors));
    Checkpoint::open(&place.model()).expect("opens")
}

/// Eight tokens, two for each expert. No expert runs with another.
pub(super) fn small_observation(checkpoint: &Checkpoint) -> Observation {
    let spec = checkpoint.spec();
    let layer = |l: usize| {
        let mut routing = RoutingSums::new(4, 1);
        routing.tokens = 8;
        routing.counts = vec![2; 4];
        for sums in
            [&mut routing.gate_sums, &mut routing.gated_output_norms, &mut routing.output_norms]
        {
            *sums = vec![1.0, 0.5, 1.5, 2.0];
        }
        let sites = spec.linears(l).into_iter().map(|linear| (linear.reads, linear.cols));
        let inputs: BTreeMap<_, _> = sites
            .map(|(site, features)| {
                let tokens = if site.expert().is_some() { 2 } else { 8 };
                let sum_squares = (0..features).map(|f| 1.0 + f as f64).collect();
                (site, InputMoments { tokens, calls: 1, sum_squares })
            })
            .collect();
        LayerObservation { routing: Some(routing), inputs }
    };
    Observation {
        model_fingerprint: checkpoint.fingerprint().expect("reads"),
        corpora: Vec::new(),
        layers: (0..spec.layers.len()).map(layer).collect(),
    }
}

/// What was applied without an error must verify.
pub(super) fn apply_and_verify(
    place: &Place,
    checkpoint: &Checkpoint,
    plan: &Plan,
    recipe: &Recipe,
    observation: &Observation,
) -> Result<(), String> {
    let out = place.path("pruned");
    let run = Run::claim(&out, checkpoint, Resume::No).expect("nothing is there");
    let pipeline = Pipeline::from_recipe(recipe).map_err(|error| error.to_string())?;
    let inputs = Inputs::Observation(observation);
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let applied = apply(&mut Job::new(checkpoint, &pipeline, &cpu, &mut silent), run, plan, inputs);
    if let Err(error) = applied {
        // Finished layers may be kept beside where the output would be.
        let _ = fs::remove_dir_all(place.path(".pruned.moeprune-partial"));
        assert!(!out.exists(), "{error}, but there is an output");
        return Err(place.redacted(error));
    }
    let verified = verify(&out, checkpoint, Some(plan)).expect("can be read");
    // A ratio may have been edited so that it does not reach the total; applying it says so.
    let failed = verified.checks.iter().find(|check| !check.passed && check.name != "sparsity");
    assert!(failed.is_none(), "applied but not as planned: {failed:?}");
    fs::remove_dir_all(&out).expect("removes");
    Ok(())
}
