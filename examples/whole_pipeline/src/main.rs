//! The whole pipeline in code: observe, plan, apply, evaluate, with one stage replaced.
//!
//! `cargo run --release -p example-whole-pipeline -- MODEL OUT CALIBRATION QUESTIONS`, for example
//! with `assets/nano`, `target/example`, `assets/nano/data/calibration.jsonl` and
//! `assets/nano/data/test.jsonl`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use moeprune::{
    Calibration, Evaluation, Execution, FromRecipe, Inputs, Job, Pipeline, Recipe, Resume, Run,
    Scored, Silent, Stage, WeightStage, apply, capture::write_observation, checkpoint::Checkpoint,
    evaluate, plan, score::Magnitude,
};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let mut next = |what| arguments.next().with_context(|| format!("missing argument: {what}"));
    let (model, out) = (next("MODEL")?, next("OUT")?);
    let (text, questions) = (next("CALIBRATION")?, next("QUESTIONS")?);

    let source = Checkpoint::open(&model)?;
    let mut recipe = Recipe::arctic();
    recipe.calibration.samples = 16;

    // How it is pruned. Any field of the pipeline can be a custom implementation of the trait.
    let scored =
        Scored { scorer: Stage::new(Box::new(Magnitude)), ..Scored::from_recipe(&recipe)? };
    let pipeline =
        Pipeline { weights: WeightStage::Scored(scored), ..Pipeline::from_recipe(&recipe)? };
    let mut job = Job {
        model: &source,
        pipeline: &pipeline,
        execution: &Execution::cpu(),
        progress: &mut Silent,
    };

    // What the model does on calibration text. Stored, it serves any number of plans.
    let calibration = Calibration::read(&text, &source, &recipe)?;
    let observation = job.observe(&calibration)?;
    write_observation(&observation, out.with_extension("obs.safetensors"))?;

    // Which experts go.
    let plan = plan(&mut job, &recipe, Some(&observation))?;
    for layer in &plan.layers {
        println!(
            "layer {}: {} of {} experts stay",
            layer.layer,
            layer.experts_after(),
            layer.experts_before
        );
    }

    let run = Run::claim(&out, &source, Resume::No)?;
    let inputs = Inputs::Calibration(&calibration);
    let report = apply(&mut job, run, &plan, inputs)?;
    println!("achieved {:.4} over the decoder Linears", report.sparsity.achieved.linears);

    let what = Evaluation {
        task: "gsm8k_zeroshot",
        data: &questions,
        limit: Some(100),
        fewshot: None,
        fewshot_data: None,
        batch: 32,
        sequence_len: None,
    };
    let score = evaluate(&Checkpoint::open(&out)?, &what, &Execution::cpu(), &mut Silent)?;
    println!("strict-match {:.3}", score.metric("strict-match").unwrap_or(0.0));
    Ok(())
}
