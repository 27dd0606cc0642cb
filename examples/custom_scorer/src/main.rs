//! A custom weight scorer, with a parameter that a recipe sets: Wanda with the inputs' norms
//! raised to a power.
//!
//! ```text
//! cargo run --release -p example-custom-scorer
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::path::Path;

use moeprune::{
    Calibration, Execution, Job, Recipe, Registry, Silent, Study,
    checkpoint::Checkpoint,
    compare::{Measures, Variant},
    core::{BoundScorer, LinearView, StageError, WeightScorer},
};
use serde::{Deserialize, Serialize};

/// `|W_ij| · ‖X_j‖^power`. 0 is magnitude, 1 is Wanda; between them, columns with large inputs are
/// spared less than Wanda spares them.
#[derive(Debug)]
struct PoweredWanda {
    power: f32,
}

/// A scorer bound to one Linear: a factor for each column.
struct Factors(Vec<f32>);

impl WeightScorer for PoweredWanda {
    fn bind<'a>(
        &'a self,
        linear: &LinearView<'a>,
    ) -> Result<Box<dyn BoundScorer + 'a>, StageError> {
        // A Linear that nothing reached has no norms; its magnitudes still rank.
        let heard = linear.inputs.filter(|inputs| inputs.tokens > 0);
        let factors = match heard {
            None => vec![1.0; linear.cols],
            Some(inputs) => {
                let norm = |sum: &f64| (sum / inputs.calls as f64).sqrt() as f32;
                inputs.sum_squares.iter().map(|sum| norm(sum).powf(self.power)).collect()
            }
        };
        Ok(Box::new(Factors(factors)))
    }

    fn needs_inputs(&self) -> bool {
        true
    }
}

impl BoundScorer for Factors {
    fn score_row(&self, weights: &[f32], scores: &mut [f32]) {
        for ((score, weight), factor) in scores.iter_mut().zip(weights).zip(&self.0) {
            *score = weight.abs() * factor;
        }
    }

    /// The same in one go, which the fast path wants.
    fn column_factors(&self) -> Option<&[f32]> {
        Some(&self.0)
    }
}

/// The keys that a recipe may set, and their defaults.
#[derive(Serialize, Deserialize)]
struct Parameters {
    power: f32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { power: 0.5 }
    }
}

fn registry() -> Registry {
    let mut registry = Registry::built_in();
    registry.add_scorer("powered-wanda", "Wanda, norms to a power", |parameters: Parameters| {
        let power = parameters.power;
        if !(0.0..=4.0).contains(&power) {
            return Err(format!("power is {power}; it must be from 0 to 4").into());
        }
        Ok(Box::new(PoweredWanda { power }))
    });
    registry
}

fn main() -> Result<(), StageError> {
    let registry = registry();
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano");
    let model = Checkpoint::open(&nano)?;
    let mut recipe = Recipe::from_toml("sparsity = 0.6\n[experts]\nsparsity = 0.0")?;
    recipe.calibration.samples = 16;
    recipe.calibration.sequence_len = 128;
    recipe.weights.allocation = "uniform".into();

    let text = nano.join("data/calibration.jsonl");
    let calibration = Calibration::read(&text, &model, &recipe)?;
    let execution = Execution::cpu();
    let pipeline = registry.pipeline(&recipe)?;
    let observation = Job::new(&model, &pipeline, &execution, &mut Silent).observe(&calibration)?;
    let variant = |scorer: &str| -> Result<Variant, StageError> {
        let mut recipe = recipe.clone();
        recipe.weights.scorer = scorer.parse()?;
        Ok(Variant { name: scorer.to_owned(), recipe })
    };
    let variants = ["magnitude", "powered-wanda", "powered-wanda:power=0.75", "wanda"]
        .into_iter()
        .map(variant)
        .collect::<Result<Vec<_>, _>>()?;
    let held_out = nano.join("data/heldout.txt");
    let measures = Measures { text: Some(&held_out), text_blocks: Some(8), ..Measures::default() };
    let mut silent = Silent;
    let mut study = Study::new(&model, &registry, &execution, &mut silent);
    let table = study.compare(Some(&observation), &variants, &measures)?;
    println!("{:<26}perplexity at 60 %", "scorer");
    for cut in &table.cuts {
        println!("{:<26}{:.3}", cut.criterion, cut.perplexity.unwrap_or(f64::NAN));
    }
    Ok(())
}
