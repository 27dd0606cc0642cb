//! A custom criterion for which experts go: those that matter, unless another expert is nearly
//! always there when they are.
//!
//! ```text
//! cargo run --release -p example-custom-criterion
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::path::Path;

use moeprune::{
    Calibration, Execution, Job, Recipe, Registry, Silent, Study,
    checkpoint::Checkpoint,
    compare::{Measures, Variant},
    core::{ExpertSaliency, LayerBehaviour, StageError},
};
use serde::{Deserialize, Serialize};

/// REAP's saliency times `(1 − shared)^sharpness`, where `shared` is the largest share of an
/// expert's tokens that went through one other expert too.
#[derive(Debug)]
struct Irreplaceable {
    sharpness: f64,
}

impl ExpertSaliency for Irreplaceable {
    fn saliency(&self, layer: &LayerBehaviour<'_>) -> Result<Vec<f64>, StageError> {
        let routing = layer.routing.ok_or("irreplaceable needs an observation")?;
        let n = layer.experts();
        let of = |expert: usize| {
            let tokens = routing.counts[expert].max(1) as f64;
            let together = routing.coactivation[expert * n..][..n].iter().max();
            let shared = together.map_or(0.0, |&together| together as f64 / tokens);
            let reap = routing.gated_output_norms[expert] / tokens;
            reap * (1.0 - shared).max(0.0).powf(self.sharpness)
        };
        Ok((0..n).map(of).collect())
    }
}

/// The keys that a recipe may set, and their defaults.
#[derive(Serialize, Deserialize)]
struct Parameters {
    sharpness: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { sharpness: 1.0 }
    }
}

const RECIPE: &str = r#"
sparsity = 0.5
[experts]
sparsity = 0.5
criterion = { name = "irreplaceable", sharpness = 2.0 }
[calibration]
samples = 16
sequence_len = 128
"#;

fn main() -> Result<(), StageError> {
    let mut registry = Registry::built_in();
    registry.add_saliency(
        "irreplaceable",
        "REAP's, less for experts that have a constant companion",
        |parameters: Parameters| Ok(Box::new(Irreplaceable { sharpness: parameters.sharpness })),
    );

    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano");
    let model = Checkpoint::open(&nano)?;
    let recipe = Recipe::from_toml(RECIPE)?;
    let text = nano.join("data/calibration.jsonl");
    let calibration = Calibration::read(&text, &model, &recipe)?;
    let execution = Execution::cpu();
    let pipeline = registry.pipeline(&recipe)?;
    let observation = Job::new(&model, &pipeline, &execution, &mut Silent).observe(&calibration)?;

    let ours = Variant { name: "irreplaceable".into(), recipe: recipe.clone() };
    let mut reap = Variant { name: "reap".into(), recipe };
    reap.recipe.experts.criterion = "reap".into();
    let held_out = nano.join("data/heldout.txt");
    let measures = Measures { text: Some(&held_out), text_blocks: Some(8), ..Measures::default() };
    let mut silent = Silent;
    let mut study = Study::new(&model, &registry, &execution, &mut silent);
    let table = study.compare(Some(&observation), &[ours, reap], &measures)?;
    println!("{:<16}experts  perplexity", "criterion");
    for cut in &table.cuts {
        let perplexity = cut.perplexity.unwrap_or(f64::NAN);
        println!("{:<16}{:>7}  {perplexity:.3}", cut.criterion, cut.experts_kept);
    }
    Ok(())
}
