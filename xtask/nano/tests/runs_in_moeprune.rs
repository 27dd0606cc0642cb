//! What is written is the model that was trained: moeprune computes the same logits from it.

use anyhow::Result;
use candle_core::{DType, Tensor};
use moeprune_checkpoint::Checkpoint;
use moeprune_model::{Compute, LanguageModel};
use nano::config::Config;
use nano::corpus::Corpus;
use nano::draw::Draw;
use nano::export;
use nano::model::{Model, Sequences};
use nano::tokenizer::Tokenizer;
use std::path::PathBuf;

fn check(name: &str, config: Config) -> Result<()> {
    let mut draw = Draw::new(7);
    let mut model = Model::dense(config.clone(), &mut draw)?;
    model.draw_experts(&mut draw)?;
    let sequences: Vec<Vec<u32>> = [40, 1, 17]
        .map(|length| (0..length).map(|_| draw.below(config.vocabulary) as u32).collect())
        .into();
    let mut together = Sequences::new();
    sequences.iter().for_each(|sequence| together.push(sequence));
    // Biases that matter: some experts are in demand, others are not.
    for _ in 0..100 {
        model.correct_biases(&model.forward(&together)?.loads);
    }
    export::round(&model)?;
    let output = model.forward(&together)?;
    let ours = model.logits(&output)?;

    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("runs-{name}"));
    export::write(&model, &tokenizer(&config)?, &out)?;
    let checkpoint = Checkpoint::open(&out)?;
    let compute = Compute::cpu_in(DType::F32);
    let read = LanguageModel::load(&checkpoint, checkpoint.spec(), &compute)?;
    let theirs = Tensor::cat(&read.logits(&sequences)?, 0)?;

    let size = ours.abs()?.max_all()?.to_scalar::<f32>()?;
    let gap = (&ours - theirs)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(gap <= 1e-5 * size.max(1.0), "{name}: {gap} apart, at most {size}");
    Ok(())
}

#[test]
fn arctic() -> Result<()> {
    check("arctic", Config::tiny())
}

#[test]
fn a_shared_expert_and_correction_biases() -> Result<()> {
    check("shared", Config { heads: Config::tiny().heads, ..small(Config::sigmoid_shared()) })
}

/// `config` over a vocabulary that few problems make.
fn small(config: Config) -> Config {
    let Config { vocabulary, hidden, layers, .. } = Config::tiny();
    Config { vocabulary, hidden, layers, inner: 12, experts: 8, ..config }
}

fn tokenizer(config: &Config) -> Result<Tokenizer> {
    let corpus = Corpus::new(1);
    let texts = corpus.training().take(1000).map(|problem| problem.text());
    Tokenizer::train(texts, config.vocabulary)
}
