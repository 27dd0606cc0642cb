//! An observation.

use moeprune::{
    Execution, FromRecipe, Job, Pipeline, Recipe, Silent,
    capture::{
        ObservationPart, PartHead, merge_parts, observation_sha256, read_observation,
        write_observation, write_part,
    },
    checkpoint::Checkpoint,
    core::{
        CorpusTag, LayerObservation, Observation, PartOf,
        observation::{ExactLayer, ExactSums},
    },
    plan,
};

use super::{
    Place, Target, bounded,
    plan::{apply_and_verify, small_checkpoint, small_observation},
};

/// An observation file, read, written again, added to itself, and planned and applied with as if
/// it were of a small Mixtral; or a part of one, merged as if it were all parts.
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
        let part = self.place.path("valid");
        write_part(&part_of(&one_site), &part).expect("is consistent");
        let part = std::fs::read(part).expect("reads");
        vec![("whole", written(&whole)), ("one_site", written(&one_site)), ("part", part)]
    }

    fn run(&self, bytes: &[u8]) -> Result<(), String> {
        let Self { place, checkpoint, recipe } = self;
        let path = place.write("observation.safetensors", bytes);
        if let Ok(merged) = bounded(bytes.len(), || merge_parts(&[&path])) {
            write_observation(&merged, &path).expect("was accepted");
            assert_eq!(read_observation(&path).expect("was written by the same code"), merged);
            return Ok(());
        }
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

/// The sums of an observation, as those of the only part.
fn part_of(observation: &Observation) -> ObservationPart {
    let exact = |layer: &LayerObservation| {
        let mut exact = ExactLayer {
            routing: layer.routing.clone().map(ExactSums::new),
            inputs: layer
                .inputs
                .iter()
                .map(|(&site, sums)| (site, ExactSums::new(sums.clone())))
                .collect(),
        };
        exact.routing.iter_mut().for_each(ExactSums::close);
        exact.inputs.values_mut().for_each(ExactSums::close);
        exact
    };
    let corpus = CorpusTag {
        name: "text".into(),
        sha256: "00".repeat(32),
        samples: 1,
        sequence_len: 8,
        seed: 0,
        repeated: 1,
        read: None,
    };
    let model_fingerprint = observation.model_fingerprint.clone();
    let head = PartHead { model_fingerprint, corpus, part: PartOf::WHOLE, compute: "f32".into() };
    ObservationPart { head, layers: observation.layers.iter().map(exact).collect() }
}
