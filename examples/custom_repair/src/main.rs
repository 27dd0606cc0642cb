//! A custom repair of the experts that stay: each of an expert's outputs becomes longer or shorter, by
//! what is missing without the experts that went.
//!
//! ```text
//! cargo run --release -p example-custom-repair
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::path::Path;

use moeprune::{
    CalibrationTexts, Execution, Job, PlanInputs, Recipe, Registry, Silent, Study,
    checkpoint::Checkpoint,
    compare::{Measures, Variant},
    core::{
        ExpertRepair, LayerRepair, LayerToRepair, StageError,
        repair::{ExpertOutcome, RepairedExpert},
    },
};
use serde::{Deserialize, Serialize};

/// Multiplies each row of a down projection by the factor with which that output is nearest to what is
/// missing; never by less than `1 − most` or more than `1 + most`.
#[derive(Debug)]
struct RescaleRows {
    most: f64,
}

impl ExpertRepair for RescaleRows {
    fn repair(&self, layer: &mut LayerToRepair<'_>) -> Result<LayerRepair, StageError> {
        let mut errors = vec![layer.error(0..layer.fitted)];
        let mut experts = Vec::new();
        for index in 0..layer.experts.len() {
            experts.push(self.expert(layer, index)?);
        }
        errors.push(layer.error(0..layer.fitted));
        Ok(LayerRepair::new(layer, errors, experts))
    }
}

impl RescaleRows {
    fn expert(
        &self,
        layer: &mut LayerToRepair<'_>,
        index: usize,
    ) -> Result<RepairedExpert, StageError> {
        let (width, expert) = (layer.width, &layer.experts[index]);
        if expert.fitted_tokens(layer.fitted) == 0 {
            return Ok(RepairedExpert::unchanged(index, ExpertOutcome::NoTokens));
        }
        let weights = layer.store.weights(index)?;
        let inputs = layer.store.activations(index, 0..expert.tokens.len())?;
        let rows = || expert.tokens.iter().zip(inputs.chunks_exact(expert.features));
        let output = |weights: &[f32], input: &[f32], out: usize| -> f64 {
            let row = &weights[out * expert.features..(out + 1) * expert.features];
            row.iter().zip(input).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum()
        };
        // Least squares with one unknown per output.
        let (mut along, mut squared) = (vec![0.0; width], vec![0.0; width]);
        for (&token, input) in rows().filter(|(token, _)| (**token as usize) < layer.fitted) {
            let (token, weight) = (token as usize, f64::from(layer.token_weights[token as usize]));
            for out in 0..width {
                let made = output(&weights, input, out);
                along[out] += weight * made * f64::from(layer.residual[token * width + out]);
                squared[out] += weight * made * made;
            }
        }
        let factor = |out: usize| {
            let change = if squared[out] > 0.0 { along[out] / squared[out] } else { 0.0 };
            1.0 + change.clamp(-self.most, self.most)
        };
        let scaled = weights.chunks_exact(expert.features).enumerate().flat_map(|(out, row)| {
            let factor = factor(out) as f32;
            row.iter().map(move |weight| weight * factor)
        });
        // What is stored is rounded, and the residual follows what is stored.
        let stored = layer.store.replace(index, scaled.collect())?;
        for (&token, input) in rows() {
            for out in 0..width {
                let change = output(&stored, input, out) - output(&weights, input, out);
                layer.residual[token as usize * width + out] -= change as f32;
            }
        }
        let largest = |weights: &[f32]| weights.iter().fold(0.0_f32, |most, w| most.max(w.abs()));
        let growth = f64::from(largest(&stored)) / f64::from(largest(&weights)).max(1e-30);
        Ok(RepairedExpert::refitted(index, 0.0, growth))
    }
}

/// The keys that a recipe may set, and their defaults.
#[derive(Serialize, Deserialize)]
struct Parameters {
    most: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { most: 0.5 }
    }
}

const RECIPE: &str = r#"
sparsity = 0.75
[repair]
name = "rescale-rows"
most = 1.0
[experts]
sparsity = 0.75
criterion = "reap"
[calibration]
samples = 16
sequence_len = 128
"#;

fn main() -> Result<(), StageError> {
    let mut registry = Registry::built_in();
    registry.add_repair(
        "rescale-rows",
        "makes each output of an expert longer or shorter",
        |Parameters { most }| Ok(Box::new(RescaleRows { most })),
    );

    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano");
    let model = Checkpoint::open(&nano)?;
    let recipe = Recipe::from_toml(RECIPE)?;
    let text = nano.join("data/calibration.jsonl");
    let calibration = CalibrationTexts::from(&text).read(&model, &recipe, &mut Silent)?;
    let execution = Execution::cpu();
    let pipeline = registry.pipeline(&recipe)?;
    let observation = Job::new(&model, &pipeline, &execution, &mut Silent).observe(&calibration)?;

    let variants = ["none", "rescale-rows", "refit"].map(|repair| {
        let mut recipe = recipe.clone();
        if repair != "rescale-rows" {
            recipe.repair = repair.into();
        }
        Variant { name: repair.to_owned(), recipe }
    });
    let held_out = nano.join("data/heldout.txt");
    let measures = Measures { text: Some(&held_out), text_blocks: Some(8), ..Measures::default() };
    let mut silent = Silent;
    let mut study = Study::new(&model, &registry, &execution, &mut silent);
    let inputs = PlanInputs { observation: Some(&observation), calibration: Some(&calibration) };
    let table = study.compare(inputs, &variants, &measures)?;
    println!("{:<16}experts  perplexity", "repair");
    for cut in &table.cuts {
        let perplexity = cut.perplexity.unwrap_or(f64::NAN);
        println!("{:<16}{:>7}  {perplexity:.3}", cut.criterion, cut.experts_kept);
    }
    Ok(())
}
