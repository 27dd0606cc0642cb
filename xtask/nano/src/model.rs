//! The model as it is trained: its layers over sequences laid end to end.

use crate::config::{Config, Design};
use crate::draw::Draw;
use crate::kernel::attention::{Rotary, attention};
use crate::kernel::cross_entropy::cross_entropy;
use crate::kernel::experts::{Routing, experts};
use crate::kernel::linear::linear;
use crate::kernel::rms_norm::rms_norm;
use crate::router::{Routed, Router};
use anyhow::Result;
use candle_core::{D, DType, Device, Tensor, Var};
use std::sync::Arc;

/// Sequences of tokens laid end to end, without padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequences {
    /// The tokens of all sequences.
    pub tokens: Vec<u32>,
    /// Where each sequence begins, and the end.
    pub starts: Vec<usize>,
}

impl Sequences {
    /// No sequence yet.
    pub fn new() -> Self {
        Self { tokens: Vec::new(), starts: vec![0] }
    }

    /// Adds a sequence.
    pub fn push(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        self.starts.push(self.tokens.len());
    }
}

/// All weights, by the part they play.
#[derive(Debug)]
pub struct Model {
    /// The shape.
    pub config: Config,
    pub(crate) embedding: Var,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Var,
    pub(crate) head: Var,
    rotary: Arc<Rotary>,
}

/// One decoder layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) input_norm: Var,
    /// Queries, keys and values, one below the other.
    pub(crate) qkv: Var,
    pub(crate) out: Var,
    /// Of the residual MLP; a shared expert reads what the experts read.
    pub(crate) residual_norm: Option<Var>,
    /// The MLP besides the experts, residual or shared: [1, 3, inner, hidden], as [`experts`] takes it.
    pub(crate) beside: Var,
    pub(crate) expert_norm: Var,
    /// Absent while the layer is dense.
    pub(crate) router: Option<Router>,
    /// Experts that no token is sent to.
    pub(crate) dropped: Vec<u32>,
    /// [experts, 3, inner, hidden], as [`experts`] takes it; one expert while the layer is dense.
    pub(crate) experts: Var,
}

/// What a forward pass gives.
#[derive(Debug)]
pub struct Output {
    /// The normalised residual stream, [tokens, hidden].
    pub hidden: Tensor,
    /// The load-balancing loss, summed over layers; absent of a dense model, and where biases
    /// balance loads.
    pub balance: Option<Tensor>,
    /// The share of all choices that each expert got, per layer; empty of a dense model.
    pub loads: Vec<Vec<f32>>,
}

impl Model {
    /// A dense model with random weights: one MLP a layer where the experts will be.
    pub fn dense(config: Config, draw: &mut Draw) -> Result<Self> {
        let d = config.hidden;
        let quiet = quiet(&config);
        let mut layers = Vec::new();
        for _ in 0..config.layers {
            layers.push(Layer {
                input_norm: ones(d)?,
                qkv: random(draw, &[config.heads.width(), d], fan(d))?,
                out: random(draw, &[d, config.heads.queries * config.heads.size], fan(d) * quiet)?,
                residual_norm: config.design.has_residual().then(|| ones(d)).transpose()?,
                beside: mlp(draw, config.beside(), d, quiet)?,
                expert_norm: ones(d)?,
                router: None,
                dropped: Vec::new(),
                experts: mlp(draw, config.inner, d, quiet)?,
            });
        }
        Ok(Self {
            embedding: random(draw, &[config.vocabulary, d], 0.5)?,
            layers,
            norm: ones(d)?,
            head: random(draw, &[config.vocabulary, d], 0.02)?,
            rotary: Arc::new(Rotary::new(config.rope_theta, config.heads.size, config.positions)),
            config,
        })
    }

