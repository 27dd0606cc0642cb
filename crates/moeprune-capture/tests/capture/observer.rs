//! The sink that fills an observation, on made-up activations.

use candle_core::{DType, Device, Tensor};
use moeprune_capture::{Error, LayerObserver, ObserverOptions};
use moeprune_core::{
    AttentionProjection::{Key, Query},
    LinearId::{self, Attention, Expert, Router},
    MlpProjection::{Down, Gate},
    Observation,
    observation::{Kind, Statistics, Values},
};
use moeprune_model::{ActivationSink, RoutingChoice};
use proptest::{prelude::*, test_runner::TestCaseError};

use crate::parity::{Family, spec};

fn observer() -> LayerObserver {
    LayerObserver::new(&spec(Family::Mixtral), 0, ObserverOptions::default()).unwrap()
}

fn rows(values: &[f32], width: usize) -> Tensor {
    let rows: Vec<Vec<f32>> = values.iter().map(|&value| vec![value; width]).collect();
    Tensor::new(rows, &Device::Cpu).unwrap()
}

fn choice<'a>(top_k: usize, indices: &'a [u32], weights: &'a [f32]) -> RoutingChoice<'a> {
    RoutingChoice { experts: 8, tokens: indices.len() / top_k, top_k, indices, weights }
}

#[test]
fn calls_are_blocks_with_tokens() {
    let mut observer = observer();
    let site = Expert(3, Gate);
    observer.begin_block();
    observer.linear_input(site, &rows(&[1.0, 2.0], 64)).unwrap();
    observer.linear_input(site, &rows(&[3.0], 64)).unwrap();
    observer.begin_block();
    observer.begin_block();
    observer
        .linear_input(site, &Tensor::zeros((0, 64), DType::F32, &Device::Cpu).unwrap())
        .unwrap();
    observer.begin_block();
    observer.linear_input(site, &rows(&[2.0], 64)).unwrap();
    let seen = observer.finish().unwrap();
    let moments = seen.inputs.get(&site).unwrap();
    assert_eq!((moments.tokens, moments.calls), (4, 2));
    assert_eq!(moments.sum_squares, [18.0; 64]);
    let idle = seen.inputs.get(&Expert(4, Down)).unwrap();
    assert_eq!((idle.tokens, idle.calls, idle.sum_squares.len()), (0, 0, 96));
    // Attention, its output, the router, and two sites per expert.
    assert_eq!(seen.inputs.len(), 3 + 2 * 8);
}

#[test]
fn pairs_of_any_top_k_are_counted() {
    for top_k in 1..=8 {
        let mut spec = spec(Family::Mixtral);
        let mut moe = spec.layers[0].moe().unwrap().clone();
        moe.top_k = top_k;
        spec.layers[0].feed_forward = moeprune_core::FeedForward::Moe(moe);
        let mut observer = LayerObserver::new(&spec, 0, ObserverOptions::default()).unwrap();
        let tokens: Vec<Vec<u32>> =
            (0..20).map(|t| (0..top_k as u32).map(|i| (t + i * 3) % 8).collect()).collect();
        let (indices, weights) = (tokens.concat(), vec![0.5; 20 * top_k]);
        observer.routing(&choice(top_k, &indices, &weights)).unwrap();
        let routing = observer.finish().unwrap().routing.unwrap();
        for i in 0..8 {
            let has = |token: &&Vec<u32>, e: usize| token.contains(&(e as u32));
            let alone = tokens.iter().filter(|t| has(t, i)).count() as u64;
            assert_eq!(routing.counts[i], alone);
            assert_eq!(routing.gate_sums[i], alone as f64 / 2.0);
            for j in 0..8 {
                let both = tokens.iter().filter(|t| i != j && has(t, i) && has(t, j)).count();
                assert_eq!(routing.coactivation[i * 8 + j], both as u64);
            }
        }
    }
}

#[test]
fn outputs_are_weighed_by_their_gates() {
    let mut observer = observer();
    observer.routing(&choice(2, &[5, 1, 5, 0], &[0.75, 0.25, 0.5, 0.5])).unwrap();
    observer.expert_output(5, &rows(&[1.0, -2.0], 64), &[0.75, 0.5]).unwrap();
    let routing = observer.finish().unwrap().routing.unwrap();
    assert_eq!(routing.output_norms[5], 24.0);
    assert_eq!(routing.gated_output_norms[5], 14.0);
    assert_eq!(routing.gate_sums[5], 1.25);
    assert_eq!(routing.output_norms[1], 0.0);
}

