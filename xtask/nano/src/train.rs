//! The training loop: a phase as a mixture of experts, after a dense phase and upcycling if the
//! experts are to be copies.

use crate::batch;
use crate::config::Config;
use crate::corpus::Corpus;
use crate::draw::Draw;
use crate::evaluate::accuracy;
use crate::export;
use crate::model::Model;
use crate::optimizer::ClippedAdamW;
use crate::problem::Problem;
use crate::tokenizer::Tokenizer;
use anyhow::{Result, ensure};
use candle_nn::{Optimizer, ParamsAdamW};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The seed of the committed model.
pub const SEED: u64 = 1;

/// Problems that the committed tokenizer learnt its pieces from.
pub const TOKENIZER_PROBLEMS: usize = 20_000;

/// What the experts are before the mixture phase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Origin {
    /// Copies of the one MLP per layer that a dense phase trained: redundant.
    Upcycled {
        /// Steps of the dense phase.
        steps: usize,
        /// The highest learning rate of the dense phase.
        rate: f64,
        /// Noise of a copy, in standard deviations of the copied matrix.
        noise: f32,
    },
    /// Random weights, trained as a mixture from the first step: each expert learns its own part.
    Random,
}

/// How a model is trained.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The shape.
    pub config: Config,
    /// Of problems, weights and order.
    pub seed: u64,
    /// Where the experts come from.
    pub origin: Origin,
    /// Steps as a mixture of experts.
    pub steps: usize,
    /// Steps over which the learning rate rises, at the start of each phase.
    pub warmup: usize,
    /// Tokens per step.
    pub batch: usize,
    /// The learning rate that the mixture phase starts from.
    pub rate: f64,
    /// Problems that the tokenizer learns its pieces from.
    pub tokenizer_problems: usize,
    /// Test problems of the accuracy printed on the way.
    pub glance: usize,
    /// Steps between two such accuracies.
    pub glance_every: usize,
    /// Test problems of the accuracy at the end.
    pub test: usize,
    /// The directory to write.
    pub out: PathBuf,
}

/// What training came to.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Accuracy of the written (rounded) weights.
    pub accuracy: f64,
    /// Accuracy when a random half of the experts of each layer gets no tokens: how redundant they
    /// are.
    pub halved: f64,
    /// Tokens trained on, over both phases.
    pub tokens: usize,
    /// How long it took.
    pub elapsed: Duration,
}

/// Trains a model and writes it, telling `report` a line now and then.
pub fn train(plan: &Plan, mut report: impl FnMut(String)) -> Result<Outcome> {
    let corpus = Corpus::new(plan.seed);
    let tokenizer = tokenizer(&corpus, plan.tokenizer_problems, &plan.config)?;
    let mut draw = Draw::new(plan.seed);
    let model = Model::dense(plan.config.clone(), &mut draw)?;
    let mut run = Run {
        plan,
        corpus: &corpus,
        tokenizer,
        model,
        draw,
        tokens: 0,
        began: Instant::now(),
        report: &mut report,
    };
    run.all()
}

/// The tokenizer of `config`'s size over the first `problems` of training.
pub fn tokenizer(corpus: &Corpus, problems: usize, config: &Config) -> Result<Tokenizer> {
    let texts = corpus.training().take(problems);
    let tokenizer = Tokenizer::train(texts.map(|problem| problem.text()), config.vocabulary)?;
    ensure!(
        tokenizer.size() == config.vocabulary,
        "the problems make {} tokens, not {}",
        tokenizer.size(),
        config.vocabulary
    );
    Ok(tokenizer)
}

struct Run<'a> {
    plan: &'a Plan,
    corpus: &'a Corpus,
    tokenizer: Tokenizer,
    model: Model,
    draw: Draw,
    tokens: usize,
    began: Instant,
    report: &'a mut dyn FnMut(String),
}