    /// Makes a mixture of experts of a dense model (sparse upcycling): every expert is a copy of
    /// the layer's MLP with `noise` times its standard deviation added, under a new router.
    pub fn upcycle(&mut self, noise: f32, draw: &mut Draw) -> Result<()> {
        let (experts, d) = (self.config.experts, self.config.hidden);
        for layer in &mut self.layers {
            let dense = layer.experts.as_tensor().flatten_all()?.to_vec1::<f32>()?;
            let matrix = dense.len() / 3;
            let mut copies = Vec::with_capacity(experts * dense.len());
            for _ in 0..experts {
                for values in dense.chunks_exact(matrix) {
                    let scale = noise * deviation(values);
                    let noise = draw.normal(matrix, scale);
                    copies.extend(values.iter().zip(noise).map(|(value, noise)| value + noise));
                }
            }
            let shape = (experts, 3, self.config.inner, d);
            layer.experts = Var::from_tensor(&Tensor::from_vec(copies, shape, &Device::Cpu)?)?;
            layer.router = Some(router(&self.config, draw)?);
        }
        Ok(())
    }

    /// Makes a mixture of experts with random weights under a new router; the layer's MLP goes.
    pub fn draw_experts(&mut self, draw: &mut Draw) -> Result<()> {
        let Config { experts, inner, hidden: d, .. } = self.config;
        let quiet = quiet(&self.config);
        for layer in &mut self.layers {
            let mut drawn = Vec::with_capacity(experts);
            for _ in 0..experts {
                drawn.push(mlp(draw, inner, d, quiet)?.as_detached_tensor());
            }
            layer.experts = Var::from_tensor(&Tensor::cat(&drawn, 0)?)?;
            layer.router = Some(router(&self.config, draw)?);
        }
        Ok(())
    }

    /// Stops sending tokens to `count` random experts of each layer; the weights stay.
    pub fn drop_experts(&mut self, count: usize, draw: &mut Draw) {
        for layer in &mut self.layers {
            let mut all: Vec<u32> = (0..self.config.experts as u32).collect();
            draw.shuffle(&mut all);
            all.truncate(count);
            layer.dropped = all;
        }
    }

    /// Whether the layers have routers.
    pub fn is_sparse(&self) -> bool {
        self.layers.iter().all(|layer| layer.router.is_some())
    }

    /// Moves correction biases, if there are any, against the loads of a forward pass.
    pub fn correct_biases(&mut self, loads: &[Vec<f32>]) {
        let Design::SharedExpert { bias_step, .. } = self.config.design else { return };
        for (layer, loads) in self.layers.iter_mut().zip(loads) {
            if let Some(router) = &mut layer.router {
                router.correct(loads, bias_step);
            }
        }
    }

    /// Everything that gradients change.
    pub fn vars(&self) -> Vec<Var> {
        let mut vars = vec![self.embedding.clone(), self.norm.clone(), self.head.clone()];
        for layer in &self.layers {
            vars.extend([&layer.input_norm, &layer.qkv, &layer.out].map(Var::clone));
            vars.extend(layer.residual_norm.clone());
            vars.extend([&layer.beside, &layer.expert_norm, &layer.experts].map(Var::clone));
            vars.extend(layer.router.as_ref().map(|router| router.weight().clone()));
        }
        vars
    }

    /// Runs all layers.
    pub fn forward(&self, sequences: &Sequences) -> Result<Output> {
        let tokens = Tensor::new(sequences.tokens.as_slice(), &Device::Cpu)?;
        let starts = Arc::new(sequences.starts.clone());
        let mut x = self.embedding.index_select(&tokens, 0)?;
        let (mut balance, mut loads): (Option<Tensor>, _) = (None, Vec::new());
        for layer in &self.layers {
            let (out, routed) = self.layer(layer, &x, &starts)?;
            x = out;
            let Some((own, own_loads)) = routed else { continue };
            loads.push(own_loads);
            balance = match (balance, own) {
                (Some(sum), Some(own)) => Some((sum + own)?),
                (sum, own) => sum.or(own),
            };
        }
        Ok(Output { hidden: rms_norm(&x, &self.norm, self.eps())?, balance, loads })
    }

    /// The mean cross-entropy of the tokens after `positions`.
    pub fn loss(&self, output: &Output, positions: &[u32], targets: Vec<u32>) -> Result<Tensor> {
        let positions = Tensor::new(positions, &Device::Cpu)?;
        let rows = output.hidden.index_select(&positions, 0)?;
        Ok(cross_entropy(&rows, &self.head, targets)?)
    }

