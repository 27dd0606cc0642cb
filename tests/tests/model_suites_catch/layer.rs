//! A layer whose calls of the sink, or whose result, have one fault at a time.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use candle_core::{DType, Tensor, Var};
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{AttentionProjection, LinearId};
use moeprune_model::{ActivationSink, Compute, Embedding, Error, Layer, RoutingChoice};
use moeprune_tests::conformance::layer::check;

use crate::caught;

/// A call of the sink.
#[derive(Debug, Clone)]
enum Call {
    Input(LinearId, Tensor),
    Routing { experts: usize, tokens: usize, top_k: usize, indices: Vec<u32>, weights: Vec<f32> },
    Output(usize, Tensor, Vec<f32>),
}

/// Keeps every call.
#[derive(Debug, Default)]
struct Calls(Vec<Call>);

impl ActivationSink for Calls {
    fn linear_input(&mut self, site: LinearId, input: &Tensor) -> Result<(), Error> {
        self.0.push(Call::Input(site, input.clone()));
        Ok(())
    }

    fn routing(&mut self, choice: &RoutingChoice<'_>) -> Result<(), Error> {
        let RoutingChoice { experts, tokens, top_k, indices, weights } = *choice;
        let (indices, weights) = (indices.to_vec(), weights.to_vec());
        self.0.push(Call::Routing { experts, tokens, top_k, indices, weights });
        Ok(())
    }

    fn expert_output(
        &mut self,
        expert: usize,
        output: &Tensor,
        gates: &[f32],
    ) -> Result<(), Error> {
        self.0.push(Call::Output(expert, output.clone(), gates.to_vec()));
        Ok(())
    }
}

impl Calls {
    fn replay(self, sink: &mut dyn ActivationSink) -> Result<(), Error> {
        for call in self.0 {
            match call {
                Call::Input(site, input) => sink.linear_input(site, &input)?,
                Call::Output(expert, output, gates) => {
                    sink.expert_output(expert, &output, &gates)?;
                }
                Call::Routing { experts, tokens, top_k, indices, weights } => {
                    let (indices, weights) = (&indices, &weights);
                    sink.routing(&RoutingChoice { experts, tokens, top_k, indices, weights })?;
                }
            }
        }
        Ok(())
    }

    fn at_input(&self, wanted: impl Fn(LinearId) -> bool) -> usize {
        let is = |call: &Call| matches!(call, Call::Input(site, _) if wanted(*site));
        self.0.iter().position(is).unwrap()
    }

    fn at_routing(&self) -> usize {
        self.0.iter().position(|call| matches!(call, Call::Routing { .. })).unwrap()
    }

    fn at_output(&self) -> usize {
        self.0.iter().position(|call| matches!(call, Call::Output(..))).unwrap()
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.0.swap(a, b);
    }

    fn remove(&mut self, at: usize) {
        self.0.remove(at);
    }

    fn twice(&mut self, at: usize) {
        self.0.insert(at, self.0[at].clone());
    }

    fn edit_tensor(&mut self, at: usize, edit: impl Fn(&Tensor) -> candle_core::Result<Tensor>) {
        let (Call::Input(_, tensor) | Call::Output(_, tensor, _)) = &mut self.0[at] else {
            panic!("a call without a tensor")
        };
        *tensor = edit(tensor).unwrap();
    }

    fn edit_choice(&mut self, edit: impl Fn(&mut [u32], &mut [f32])) {
        let at = self.at_routing();
        let Call::Routing { indices, weights, .. } = &mut self.0[at] else { unreachable!() };
        edit(indices, weights);
    }
}

type Edit<'a> = &'a (dyn Fn(&mut Calls) + Sync);
type EditResult<'a> = &'a (dyn Fn(Tensor) -> candle_core::Result<Tensor> + Sync);

/// A layer whose calls of the sink and result are edited.
struct Faulty<'a> {
    layer: &'a Layer,
    calls: Edit<'a>,
    result: EditResult<'a>,
    ignores_errors: bool,
}

impl Faulty<'_> {
    fn forward(&self, hidden: &Tensor, sink: &mut dyn ActivationSink) -> Result<Tensor, Error> {
        let mut calls = Calls::default();
        let out = self.layer.forward(hidden, 0, None, &mut calls)?;
        (self.calls)(&mut calls);
        let replayed = calls.replay(sink);
        if !self.ignores_errors {
            replayed?;
        }
        Ok((self.result)(out)?)
    }
}

