//! What an [`ActivationSink`] promises to the layers that call it.

use std::{collections::BTreeMap, fmt};

use candle_core::{DType, Device, Tensor};
use moeprune_core::{LinearId, ModelSpec};
use moeprune_model::{ActivationSink, Error, RoutingChoice};

/// The types that layers compute in.
const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F64];
/// Tokens of a pass: one, some, and more than most sinks take at a time.
const TOKENS: [usize; 3] = [1, 7, 600];

/// Holds the sinks that `new` makes for a layer of a model to their contract, on made-up activations of that layer:
///
/// * a sink takes everything that a layer reports: any number of tokens in each of several passes, in each type that layers compute
///   in, and experts that no token reached, of which nothing comes;
/// * it does not change the tensors, which the layer still computes with;
/// * equal activations in equal order give equal results, as `result` reads them off.
///
/// # Panics
/// If one of these is broken.
pub fn check<S, T>(spec: &ModelSpec, layer: usize, new: impl Fn() -> S, result: impl Fn(S) -> T)
where
    S: ActivationSink,
    T: PartialEq + fmt::Debug,
{
    for dtype in DTYPES {
        let passes = TOKENS.map(|tokens| Pass::new(spec, layer, tokens, dtype));
        let run = || {
            let mut sink = new();
            passes.iter().for_each(|pass| pass.report(&mut sink));
            result(sink)
        };
        assert_eq!(run(), run(), "equal activations of {dtype:?} give two results");
    }
}

/// What one pass of a layer reports.
struct Pass {
    /// Before the router's choice, in the order of the computation.
    trunk: Vec<(LinearId, Tensor)>,
    choice: Option<Choice>,
    experts: Vec<ExpertCalls>,
}

struct Choice {
    experts: usize,
    tokens: usize,
    top_k: usize,
    indices: Vec<u32>,
    weights: Vec<f32>,
}

struct ExpertCalls {
    expert: usize,
    inputs: Vec<(LinearId, Tensor)>,
    output: Tensor,
    gates: Vec<f32>,
}

impl Pass {
    fn new(spec: &ModelSpec, layer: usize, tokens: usize, dtype: DType) -> Self {
        let linears = spec.linears(layer);
        let sites: BTreeMap<LinearId, usize> =
            linears.iter().map(|linear| (linear.reads, linear.cols)).collect();
        let of = |expert: Option<usize>, rows: usize| {
            let sites = sites.iter().filter(move |(site, _)| site.expert() == expert);
            sites.map(|(&site, &cols)| (site, numbers(rows, cols, dtype))).collect()
        };
        let choice = spec.layers[layer].moe().map(|moe| {
            // The last expert stays idle where there are enough others.
            let busy = moe.experts.saturating_sub(1).max(moe.top_k);
            let ranks = (0..tokens).flat_map(|token| (0..moe.top_k).map(move |rank| (token, rank)));
            let indices = ranks.clone().map(|(token, rank)| ((token + rank) % busy) as u32);
            let weights = ranks.map(|(_, rank)| 1.0 / (rank + 2) as f32);
            Choice {
                experts: moe.experts,
                tokens,
                top_k: moe.top_k,
                indices: indices.collect(),
                weights: weights.collect(),
            }
        });
        let experts = choice.iter().flat_map(Choice::busy).map(|(expert, gates)| ExpertCalls {
            expert,
            inputs: of(Some(expert), gates.len()),
            output: numbers(gates.len(), spec.hidden, dtype),
            gates,
        });
        let experts = experts.collect();
        let mut trunk: Vec<(LinearId, Tensor)> = of(None, tokens);
        trunk.sort_by_key(|(site, _)| *site == LinearId::Router);
        Self { trunk, choice, experts }
    }

    fn report(&self, sink: &mut dyn ActivationSink) {
        for (site, input) in &self.trunk {
            take(input, &format!("the input of {site}"), |input| sink.linear_input(*site, input));
        }
        if let Some(Choice { experts, tokens, top_k, indices, weights }) = &self.choice {
            let (experts, tokens, top_k) = (*experts, *tokens, *top_k);
            let choice = RoutingChoice { experts, tokens, top_k, indices, weights };
            sink.routing(&choice).unwrap_or_else(|e| panic!("the router's choice is refused: {e}"));
        }
        for ExpertCalls { expert, inputs, output, gates } in &self.experts {
            for (site, input) in inputs {
                let what = format!("the input of {site}");
                take(input, &what, |input| sink.linear_input(*site, input));
            }
            let what = format!("the output of expert {expert}");
            take(output, &what, |output| sink.expert_output(*expert, output, gates));
        }
    }
}

impl Choice {
    /// Experts that a token reached, ascending, with the weights of their tokens.
    fn busy(&self) -> Vec<(usize, Vec<f32>)> {
        let gates = |expert: usize| {
            let chosen = self.indices.iter().zip(&self.weights);
            let chosen = chosen.filter(move |(index, _)| **index as usize == expert);
            (expert, chosen.map(|(_, weight)| *weight).collect::<Vec<f32>>())
        };
        (0..self.experts).map(gates).filter(|(_, gates)| !gates.is_empty()).collect()
    }
}

/// The sink must take a tensor and leave its values alone.
fn take(tensor: &Tensor, what: &str, call: impl FnOnce(&Tensor) -> Result<(), Error>) {
    let before = values(tensor);
    let (dims, dtype) = (tensor.dims(), tensor.dtype());
    call(tensor).unwrap_or_else(|e| panic!("{what}, {dims:?} of {dtype:?}, is refused: {e}"));
    assert!(values(tensor) == before, "{what} is changed");
}

/// Small numbers that every type holds.
fn numbers(rows: usize, cols: usize, dtype: DType) -> Tensor {
    let values: Vec<f32> = (0..rows * cols).map(|i| (i * 37 % 61) as f32 / 16.0 - 2.0).collect();
    let tensor = Tensor::from_vec(values, (rows, cols), &Device::Cpu);
    tensor.and_then(|tensor| tensor.to_dtype(dtype)).expect("numbers of a tensor")
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.to_dtype(DType::F64).and_then(|tensor| tensor.flatten_all());
    flat.and_then(|tensor| tensor.to_vec1()).expect("values of a tensor")
}
