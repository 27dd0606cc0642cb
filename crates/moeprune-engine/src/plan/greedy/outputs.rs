//! What all experts of a layer make of some tokens, while the layer runs.

use std::ops::Range;

use candle_core::Tensor;
use moeprune_capture::{
    Error as CaptureError, LayerRun, StoredLayer, Watch, expert_rows, for_each_loaded_expert,
};
use moeprune_core::{GateSide, LinearId, ModelSpec};
use moeprune_model::{ActivationSink, Error as ModelError, Expert, Gating, LayerTrunk, NoSink};
use rayon::prelude::*;

use super::{
    PIECE,
    removal::{Quota, Token, triangle},
    sample::Sample,
};
use crate::{Error, on_host::on_host, plan::Router};

/// Memory for what experts make of tokens, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutputsNeed {
    /// Outputs, in f32.
    pub(super) outputs: u64,
    /// Their inner products, in f64, and logits.
    pub(super) products: u64,
    /// What experts read, in f32.
    inputs: u64,
    /// Tokens that are looked at.
    pub(super) tokens: u64,
}

impl OutputsNeed {
    /// Of the layer that takes most.
    pub(super) fn of(spec: &ModelSpec, sample: &Sample, quotas: &[Quota]) -> Self {
        let tokens = sample.tokens();
        let mut need =
            Self { outputs: 0, products: 0, inputs: 2 * tokens * 4 * spec.hidden as u64, tokens };
        let layers = spec.layers.iter().filter_map(|layer| layer.moe());
        for (moe, quota) in layers.zip(quotas) {
            let size = moe.experts / quota.blocks.max(1);
            let reach = (quota.blocks * size.min(moe.top_k + quota.per_block)) as u64;
            let outputs = tokens * reach * 4 * spec.hidden as u64;
            let of_token = 8 * reach * (reach + 1) / 2 + 4 * reach + 8 * moe.experts as u64;
            need.outputs = need.outputs.max(outputs.min(PIECE));
            need.products = need.products.max(tokens * of_token);
        }
        need
    }

    pub(super) fn total(&self) -> u64 {
        self.outputs + self.products + self.inputs
    }
}

/// What is looked at in a layer.
#[derive(Clone, Copy)]
pub(super) struct Looks<'a> {
    pub(super) sample: &'a Sample,
    pub(super) router: &'a Router,
    pub(super) gating: &'a Gating,
    /// Experts of each block that may go.
    pub(super) removals: usize,
    /// What gates multiply.
    pub(super) gates: GateSide,
    /// Bytes of outputs that are held at a time.
    pub(super) piece: u64,
}

/// Runs a layer over all blocks, and each expert on those tokens that may be sent to it once others are
/// gone. Returns the layer's outputs, and the tokens.
pub(super) fn run(
    stored: StoredLayer<'_>,
    hidden: Vec<Tensor>,
    looks: Option<Looks<'_>>,
    watch: Watch<'_>,
) -> Result<(Vec<Tensor>, Vec<Token>), Error> {
    let StoredLayer { source, spec, layer, compute } = stored;
    let rows = match &looks {
        Some(looks) => looks.sample.rows(&hidden)?,
        None => Vec::new(),
    };
    let trunk = LayerTrunk::load(source, spec, layer, compute)?;
    let mut seen = RouterInputRows { rows: &rows, batch: 0, read: Vec::new() };
    let mut run = LayerRun::advance_into(&trunk, layer, hidden, &mut seen, watch)?;
    let Some((looks, read)) = looks.zip(run.read_by_experts(&rows)?) else {
        return Ok((run.finish()?, Vec::new()));
    };
    let mut tokens = tokens(&looks, &seen.read, spec.hidden);
    drop(seen);
    let experts = spec.layers[layer].moe().map_or(0, |moe| moe.experts);
    for (number, range) in pieces(&tokens, spec.hidden, looks.piece).into_iter().enumerate() {
        let mut piece = Piece::new(&looks, &tokens[range.clone()], range.start, spec.hidden);
        let busy = |e: &usize| number == 0 && run.tokens(*e) > 0 || !piece.of_expert[*e].is_empty();
        let experts: Vec<usize> = (0..experts).filter(busy).collect();
        for_each_loaded_expert(stored, &experts, |expert| -> Result<(), CaptureError> {
            if number == 0 {
                run.expert(expert.index(), &expert, None, watch)?;
            }
            piece.add(&expert, &read, &trunk)?;
            let done = piece.of_expert[expert.index()].len() as u64;
            if watch(done).is_break() { Err(CaptureError::Stopped) } else { Ok(()) }
        })?;
        let outputs = piece.outputs;
        multiply(&mut tokens[range], &outputs, spec.hidden);
    }
    Ok((run.finish()?, tokens))
}

/// The tokens with their logits and what is in reach of them; `read` is what the router reads,
/// `[tokens, hidden]`.
fn tokens(looks: &Looks<'_>, read: &[f32], hidden: usize) -> Vec<Token> {
    let router = looks.router.values();
    let token = |token: &[f32]| {
        let logits: Vec<f64> = router.chunks_exact(hidden).map(|row| dot(row, token)).collect();
        let reach = looks.gating.within_reach(&logits, looks.removals);
        let reach = reach.into_iter().map(|expert| expert as u32).collect();
        Token { logits, reach, products: Vec::new() }
    };
    read.par_chunks_exact(hidden).map(token).collect()
}

