//! An observation.

use moeprune::{
    Execution, FromRecipe, Job, Pipeline, Recipe, Silent,
    capture::{observation_sha256, read_observation, write_observation},
    checkpoint::Checkpoint,
    core::Observation,
    plan,
};

use super::{
    Place, Target, bounded,
    plan::{apply_and_verify, small_checkpoint, small_observation},
};

/// An observation file, read, written again, added to itself, and planned and applied with as if
/// it were of a small Mixtral.
#[derive(Debug)]
pub struct ObservationFile {
    place: Place,
    checkpoint: Checkpoint,
    recipe: Recipe,
}

impl Target for ObservationFile {
    const NAME: &'static str = "observation";

    fn new() -> Self {
        let place = Place::new();
        let checkpoint = small_checkpoint(&place);
        let recipe = "sparsity = 0.5\n[experts]\nsparsity = 0.25\nsimilarity = \"mixed\"\n\
                      ";
        Self { place, checkpoint, recipe: Recipe::from_toml(recipe).expect("is a recipe") }
    }

    fn valid(&self) -> Vec<(&'static str, Vec<u8>)> {
        let written = |observation: &Observation| {
            let path = self.place.path("valid");
            write_observation(observation, &path).expect("is consistent");
            std::fs::read(path).expect("reads")
        };
        let whole = small_observation(&self.checkpoint);
        let mut one_site = whole.clone();
        one_site.layers.truncate(1);
        one_site.layers[0].inputs.retain(|site, _| site.expert() == Some(2));
        vec![("whole", written(&whole)), ("one_site", written(&one_site))]
    }

    fn run(&self, bytes: &[u8]) -> Result<(), String> {
        let Self { place, checkpoint, recipe } = self;
        let path = place.write("observation.safetensors", bytes);
        let read = bounded(bytes.len(), || read_observation(&path));
        let mut observation = read.map_err(|error| place.redacted(error))?;
        write_observation(&observation, &path).expect("was accepted");
        let again = read_observation(&path).expect("was written by the same code");
        assert_eq!(again, observation);
        assert_eq!(observation_sha256(&again), observation_sha256(&observation));
        observation.add(&again).map_err(|error| error.to_string())?;

        observation.model_fingerprint = checkpoint.fingerprint().expect("reads");
        let pipeline = Pipeline::from_recipe(recipe).unwrap();
        let (cpu, mut silent) = (Execution::cpu(), Silent);
        let mut job = Job::new(checkpoint, &pipeline, &cpu, &mut silent);
        let Ok(plan) = plan(&mut job, recipe, Some(&observation)) else {
            return Ok(()); // of another model
        };
        // Layers without statistics for a Linear are refused only here.
        drop(apply_and_verify(place, checkpoint, &plan, recipe, &observation));
        Ok(())
    }
}