/// A layer, and what it is run on.
struct Fixture {
    checkpoint: Checkpoint,
    index: usize,
    layer: Layer,
    hidden: Tensor,
}

impl Fixture {
    /// Attention, a residual MLP and eight experts.
    fn with_experts() -> Self {
        Self::open("arctic", 1)
    }

    fn open(name: &str, index: usize) -> Self {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/parity");
        let checkpoint = Checkpoint::open(&assets.join(name)).unwrap();
        let (spec, compute) = (checkpoint.spec(), Compute::cpu());
        let tokens: Vec<u32> = (0..10).map(|i| (i * 37 + 5) % spec.vocab as u32).collect();
        let embedding = Embedding::load(&checkpoint, spec, &compute).unwrap();
        let hidden = embedding.embed(&tokens).unwrap().reshape((2, 5, spec.hidden)).unwrap();
        let layer = Layer::load(&checkpoint, spec, index, &compute).unwrap();
        Self { checkpoint, index, layer, hidden }
    }

    fn faulty(&self) -> Faulty<'_> {
        Faulty { layer: &self.layer, calls: &|_| {}, result: &Ok, ignores_errors: false }
    }

    fn check(&self, layer: &Faulty<'_>) {
        let forward = |hidden: &Tensor, sink: &mut dyn ActivationSink| layer.forward(hidden, sink);
        check(&forward, self.checkpoint.spec(), self.index, &self.hidden);
    }
}

#[test]
fn no_fault() {
    let fixture = Fixture::with_experts();
    fixture.check(&fixture.faulty());
}

#[test]
fn choices_of_a_layer_without_experts() {
    let fixture = Fixture::open("arctic_freq2", 0);
    fixture.check(&fixture.faulty());
    let calls = |calls: &mut Calls| {
        let (indices, weights) = (vec![0; 10], vec![1.0; 10]);
        calls.0.push(Call::Routing { experts: 1, tokens: 10, top_k: 1, indices, weights });
    };
    let layer = Faulty { calls: &calls, ..fixture.faulty() };
    caught(|| fixture.check(&layer), "a layer without experts has a choice of experts");
}

#[test]
fn results_that_break_the_contract() {
    let fixture = Fixture::with_experts();
    let check = |result: EditResult<'_>, message| {
        caught(|| fixture.check(&Faulty { result, ..fixture.faulty() }), message);
    };
    check(&|out| out.flatten(0, 1), "shape of the result");
    let batch = |out: Tensor| &out * out.dims()[0] as f64;
    check(&batch, "the result of a sequence depends on the others");
    let calls = AtomicUsize::new(1);
    let other = |out: Tensor| out * calls.fetch_add(1, Ordering::Relaxed) as f64;
    check(&other, "the result depends on the sink");
    let deaf = || Faulty { ignores_errors: true, ..fixture.faulty() };
    caught(|| fixture.check(&deaf()), "an error of the sink is ignored");
}

/// The suite must find what `calls` does to the calls of the sink, and say `message`.
#[track_caller]
fn catches(calls: Edit<'_>, message: &str) {
    let fixture = Fixture::with_experts();
    caught(|| fixture.check(&Faulty { calls, ..fixture.faulty() }), message);
}

fn is_router(site: LinearId) -> bool {
    site == LinearId::Router
}

fn is_expert(site: LinearId) -> bool {
    site.expert().is_some()
}

fn is_attention(site: LinearId) -> bool {
    matches!(site, LinearId::Attention(_))
}

#[test]
fn calls_out_of_order() {
    let order = "calls are not in the order of the computation";
    catches(&|calls| calls.0.reverse(), order);
    catches(&|calls| calls.0.rotate_left(1), order);
    catches(&|calls| calls.swap(calls.at_routing(), calls.at_input(is_router)), order);
    catches(&|calls| calls.swap(calls.at_output(), calls.at_output() - 1), order);
    catches(&|calls| calls.swap(calls.at_input(is_expert), calls.at_routing()), order);
}