#[test]
fn only_what_was_asked_for_is_kept() {
    let feed = |routing, inputs| {
        let options = ObserverOptions { routing, inputs, hessians: false };
        let mut observer = LayerObserver::new(&spec(Family::Arctic), 1, options).unwrap();
        observer.begin_block();
        observer.linear_input(Router, &rows(&[1.0], 64)).unwrap();
        observer.routing(&choice(2, &[0, 1], &[0.5, 0.5])).unwrap();
        observer.expert_output(0, &rows(&[1.0], 64), &[0.5]).unwrap();
        let seen = observer.finish().unwrap();
        (seen.routing.is_some(), !seen.inputs.is_empty())
    };
    for asked in [(true, true), (true, false), (false, true), (false, false)] {
        assert_eq!(feed(asked.0, asked.1), asked);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |feed: &dyn Fn(&mut LayerObserver) -> Result<(), moeprune_model::Error>| {
        let mut observer = observer();
        observer.begin_block();
        feed(&mut observer)
            .map(|()| observer.finish().unwrap_err().to_string())
            .unwrap_or_else(|error| error.to_string())
    };
    let input = |site: LinearId, tensor: Tensor| {
        refused(&move |observer| observer.linear_input(site, &tensor))
    };
    let routing = |choice: RoutingChoice<'_>| refused(&|observer| observer.routing(&choice));
    let output = |expert, width, gates: &[f32], value| {
        refused(&|observer| observer.expert_output(expert, &rows(&[value], width), gates))
    };
    let messages = [
        input(Attention(Key), rows(&[1.0], 64)),
        input(Expert(8, Gate), rows(&[1.0], 64)),
        input(Attention(Query), rows(&[1.0], 63)),
        input(Attention(Query), rows(&[1.0], 64).unsqueeze(0).unwrap()),
        input(Attention(Query), rows(&[f32::NAN], 64)),
        input(Router, rows(&[f32::INFINITY], 64)),
        routing(choice(2, &[0, 8], &[0.5, 0.5])),
        routing(choice(2, &[3, 3], &[0.5, 0.5])),
        routing(choice(1, &[3], &[1.0])),
        routing(choice(2, &[3, 4], &[1.0])),
        routing(RoutingChoice { experts: 9, ..choice(2, &[3, 4], &[0.5, 0.5]) }),
        routing(choice(2, &[3, 4], &[f32::NAN, 0.5])),
        output(8, 64, &[1.0], 1.0),
        output(7, 63, &[1.0], 1.0),
        output(7, 64, &[], 1.0),
        output(7, 64, &[1.0], f32::NAN),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r#"
    activation sink: layer 0: input of attention.key: expected an input site of the layer, got none
    activation sink: layer 0: input of expert.8.gate: expected an input site of the layer, got none
    activation sink: layer 0: input of attention.query: expected [tokens, 64], got [1, 63]
    activation sink: layer 0: input of attention.query: expected [tokens, 64], got [1, 1, 64]
    layer 0: the inputs of attention.query are not finite; compute in a wider type, and check that the checkpoint is sound
    layer 0: the inputs of router are not finite; compute in a wider type, and check that the checkpoint is sound
    activation sink: layer 0: routing: expected an expert below 8, got 8
    activation sink: layer 0: routing: expected different experts, got one twice
    activation sink: layer 0: routing: expected 8 experts, top 2, got 8 experts, top 1
    activation sink: layer 0: routing: expected 2 choices, got 1
    activation sink: layer 0: routing: expected 8 experts, top 2, got 9 experts, top 2
    layer 0: the outputs of expert 3 are not finite; compute in a wider type, and check that the checkpoint is sound
    activation sink: layer 0: output of expert 8: expected an expert below 8, got 8
    activation sink: layer 0: output of expert 7: expected [tokens, 64], got [1, 63]
    activation sink: layer 0: output of expert 7: expected 1 gates, got 0
    layer 0: the outputs of expert 7 are not finite; compute in a wider type, and check that the checkpoint is sound
    "#);
    let error = LayerObserver::new(&spec(Family::Mixtral), 3, ObserverOptions::default());
    assert!(matches!(error, Err(Error::NoSuchLayer { layer: 3, layers: 3 })));
}

/// A block of tokens: what each chooses, and the value of everything that is read and put out.
type Block = Vec<(usize, f32)>;

fn observed(blocks: &[Block]) -> Observation {
    let mut observer = observer();
    for block in blocks {
        observer.begin_block();
        let chosen: Vec<u32> =
            block.iter().flat_map(|&(e, _)| [e, (e + 3) % 8].map(|e| e as u32)).collect();
        observer.routing(&choice(2, &chosen, &vec![0.5; chosen.len()])).unwrap();
        for &(expert, value) in block {
            observer.linear_input(Expert(expert, Gate), &rows(&[value], 64)).unwrap();
            observer.expert_output(expert, &rows(&[value], 64), &[0.5]).unwrap();
        }
    }
    Observation {
        model_fingerprint: "m".into(),
        corpora: Vec::new(),
        layers: vec![observer.finish().unwrap()],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Counts and maxima exactly, sums to within the rounding of f64.
    #[test]
    fn observations_of_block_ranges_add_up(
        blocks in prop::collection::vec(prop::collection::vec((0_usize..8, -1e3_f32..1e3), 1..5), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(blocks.len())).collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([blocks.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let mut ranges = starts.zip(ends).map(|(start, end)| observed(&blocks[start..end]));
        let mut sum = ranges.next().unwrap();
        ranges.try_for_each(|range| sum.add(&range)).unwrap();

        let whole = observed(&blocks);
        let (sum, whole) = (&sum.layers[0], &whole.layers[0]);
        alike(sum.routing.as_ref().unwrap(), whole.routing.as_ref().unwrap())?;
        prop_assert_eq!(sum.inputs.len(), whole.inputs.len());
        for (sum, whole) in sum.inputs.values().zip(whole.inputs.values()) {
            alike(sum, whole)?;
        }
    }
}

fn alike<S: Statistics>(sum: &S, whole: &S) -> Result<(), TestCaseError> {
    for row in S::ROWS {
        match (row.kind, row.of(sum), row.of(whole)) {
            (Kind::Sum | Kind::SignedSum, Values::Floats(sum), Values::Floats(whole)) => {
                prop_assert_eq!(sum.len(), whole.len());
                for (a, b) in sum.iter().zip(whole) {
                    // What is summed is at most 1e6 each, thirty times.
                    prop_assert!((a - b).abs() <= 1e-6, "{}: {} and {}", row.name, a, b);
                }
            }
            (_, sum, whole) => prop_assert_eq!(sum, whole, "{}", row.name),
        }
    }
    Ok(())
}
