//! Statistics of experts whose router multiplies what they read, against a direct computation.

use std::ops::ControlFlow;

use candle_core::Tensor;
use moeprune_capture::{ObserverOptions, StoredLayer, TokenBlocks, embed_blocks};
use moeprune_core::{
    FeedForward, GateSide, InputMoments, LayerObservation, LinearId, MlpProjection, ModelSpec,
    RouterSpec, Score, ScoredRouter,
};
use moeprune_model::{
    ActivationSink, Compute, Embedding, Error, Expert, LayerTrunk, RoutingChoice, TrunkOutput,
};

use crate::parity::{Family, Weights, spec};

/// Mixtral with the router of Llama 4.
fn weighing_inputs(top_k: usize) -> ModelSpec {
    let mut spec = spec(Family::Mixtral);
    for layer in &mut spec.layers {
        let FeedForward::Moe(moe) = &mut layer.feed_forward else { panic!("experts everywhere") };
        moe.top_k = top_k;
        moe.router = RouterSpec::Scored(ScoredRouter {
            score: Score::Sigmoid,
            selects_logits: true,
            gates: GateSide::Input,
            ..ScoredRouter::softmax(false)
        });
    }
    spec
}

/// What the router read and chose.
#[derive(Default)]
struct Routing {
    read: Option<Tensor>,
    indices: Vec<u32>,
    weights: Vec<f32>,
}

impl ActivationSink for Routing {
    fn linear_input(&mut self, site: LinearId, input: &Tensor) -> Result<(), Error> {
        if site == LinearId::Router {
            self.read = Some(input.clone());
        }
        Ok(())
    }

    fn routing(&mut self, choice: &RoutingChoice<'_>) -> Result<(), Error> {
        self.indices = choice.indices.to_vec();
        self.weights = choice.weights.to_vec();
        Ok(())
    }
}

/// What an expert's Linears read.
#[derive(Default)]
struct Squares(Vec<(LinearId, Vec<f64>)>);

impl ActivationSink for Squares {
    fn linear_input(&mut self, site: LinearId, input: &Tensor) -> Result<(), Error> {
        let squares = rows(input).concat().iter().map(|x| x * x).collect();
        self.0.push((site, squares));
        Ok(())
    }
}

fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
    let rows: Vec<Vec<f32>> = tensor.to_vec2().unwrap();
    rows.into_iter().map(|row| row.into_iter().map(f64::from).collect()).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[track_caller]
fn assert_near(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= 1e-4 * want.abs().max(1e-3), "{what}: {got} {want}");
    }
}

/// What one token makes in an expert.
struct Passage {
    expert: usize,
    gate: f64,
    output: Vec<f64>,
    squares: Vec<(LinearId, Vec<f64>)>,
    /// The norm of what the expert makes of the same token if nothing multiplies it.
    unweighed: f64,
}

fn passages(routing: &Routing, experts: &[Expert], top_k: usize) -> Vec<Vec<Passage>> {
    let read = routing.read.as_ref().unwrap();
    let chosen = routing.indices.chunks(top_k).zip(routing.weights.chunks(top_k)).enumerate();
    let of_token = |(token, (indices, weights)): (usize, (&[u32], &[f32]))| {
        let x = read.narrow(0, token, 1).unwrap();
        let through = |(&expert, &gate): (&u32, &f32)| {
            let expert = &experts[expert as usize];
            let mut squares = Squares::default();
            let output = expert.forward(&(&x * f64::from(gate)).unwrap(), &mut squares).unwrap();
            let plain = expert.forward(&x, &mut moeprune_model::NoSink).unwrap();
            Passage {
                expert: expert.index(),
                gate: f64::from(gate),
                output: rows(&output).concat(),
                squares: squares.0,
                unweighed: norm(&rows(&plain).concat()),
            }
        };
        indices.iter().zip(weights).map(through).collect()
    };
    chosen.map(of_token).collect()
}

fn check_sums(observed: &LayerObservation, passages: &[Vec<Passage>], experts: usize) {
    let routing = observed.routing.as_ref().unwrap();
    let sum = |of: &dyn Fn(&Passage) -> f64| -> Vec<f64> {
        let mut sums = vec![0.0; experts];
        for passage in passages.iter().flatten() {
            sums[passage.expert] += of(passage);
        }
        sums
    };
    assert_near("gates", &routing.gate_sums, &sum(&|passage| passage.gate));
    let norms = sum(&|passage| norm(&passage.output));
    assert_near("norms", &routing.output_norms, &norms);
    // The weight is in the output already, and counts no second time.
    assert_near("gated norms", &routing.gated_output_norms, &norms);
    let wrong = sum(&|passage| passage.gate * passage.unweighed);
    assert!(norms.iter().zip(&wrong).any(|(a, b)| (a - b).abs() > 0.05 * b.abs()), "no difference");

    for expert in 0..experts {
        for projection in [MlpProjection::Gate, MlpProjection::Down] {
            let site = LinearId::Expert(expert, projection);
            let InputMoments { tokens, sum_squares, .. } = &observed.inputs[&site];
            assert_eq!(*tokens, routing.counts[expert], "{site}");
            let mut want = vec![0.0; sum_squares.len()];
            let squares = passages.iter().flatten().flat_map(|passage| &passage.squares);
            for (_, squares) in squares.filter(|(of, _)| *of == site) {
                want.iter_mut().zip(squares).for_each(|(sum, x)| *sum += x);
            }
            assert_near(&site.to_string(), sum_squares, &want);
        }
    }
}

fn check(top_k: usize) {
    let (spec, weights, cpu) =
        (weighing_inputs(top_k), Weights::load(Family::Mixtral), &Compute::cpu());
    let token = |i: u32| (i * i * 31 + i * 17 + 5) % spec.vocab as u32;
    let blocks = TokenBlocks::new(vec![(0..60).map(token).collect()], spec.vocab).unwrap();
    let embedding = Embedding::load(&weights, &spec, cpu).unwrap();
    let hidden = embed_blocks(&embedding, &blocks, 1).unwrap();
    let experts: Vec<Expert> =
        (0..8).map(|e| Expert::load(&weights, &spec, 0, e, cpu).unwrap()).collect();
    let trunk = LayerTrunk::load(&weights, &spec, 0, cpu).unwrap();
    let mut routing = Routing::default();
    let TrunkOutput { sum, .. } = trunk.forward(&hidden[0], &mut routing).unwrap();
    let passages = passages(&routing, &experts, top_k);

    let stored = StoredLayer { source: &weights, spec: &spec, layer: 0, compute: cpu };
    let go_on = &mut |_| ControlFlow::Continue(());
    let (observed, outputs) =
        stored.observe_and_advance(hidden, ObserverOptions::default(), go_on).unwrap();
    check_sums(&observed.rounded(), &passages, experts.len());
    let mut want = rows(&sum.into_tensor().unwrap());
    for (want, passages) in want.iter_mut().zip(&passages) {
        for passage in passages {
            want.iter_mut().zip(&passage.output).for_each(|(sum, x)| *sum += x);
        }
    }
    assert_near("outputs", &rows(&outputs[0].squeeze(0).unwrap()).concat(), &want.concat());
}

#[test]
fn sums_are_of_what_experts_read_and_make() {
    check(1);
    check(3);
}
