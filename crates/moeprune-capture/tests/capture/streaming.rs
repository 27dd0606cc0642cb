//! One expert in memory at a time, and stopping on the way.

use std::ops::ControlFlow;

use candle_core::Tensor;
use moeprune_capture::{Error, ObserverOptions, StoredLayer, TokenBlocks, embed_blocks, passes};
use moeprune_model::{Compute, Embedding, Layer};

use crate::parity::{Family, Weights, observe_whole, spec};

const CONTINUE: ControlFlow<()> = ControlFlow::Continue(());

/// Tokens that look random and reach every expert.
fn blocks(count: usize, len: usize, vocab: usize) -> TokenBlocks {
    let token = |i: usize| ((i * i * 31 + i * 17 + 5) % vocab) as u32;
    let block = |b: usize| (0..len).map(|t| token(b * len + t)).collect();
    TokenBlocks::new((0..count).map(block).collect(), vocab).unwrap()
}

/// An expert at a time gives the bits of a whole layer at a time: outputs and sums, also where an
/// expert's tokens come in several batches.
fn check_streamed(family: Family, count: usize, len: usize) {
    let (spec, weights) = (spec(family), Weights::load(family));
    let cpu = &Compute::cpu();
    let blocks = blocks(count, len, spec.vocab);
    let embedding = Embedding::load(&weights, &spec, cpu).unwrap();
    let mut hidden = embed_blocks(&embedding, &blocks, 1).unwrap();
    let options = ObserverOptions::default();
    for index in 0..spec.layers.len() {
        let layer = Layer::load(&weights, &spec, index, cpu).unwrap();
        let (seen, whole) = observe_whole(&layer, &spec, index, &hidden, options);
        let mut passed = 0;
        let mut watch = |more| {
            passed += more;
            CONTINUE
        };
        let stored = StoredLayer { source: &weights, spec: &spec, layer: index, compute: cpu };
        let (streamed_seen, streamed) =
            stored.observe_and_advance(hidden, options, &mut watch).unwrap();
        assert_eq!(passed, passes(&spec, index, blocks.tokens()));
        assert_eq!(streamed_seen.rounded(), seen, "layer {index}");
        let bits = |tensors: &[Tensor]| -> Vec<u32> {
            let values = tensors.iter().flat_map(|t| t.flatten_all().unwrap().to_vec1().unwrap());
            values.map(f32::to_bits).collect()
        };
        assert!(bits(&streamed) == bits(&whole), "layer {index}");
        hidden = streamed;
    }
}

#[test]
fn an_expert_at_a_time_gives_the_bits_of_a_layer_at_a_time() {
    check_streamed(Family::Mixtral, 1, 1);
    check_streamed(Family::Mixtral, 3, 50);
    check_streamed(Family::Arctic, 3, 50);
    check_streamed(Family::Mixtral, 24, 100);
    check_streamed(Family::Arctic, 24, 100);
}

/// Runs layer `layer` on embedded blocks, calling `watch`.
fn run(layer: usize, mut watch: impl FnMut(u64) -> ControlFlow<()>) -> Result<Vec<Tensor>, Error> {
    let mut spec = spec(Family::Mixtral);
    // One layer more than there are weights of.
    spec.layers.push(spec.layers[0].clone());
    let weights = Weights::load(Family::Mixtral);
    let compute = &Compute::cpu();
    let embedding = Embedding::load(&weights, &spec, compute).unwrap();
    let hidden = embed_blocks(&embedding, &blocks(2, 5, spec.vocab), 1).unwrap();
    let stored = StoredLayer { source: &weights, spec: &spec, layer, compute };
    let options = ObserverOptions::default();
    Ok(stored.observe_and_advance(hidden, options, &mut watch)?.1)
}

#[test]
fn the_caller_can_stop_it_anywhere() {
    let mut all = 0;
    let count = |_| {
        all += 1;
        CONTINUE
    };
    run(0, count).unwrap();
    for after in 0..all {
        let mut calls = 0;
        let stopped = run(0, |_| {
            calls += 1;
            if calls > after { ControlFlow::Break(()) } else { CONTINUE }
        });
        assert!(matches!(stopped, Err(Error::Stopped)));
        assert_eq!(calls, after + 1);
    }
}

#[test]
fn a_missing_tensor_names_the_layer() {
    let error = run(3, |_| CONTINUE).unwrap_err();
    assert!(error.to_string().starts_with("layer 3: "), "{error}");
}