#[test]
fn inputs_that_break_the_contract() {
    let rename = |calls: &mut Calls, to| {
        let at = calls.at_input(is_attention);
        let Call::Input(site, _) = &mut calls.0[at] else { unreachable!() };
        *site = LinearId::Attention(to);
    };
    catches(&|calls| rename(calls, AttentionProjection::Key), "is not under its input site");
    catches(&|calls| rename(calls, AttentionProjection::Output), "comes twice");
    for wanted in [is_attention, is_router, is_expert] {
        catches(&|calls| calls.twice(calls.at_input(wanted)), "comes twice");
        catches(&|calls| calls.remove(calls.at_input(wanted)), "whether the input of");
        let fewer = |t: &Tensor| t.narrow(1, 1, t.dims()[1] - 1);
        catches(&|calls| calls.edit_tensor(calls.at_input(wanted), fewer), "shape of the input");
        let more = |t: &Tensor| Tensor::cat(&[t, t], 0);
        catches(&|calls| calls.edit_tensor(calls.at_input(wanted), more), "shape of the input");
        let other = |t: &Tensor| t.to_dtype(DType::F64);
        catches(&|calls| calls.edit_tensor(calls.at_input(wanted), other), "type of a tensor");
    }
}

#[test]
fn choices_that_break_the_contract() {
    catches(&|calls| calls.twice(calls.at_routing()), "the choice of the router comes twice");
    let none = |calls: &mut Calls| {
        calls.0.retain(|call| match call {
            Call::Input(site, _) => !is_expert(*site),
            Call::Routing { .. } | Call::Output(..) => false,
        });
    };
    catches(&none, "the choice of the router comes");
    let unsorted = |indices: &mut [u32], weights: &mut [f32]| {
        indices.swap(0, 1);
        weights.swap(0, 1);
    };
    catches(&|calls| calls.edit_choice(unsorted), "experts of a token by weight");
    let weights = |_: &mut [u32], weights: &mut [f32]| weights[0] *= 2.0;
    catches(&|calls| calls.edit_choice(weights), "weights of expert");
    let same = |indices: &mut [u32], _: &mut [f32]| indices[0] = indices[1];
    catches(&|calls| calls.edit_choice(same), "a token goes through an expert twice");
    let missing = |indices: &mut [u32], _: &mut [f32]| indices[0] = 99;
    catches(&|calls| calls.edit_choice(missing), "there is no such expert");
    let larger = |calls: &mut Calls| {
        let at = calls.at_routing();
        let Call::Routing { top_k, .. } = &mut calls.0[at] else { unreachable!() };
        *top_k += 1;
    };
    catches(&larger, "experts, tokens and top_k");
}

#[test]
fn outputs_that_break_the_contract() {
    catches(&|calls| calls.twice(calls.at_output()), "comes twice");
    catches(&|calls| calls.remove(calls.at_output()), "whether the output of");
    let narrow = |t: &Tensor| t.narrow(1, 1, t.dims()[1] - 1);
    catches(&|calls| calls.edit_tensor(calls.at_output(), narrow), "'s output");
    let idle = |calls: &mut Calls| {
        let at = calls.at_output();
        let Call::Output(_, output, gates) = calls.0[at].clone() else { unreachable!() };
        calls.0.push(Call::Output(99, output, gates));
    };
    catches(&idle, "expert 99 has an output and no tokens");
    let gates = |calls: &mut Calls| {
        let at = calls.at_output();
        let Call::Output(_, _, gates) = &mut calls.0[at] else { unreachable!() };
        gates[0] = 7.0;
    };
    catches(&gates, "weights of expert");
}

#[test]
fn tensors_that_change_afterwards() {
    let fixture = Fixture::with_experts();
    let shared = Mutex::new(None);
    let share = |calls: &mut Calls| {
        let at = calls.at_output();
        calls.edit_tensor(at, |tensor| {
            let var = Var::from_tensor(tensor)?;
            let seen = var.as_tensor().clone();
            shared.lock().unwrap().get_or_insert(var);
            Ok(seen)
        });
    };
    let change = |out| {
        let var = shared.lock().unwrap();
        let var: &Var = var.as_ref().unwrap();
        var.set(&var.zeros_like()?)?;
        Ok(out)
    };
    let layer = Faulty { calls: &share, result: &change, ..fixture.faulty() };
    caught(|| fixture.check(&layer), "a tensor changed after the call");
}
