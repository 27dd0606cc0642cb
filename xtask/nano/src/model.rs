//! The model as it is trained: Arctic's layers over sequences laid end to end.

use crate::config::Config;
use crate::draw::Draw;
use crate::kernel::attention::{Rotary, attention};
use crate::kernel::cross_entropy::cross_entropy;
use crate::kernel::experts::{Routing, experts};
use crate::kernel::linear::linear;
use crate::kernel::rms_norm::rms_norm;
use anyhow::Result;
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::softmax;
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
    pub(crate) residual_norm: Var,
    /// [1, 3, hidden, hidden], as [`experts`] takes it.
    pub(crate) residual: Var,
    pub(crate) expert_norm: Var,
    /// Absent while the layer is dense.
    pub(crate) router: Option<Var>,
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
    /// The load-balancing loss, summed over layers; absent of a dense model.
    pub balance: Option<Tensor>,
}

impl Model {
    /// A dense model with random weights: one MLP a layer where the experts will be.
    pub fn dense(config: Config, draw: &mut Draw) -> Result<Self> {
        let d = config.hidden;
        // Every layer adds three times to the stream.
        let quiet = 1.0 / (3.0 * config.layers as f32).sqrt();
        let mut layers = Vec::new();
        for _ in 0..config.layers {
            layers.push(Layer {
                input_norm: ones(d)?,
                qkv: random(draw, &[config.heads.width(), d], fan(d))?,
                out: random(draw, &[d, config.heads.queries * config.heads.size], fan(d) * quiet)?,
                residual_norm: ones(d)?,
                residual: mlp(draw, d, d, quiet)?,
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
            layer.router = Some(random(draw, &[experts, d], fan(d))?);
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

    /// Everything that training changes.
    pub fn vars(&self) -> Vec<Var> {
        let mut vars = vec![self.embedding.clone(), self.norm.clone(), self.head.clone()];
        for layer in &self.layers {
            vars.extend(
                [
                    &layer.input_norm,
                    &layer.qkv,
                    &layer.out,
                    &layer.residual_norm,
                    &layer.residual,
                    &layer.expert_norm,
                    &layer.experts,
                ]
                .map(Var::clone),
            );
            vars.extend(layer.router.clone());
        }
        vars
    }

    /// Runs all layers.
    pub fn forward(&self, sequences: &Sequences) -> Result<Output> {
        let tokens = Tensor::new(sequences.tokens.as_slice(), &Device::Cpu)?;
        let starts = Arc::new(sequences.starts.clone());
        let mut x = self.embedding.index_select(&tokens, 0)?;
        let mut balance: Option<Tensor> = None;
        for layer in &self.layers {
            let (out, own) = self.layer(layer, &x, &starts)?;
            x = out;
            balance = match (balance, own) {
                (Some(sum), Some(own)) => Some((sum + own)?),
                (sum, own) => sum.or(own),
            };
        }
        Ok(Output { hidden: rms_norm(&x, &self.norm, self.eps())?, balance })
    }

    /// The mean cross-entropy of the tokens after `positions`.
    pub fn loss(&self, output: &Output, positions: &[u32], targets: Vec<u32>) -> Result<Tensor> {
        let positions = Tensor::new(positions, &Device::Cpu)?;
        let rows = output.hidden.index_select(&positions, 0)?;
        Ok(cross_entropy(&rows, &self.head, targets)?)
    }

    /// The likeliest token after each of `positions`.
    pub fn likeliest(&self, output: &Output, positions: &[u32]) -> Result<Vec<u32>> {
        let positions = Tensor::new(positions, &Device::Cpu)?;
        let rows = output.hidden.detach().index_select(&positions, 0)?;
        Ok(linear(&rows, &self.head.as_detached_tensor())?.argmax(D::Minus1)?.to_vec1()?)
    }

    fn layer(
        &self,
        layer: &Layer,
        x: &Tensor,
        starts: &Arc<Vec<usize>>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let qkv = linear(&rms_norm(x, &layer.input_norm, self.eps())?, &layer.qkv)?;
        let seen = attention(&qkv, self.config.heads, self.rotary.clone(), starts.clone())?;
        let h = (x + linear(&seen, &layer.out)?)?;
        let residual = one_mlp(&rms_norm(&h, &layer.residual_norm, self.eps())?, &layer.residual)?;
        let h = (h + residual)?;
        // The experts read the stream from before the attention.
        let v = rms_norm(x, &layer.expert_norm, self.eps())?;
        let Some(router) = &layer.router else {
            return Ok(((h + one_mlp(&v, &layer.experts)?)?, None));
        };
        let (shares, routing, balance) = self.route(&v, router, &layer.dropped)?;
        let mixed = experts(&v, &shares, &layer.experts, routing)?;
        Ok(((h + mixed)?, Some(balance)))
    }

    /// Shares, routing and load-balancing loss of one layer.
    fn route(
        &self,
        v: &Tensor,
        router: &Var,
        dropped: &[u32],
    ) -> Result<(Tensor, Routing, Tensor)> {
        let Config { experts, chosen, .. } = self.config;
        let mut logits = linear(v, router)?;
        if !dropped.is_empty() {
            let mut mask = vec![0.0f32; experts];
            for &expert in dropped {
                mask[expert as usize] = f32::NEG_INFINITY;
            }
            logits = logits.broadcast_add(&Tensor::new(mask, &Device::Cpu)?)?;
        }
        let probabilities = softmax(&logits, D::Minus1)?;
        let table = probabilities.detach().flatten_all()?.to_vec1::<f32>()?;
        let top: Vec<u32> =
            table.chunks_exact(experts).flat_map(|row| highest(row, chosen)).collect();
        let routing = Routing::new(&top, chosen, experts);
        let top = Tensor::from_vec(top, (v.dim(0)?, chosen), &Device::Cpu)?;
        let kept = probabilities.gather(&top, D::Minus1)?;
        let shares = kept.broadcast_div(&kept.sum_keepdim(D::Minus1)?)?;
        // Switch Transformer's: lowest, at 1, when probabilities and loads are both even.
        let loads = Tensor::new(routing.shares(), &Device::Cpu)?;
        let balance = ((probabilities.mean(0)? * loads)?.sum_all()? * experts as f64)?;
        Ok((shares, routing, balance))
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

/// The indices of the `count` highest values, highest first; the lower index on a tie.
fn highest(row: &[f32], count: usize) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut best: Option<u32> = None;
        for index in 0..row.len() as u32 {
            let better = best.is_none_or(|best| row[index as usize] > row[best as usize]);
            if better && !found.contains(&index) {
                best = Some(index);
            }
        }
        found.extend(best);
    }
    found
}

fn ones(len: usize) -> Result<Var> {
    Ok(Var::ones(len, DType::F32, &Device::Cpu)?)
}

fn random(draw: &mut Draw, shape: &[usize], scale: f32) -> Result<Var> {
    let values = draw.normal(shape.iter().product(), scale);
    Ok(Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?)
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
