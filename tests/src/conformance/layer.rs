//! What the forward pass of a layer promises, to its caller and to an [`ActivationSink`].

use std::collections::BTreeSet;

use candle_core::{DType, Tensor};
use moeprune_core::{GateSide, LayerSpec, LinearId, LinearShape, ModelSpec};
use moeprune_model::{ActivationSink, Error, NoSink, RoutingChoice};

/// What rounding may change of the largest value, in bf16.
const ROUNDING: f64 = 1.0 / 64.0;

/// A layer's forward pass on hidden states `[batch, seq, hidden]`, without a cache.
pub type Forward<'a> = dyn Fn(&Tensor, &mut dyn ActivationSink) -> Result<Tensor, Error> + 'a;

/// Holds a layer of a model to its contract, on hidden states `[batch, seq, hidden]` of at least two
/// sequences:
///
/// * it returns the shape it was called with; a sequence's result depends neither on the others of
///   the batch (up to rounding where it is not in f32 on the CPU) nor on the sink;
/// * it calls the sink in the order in which it computes: attention, then the residual or dense MLP,
///   then the router, what it chose, and the experts by ascending index, each with its inputs first
///   and its output last;
/// * the input of each Linear comes once, under its input site, with its number of features and a
///   row per token, or per token routed to the expert;
/// * the choice of the router comes once if there are experts: `top_k` different experts per token,
///   the largest weight first, the lower index first among equals;
/// * an expert's output has a row per token routed to it, with the weights that the router gave
///   them; an expert without tokens does not occur;
/// * tensors are of the type of the hidden states and do not change afterwards;
/// * an error of the sink ends the pass.
///
/// # Panics
/// If one of these is broken, or the layer fails.
pub fn check(forward: &Forward<'_>, spec: &ModelSpec, index: usize, hidden: &Tensor) {
    let (batch, seq, _) = hidden.dims3().expect("hidden states are [batch, seq, hidden]");
    assert!(batch >= 2, "one sequence is not compared with any other");
    let mut record = Record::default();
    let out = forward(hidden, &mut record).expect("runs");
    assert_eq!(out.dims(), hidden.dims(), "shape of the result");
    check_result(forward, hidden, &values(&out));
    let calls = Calls {
        record: &record,
        layer: &spec.layers[index],
        linears: spec.linears(index),
        tokens: batch * seq,
        dtype: hidden.dtype(),
    };
    calls.check_order();
    calls.check_routing();
    calls.check_sites();
    calls.check_experts(spec.hidden);
    calls.check_tensors();
    check_errors(forward, hidden, record.calls.len());
}

fn check_result(forward: &Forward<'_>, hidden: &Tensor, expected: &[f64]) {
    let unwatched = forward(hidden, &mut NoSink).expect("runs");
    assert!(values(&unwatched) == expected, "the result depends on the sink");
    let batch = hidden.dims()[0];
    let each = expected.len() / batch;
    let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let exact = hidden.device().is_cpu() && hidden.dtype() == DType::F32;
    let rounding = if exact { 0.0 } else { ROUNDING * largest };
    for sequence in 0..batch {
        let alone = hidden.narrow(0, sequence, 1).expect("a sequence of the batch");
        let alone = forward(&alone, &mut NoSink).expect("runs alone");
        let expected = &expected[sequence * each..][..each];
        let same = values(&alone).iter().zip(expected).all(|(a, b)| (a - b).abs() <= rounding);
        assert!(same, "the result of a sequence depends on the others");
    }
}

/// Each call of the sink may fail; the pass ends there, with an error.
fn check_errors(forward: &Forward<'_>, hidden: &Tensor, calls: usize) {
    for fails_at in [0, calls / 2, calls - 1] {
        let mut record = Record { fails_at: Some(fails_at), ..Record::default() };
        let result = forward(hidden, &mut record);
        assert!(result.is_err(), "an error of the sink is ignored");
        let made = record.calls.len();
        assert_eq!(made, fails_at + 1, "calls of the sink up to its error, one included");
    }
}

/// A call of the sink.
#[derive(Debug)]
enum Call {
    Input { site: LinearId, input: Tensor, values: Vec<f64> },
    Routing { shape: [usize; 3], indices: Vec<u32>, weights: Vec<f32> },
    Output { expert: usize, output: Tensor, values: Vec<f64>, gates: Vec<f32> },
}

/// Keeps every call, the values of its tensors as they were then, and fails at the one it should.
#[derive(Default)]
struct Record {
    calls: Vec<Call>,
    fails_at: Option<usize>,
}

impl Record {
    fn keep(&mut self, call: Call) -> Result<(), Error> {
        let fails = self.fails_at == Some(self.calls.len());
        self.calls.push(call);
        if fails { Err(Error::Sink("a failure to pass on".into())) } else { Ok(()) }
    }
}

impl ActivationSink for Record {
    fn linear_input(&mut self, site: LinearId, input: &Tensor) -> Result<(), Error> {
        self.keep(Call::Input { site, input: input.clone(), values: values(input) })
    }

    fn routing(&mut self, choice: &RoutingChoice<'_>) -> Result<(), Error> {
        let shape = [choice.experts, choice.tokens, choice.top_k];
        let (indices, weights) = (choice.indices.to_vec(), choice.weights.to_vec());
        self.keep(Call::Routing { shape, indices, weights })
    }

    fn expert_output(
        &mut self,
        expert: usize,
        output: &Tensor,
        gates: &[f32],
    ) -> Result<(), Error> {
        let (values, gates) = (values(output), gates.to_vec());
        self.keep(Call::Output { expert, output: output.clone(), values, gates })
    }
}