/// Neighbouring tokens whose outputs are held together.
fn pieces(tokens: &[Token], hidden: usize, most: u64) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (place, token) in tokens.iter().enumerate() {
        let own = 4 * (token.reach.len() * hidden) as u64;
        if bytes + own > most && place > start {
            pieces.push(start..place);
            (start, bytes) = (place, 0);
        }
        bytes += own;
    }
    // One piece at least: the layer runs with it.
    pieces.push(start..tokens.len());
    pieces
}

/// What experts make of neighbouring tokens.
struct Piece {
    hidden: usize,
    /// For each expert the tokens, counted through all that are looked at, the row of the outputs that is its, and
    /// what its input is multiplied by.
    of_expert: Vec<Vec<Place>>,
    /// For each token in turn a row per expert in reach.
    outputs: Vec<f32>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    token: u32,
    row: usize,
    gate: Option<f32>,
}

impl Piece {
    /// Of these tokens, of which the first has the number `first`.
    fn new(looks: &Looks<'_>, tokens: &[Token], first: usize, hidden: usize) -> Self {
        let experts = tokens.first().map_or(0, |token| token.logits.len());
        let mut of_expert = vec![Vec::new(); looks.router.values().len() / hidden.max(1)];
        of_expert.resize(experts.max(of_expert.len()), Vec::new());
        let mut row = 0;
        for (place, token) in tokens.iter().enumerate() {
            let gates = match looks.gates {
                GateSide::Output => None,
                GateSide::Input => looks.gating.own_weights(&token.logits),
            };
            for &expert in &token.reach {
                let expert = expert as usize;
                let gate = gates.as_ref().map(|gates| gates[expert] as f32);
                of_expert[expert].push(Place { token: (first + place) as u32, row, gate });
                row += 1;
            }
        }
        Self { hidden, of_expert, outputs: vec![0.0; row * hidden] }
    }

    /// Runs an expert on its tokens. `read` is what experts read of all that are looked at.
    fn add(
        &mut self,
        expert: &Expert,
        read: &Tensor,
        trunk: &LayerTrunk,
    ) -> Result<(), ModelError> {
        for places in self.of_expert[expert.index()].chunks(expert_rows(read.device())) {
            let tokens: Vec<u32> = places.iter().map(|place| place.token).collect();
            let index = Tensor::from_slice(&tokens, tokens.len(), read.device())?;
            let mut input = read.index_select(&index, 0)?;
            let gates: Vec<f32> = places.iter().filter_map(|place| place.gate).collect();
            if !gates.is_empty() {
                let gates = Tensor::from_slice(&gates, (gates.len(), 1), read.device())?;
                input = input.broadcast_mul(&gates.to_dtype(input.dtype())?)?;
            }
            let output = trunk.in_hidden_width(&expert.forward(&input, &mut NoSink)?)?;
            let output = on_host(&output)?;
            for (place, output) in places.iter().zip(output.chunks_exact(self.hidden)) {
                let start = place.row * self.hidden;
                self.outputs[start..start + self.hidden].copy_from_slice(output);
            }
        }
        Ok(())
    }
}

/// Fills in the inner products of the tokens' outputs, `[rows, hidden]`, a row per expert in reach.
fn multiply(tokens: &mut [Token], outputs: &[f32], hidden: usize) {
    let mut starts = Vec::with_capacity(tokens.len());
    let mut row = 0;
    for token in &*tokens {
        starts.push(row * hidden);
        row += token.reach.len();
    }
    tokens.par_iter_mut().zip(starts).for_each(|(token, start)| {
        let own = &outputs[start..start + token.reach.len() * hidden];
        let rows: Vec<&[f32]> = own.chunks_exact(hidden).collect();
        let mut products = Vec::with_capacity(triangle(rows.len()));
        for (i, a) in rows.iter().enumerate() {
            products.extend(rows[..=i].iter().map(|b| dot(a, b)));
        }
        token.products = products;
    });
}

/// The inner product in f64, in eight sums of every eighth term.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0_f64; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a.remainder().iter().zip(b.remainder());
    let rest: f64 = rest.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    for (a, b) in a.zip(b) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += f64::from(a) * f64::from(b);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Keeps what the router reads of some rows of each micro-batch.
struct RouterInputRows<'a> {
    rows: &'a [Vec<u32>],
    batch: usize,
    /// `[tokens, hidden]`
    read: Vec<f32>,
}

impl ActivationSink for RouterInputRows<'_> {
    fn linear_input(&mut self, site: LinearId, input: &Tensor) -> Result<(), ModelError> {
        if site != LinearId::Router {
            return Ok(());
        }
        if let Some(rows) = self.rows.get(self.batch).filter(|rows| !rows.is_empty()) {
            let index = Tensor::from_slice(rows, rows.len(), input.device())?;
            self.read.extend(on_host(&input.index_select(&index, 0)?)?);
        }
        self.batch += 1;
        Ok(())
    }
}
