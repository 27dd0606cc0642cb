//! A custom similarity: experts are alike when their router rows point the same way,
//! however long they are.
//!
//! It is registered under a name, and a recipe uses it by that name.
//!
//! ```text
//! cargo run -p example-custom-similarity
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::path::Path;

use moeprune::{
    Execution, Job, Recipe, Registry, Silent,
    checkpoint::Checkpoint,
    core::{DistanceMatrix, ExpertSimilarity, LayerBehaviour, StageError},
    plan,
    registry::NoParameters,
};

/// `1 − cos(g_i, g_j)`: 0 for rows of one direction, 2 for opposite ones. A row of zeros has no
/// direction and is at distance 1 from everything.
#[derive(Debug)]
struct Angle;

impl ExpertSimilarity for Angle {
    fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> {
        let dot = |i: usize, j: usize| -> f64 {
            let (a, b) = (layer.router.row(i), layer.router.row(j));
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        Ok(DistanceMatrix::from_fn(layer.experts(), |i, j| {
            let lengths = (dot(i, i) * dot(j, j)).sqrt();
            if lengths > 0.0 { 1.0 - dot(i, j) / lengths } else { 1.0 }
        })?)
    }
}

const RECIPE: &str = r#"
sparsity = 0.25
[experts]
sparsity = 0.25
similarity = "angle"
"#;

fn main() -> Result<(), StageError> {
    let mut registry = Registry::built_in();
    registry.add_similarity("angle", "the angle between router rows", |_: NoParameters| {
        Ok(Box::new(Angle))
    });

    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano");
    let model = Checkpoint::open(&model)?;
    let mut recipe = Recipe::from_toml(RECIPE)?;
    registry.resolve(&mut recipe)?;
    let pipeline = registry.pipeline(&recipe)?;
    // Router rows say it all: no calibration text is needed, and no expert is read.
    let mut job = Job {
        model: &model,
        pipeline: &pipeline,
        execution: &Execution::cpu(),
        progress: &mut Silent,
    };
    let plan = plan(&mut job, &recipe, None)?;
    for layer in &plan.layers {
        let groups = layer.clusters.clusters().iter().filter(|group| group.len() > 1);
        println!("layer {}: alike are {:?}", layer.layer, groups.collect::<Vec<_>>());
        assert_eq!(layer.experts_after(), 24);
    }
    // The plan says which stage made it.
    assert_eq!(plan.recipe["experts"]["similarity"], "angle");
    Ok(())
}