impl Run<'_> {
    fn all(&mut self) -> Result<Outcome> {
        let mut problems = self.corpus.training();
        let plan = self.plan;
        match plan.origin {
            Origin::Upcycled { steps, rate, noise } => {
                self.phase("dense", &mut problems, steps, rate, plan.rate)?;
                self.model.upcycle(noise, &mut self.draw)?;
            }
            Origin::Random => self.model.draw_experts(&mut self.draw)?,
        }
        self.phase("sparse", &mut problems, plan.steps, plan.rate, 0.0)?;
        export::round(&self.model)?;
        export::write(&self.model, &self.tokenizer, &plan.out)?;
        let elapsed = self.began.elapsed();
        let test = &self.corpus.test[..plan.test];
        Ok(Outcome {
            accuracy: accuracy(&self.model, &self.tokenizer, test)?,
            halved: self.halved(test)?,
            tokens: self.tokens,
            elapsed,
        })
    }

    /// Accuracy with a random half of the experts of each layer left out for the moment.
    fn halved(&mut self, problems: &[Problem]) -> Result<f64> {
        // A separate stream: looking must not change what training draws.
        let mut draw = Draw::new(self.plan.seed);
        self.model.drop_experts(self.plan.config.experts / 2, &mut draw);
        let halved = accuracy(&self.model, &self.tokenizer, problems);
        self.model.drop_experts(0, &mut draw);
        halved
    }

    /// Steps with the learning rate on a half cosine between `high` and `low`.
    fn phase(
        &mut self,
        name: &str,
        problems: &mut impl Iterator<Item = Problem>,
        steps: usize,
        high: f64,
        low: f64,
    ) -> Result<()> {
        let params =
            ParamsAdamW { lr: 0.0, beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.05 };
        let mut optimizer = ClippedAdamW::new(self.model.vars(), params)?;
        let (mut loss, mut since, mut counted) = (0.0, Instant::now(), self.tokens);
        for step in 0..steps {
            let done = step as f64 / steps as f64;
            let cosine = low + (high - low) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
            let rising = (step + 1) as f64 / self.plan.warmup as f64;
            optimizer.set_learning_rate(cosine * rising.min(1.0));
            loss += self.step(problems, &mut optimizer)?;
            let finished = step + 1;
            if finished % 100 == 0 || finished == steps {
                let speed = (self.tokens - counted) as f64 / since.elapsed().as_secs_f64();
                let line = format!(
                    "{name} step {finished}/{steps}  loss {:.4}  gradient {:.2}  {speed:.0} tokens/s  {:.1} min",
                    loss / ((finished - 1) % 100 + 1) as f64,
                    optimizer.norm(),
                    self.began.elapsed().as_secs_f64() / 60.0,
                );
                (self.report)(line);
                (loss, since, counted) = (0.0, Instant::now(), self.tokens);
            }
            if finished % self.plan.glance_every == 0 || finished == steps {
                let glance = &self.corpus.test[..self.plan.glance];
                let accuracy = accuracy(&self.model, &self.tokenizer, glance)?;
                let mut line = format!("{name} step {finished}/{steps}  accuracy {accuracy:.3}");
                if self.model.is_sparse() {
                    export::write(&self.model, &self.tokenizer, &self.plan.out)?;
                    let halved = self.halved(glance)?;
                    line += &format!(", with half of the experts {halved:.3}");
                }
                (self.report)(line);
                since = Instant::now();
            }
        }
        Ok(())
    }

    /// One batch; returns its cross-entropy.
    fn step(
        &mut self,
        problems: &mut impl Iterator<Item = Problem>,
        optimizer: &mut ClippedAdamW,
    ) -> Result<f64> {
        let config = &self.model.config;
        let (size, longest) = (self.plan.batch, config.positions);
        let batch = batch::next(problems, &self.tokenizer, size, longest, &mut self.draw)?;
        self.tokens += batch.sequences.tokens.len();
        let output = self.model.forward(&batch.sequences)?;
        let loss = self.model.loss(&output, &batch.positions, batch.targets)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let objective = match output.balance {
            Some(balance) => (loss + (balance * config.balance)?)?,
            None => loss,
        };
        optimizer.backward_step(&objective)?;
        self.model.correct_biases(&output.loads);
        Ok(value)
    }
}