    /// The logits of every position, [tokens, vocabulary].
    pub fn logits(&self, output: &Output) -> Result<Tensor> {
        Ok(linear(&output.hidden.detach(), &self.head.as_detached_tensor())?)
    }

    /// The likeliest token after each of `positions`.
    pub fn likeliest(&self, output: &Output, positions: &[u32]) -> Result<Vec<u32>> {
        let positions = Tensor::new(positions, &Device::Cpu)?;
        let rows = output.hidden.detach().index_select(&positions, 0)?;
        Ok(linear(&rows, &self.head.as_detached_tensor())?.argmax(D::Minus1)?.to_vec1()?)
    }

    /// The stream after one layer, with the balance and the loads of its routing.
    #[expect(clippy::type_complexity, reason = "taken apart at the only call")]
    fn layer(
        &self,
        layer: &Layer,
        x: &Tensor,
        starts: &Arc<Vec<usize>>,
    ) -> Result<(Tensor, Option<(Option<Tensor>, Vec<f32>)>)> {
        let qkv = linear(&rms_norm(x, &layer.input_norm, self.eps())?, &layer.qkv)?;
        let seen = attention(&qkv, self.config.heads, self.rotary.clone(), starts.clone())?;
        let h = (x + linear(&seen, &layer.out)?)?;
        let (v, beside) = match &layer.residual_norm {
            // Arctic's experts read the stream from before the attention.
            Some(norm) => {
                (rms_norm(x, &layer.expert_norm, self.eps())?, rms_norm(&h, norm, self.eps())?)
            }
            None => {
                let v = rms_norm(&h, &layer.expert_norm, self.eps())?;
                (v.clone(), v)
            }
        };
        let h = (&h + one_mlp(&beside, &layer.beside)?)?;
        let Some(router) = &layer.router else {
            return Ok(((h + one_mlp(&v, &layer.experts)?)?, None));
        };
        let Routed { shares, routing, balance } =
            router.route(&v, self.config.chosen, &layer.dropped)?;
        let loads = routing.shares();
        let mixed = experts(&v, &shares, &layer.experts, routing)?;
        Ok(((h + mixed)?, Some((balance, loads))))
    }

    fn eps(&self) -> f32 {
        self.config.norm_eps as f32
    }
}

/// An MLP that every token goes through.
fn one_mlp(v: &Tensor, weights: &Var) -> Result<Tensor> {
    let tokens = v.dim(0)?;
    let shares = Tensor::ones((tokens, 1), DType::F32, &Device::Cpu)?;
    Ok(experts(v, &shares, weights, Routing::dense(tokens))?)
}

fn router(config: &Config, draw: &mut Draw) -> Result<Router> {
    let weight = random(draw, &[config.experts, config.hidden], fan(config.hidden))?;
    Ok(match config.design {
        Design::Arctic => Router::Softmax { weight },
        Design::SharedExpert { scale, .. } => {
            Router::Sigmoid { weight, bias: vec![0.0; config.experts], scale }
        }
    })
}

fn ones(len: usize) -> Result<Var> {
    Ok(Var::ones(len, DType::F32, &Device::Cpu)?)
}

fn random(draw: &mut Draw, shape: &[usize], scale: f32) -> Result<Var> {
    let values = draw.normal(shape.iter().product(), scale);
    Ok(Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?)
}

/// What the output matrices are scaled by: every layer adds three times to the stream.
fn quiet(config: &Config) -> f32 {
    1.0 / (3.0 * config.layers as f32).sqrt()
}

/// The scale that keeps the size of a vector through a product of `inputs`.
fn fan(inputs: usize) -> f32 {
    1.0 / (inputs as f32).sqrt()
}

fn mlp(draw: &mut Draw, inner: usize, d: usize, quiet: f32) -> Result<Var> {
    let mut values = draw.normal(2 * inner * d, fan(d));
    values.extend(draw.normal(inner * d, fan(inner) * quiet));
    Ok(Var::from_tensor(&Tensor::from_vec(values, (1, 3, inner, d), &Device::Cpu)?)?)
}

fn deviation(values: &[f32]) -> f32 {
    let n = values.len() as f32;
    let mean = values.iter().sum::<f32>() / n;
    (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / n).sqrt()
}