/// The calls of one pass, and what they are compared with.
struct Calls<'a> {
    record: &'a Record,
    layer: &'a LayerSpec,
    linears: Vec<LinearShape>,
    tokens: usize,
    dtype: DType,
}

impl Calls<'_> {
    fn check_order(&self) {
        // Where others stand, such as shared experts, is not promised.
        let place = |call: &Call| match *call {
            Call::Input { site, .. } => match site {
                LinearId::Attention(_) => Some((0, 0, 0)),
                LinearId::Residual(_) | LinearId::Dense(_) => Some((1, 0, 0)),
                LinearId::Router => Some((2, 0, 0)),
                LinearId::Expert(expert, _) => Some((4, expert, 0)),
                _ => None,
            },
            Call::Routing { .. } => Some((3, 0, 0)),
            Call::Output { expert, .. } => Some((4, expert, 1)),
        };
        let places: Vec<_> = self.record.calls.iter().filter_map(place).collect();
        assert!(places.is_sorted(), "calls are not in the order of the computation: {places:?}");
    }

    fn inputs(&self) -> impl Iterator<Item = (LinearId, &Tensor)> {
        self.record.calls.iter().filter_map(|call| match call {
            Call::Input { site, input, .. } => Some((*site, input)),
            _ => None,
        })
    }

    /// The choice of the router, if there is exactly one.
    fn choice(&self) -> Option<(&[usize; 3], &[u32], &[f32])> {
        let mut choices = self.record.calls.iter().filter_map(|call| match call {
            Call::Routing { shape, indices, weights } => Some((shape, &indices[..], &weights[..])),
            _ => None,
        });
        let choice = choices.next();
        assert!(choices.next().is_none(), "the choice of the router comes twice");
        choice
    }

    /// The weights of the tokens routed to an expert, in the order of the tokens.
    fn gates_of(&self, expert: usize) -> Vec<f32> {
        let Some((_, indices, weights)) = self.choice() else { return Vec::new() };
        let chosen = indices.iter().zip(weights).filter(|(index, _)| **index as usize == expert);
        chosen.map(|(_, weight)| *weight).collect()
    }

    fn check_sites(&self) {
        let mut found = BTreeSet::new();
        for (site, input) in self.inputs() {
            assert!(found.insert(site), "the input of {site} comes twice");
            let shape = self.linears.iter().find(|linear| linear.id == site);
            let is_site = self.linears.iter().any(|linear| linear.reads == site);
            assert!(is_site, "the input of {site} is not under its input site");
            let shape = shape.unwrap_or_else(|| panic!("the layer has no {site}"));
            let rows = site.expert().map_or(self.tokens, |expert| self.gates_of(expert).len());
            assert_eq!(input.dims(), [rows, shape.cols], "shape of the input of {site}");
        }
        for linear in &self.linears {
            let idle = linear.id.expert().is_some_and(|expert| self.gates_of(expert).is_empty());
            let site = linear.reads;
            assert_eq!(found.contains(&site), !idle, "whether the input of {site} comes");
        }
    }

    fn check_routing(&self) {
        let Some(moe) = self.layer.moe() else {
            assert!(self.choice().is_none(), "a layer without experts has a choice of experts");
            return;
        };
        let (shape, indices, weights) = self.choice().expect("the choice of the router comes");
        assert_eq!(*shape, [moe.experts, self.tokens, moe.top_k], "experts, tokens and top_k");
        assert_eq!(indices.len(), self.tokens * moe.top_k, "experts of all tokens");
        assert_eq!(weights.len(), indices.len(), "weights of all tokens");
        for (indices, weights) in indices.chunks(moe.top_k).zip(weights.chunks(moe.top_k)) {
            let different: BTreeSet<&u32> = indices.iter().collect();
            assert_eq!(different.len(), moe.top_k, "a token goes through an expert twice");
            assert!(indices.iter().all(|&e| (e as usize) < moe.experts), "there is no such expert");
            let ranked = (1..moe.top_k).all(|i| {
                weights[i - 1] > weights[i]
                    || (weights[i - 1] == weights[i] && indices[i - 1] < indices[i])
            });
            assert!(ranked, "experts of a token by weight: {indices:?} with {weights:?}");
        }
    }

    fn check_experts(&self, width: usize) {
        let mut found = BTreeSet::new();
        for call in &self.record.calls {
            let Call::Output { expert, output, gates, .. } = call else { continue };
            assert!(found.insert(*expert), "the output of expert {expert} comes twice");
            let routed = self.gates_of(*expert);
            assert!(!routed.is_empty(), "expert {expert} has an output and no tokens");
            let of_outputs = match self.layer.moe().map(|moe| moe.router.gate_side()) {
                Some(GateSide::Input) => vec![1.0; routed.len()],
                Some(GateSide::Output) | None => routed.clone(),
            };
            assert_eq!(gates, &of_outputs, "weights of expert {expert}");
            assert_eq!(output.dims(), [routed.len(), width], "shape of expert {expert}'s output");
        }
        for expert in 0..self.layer.moe().map_or(0, |moe| moe.experts) {
            let busy = !self.gates_of(expert).is_empty();
            assert_eq!(found.contains(&expert), busy, "whether the output of {expert} comes");
        }
    }

    fn check_tensors(&self) {
        for call in &self.record.calls {
            let (tensor, then) = match call {
                Call::Input { input, values, .. } => (input, values),
                Call::Output { output, values, .. } => (output, values),
                Call::Routing { .. } => continue,
            };
            assert_eq!(tensor.dtype(), self.dtype, "type of a tensor");
            assert!(values(tensor) == *then, "a tensor changed after the call");
        }
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.to_dtype(DType::F64).and_then(|tensor| tensor.flatten_all());
    flat.and_then(|tensor| tensor.to_vec1()).expect("values of a tensor")
}
