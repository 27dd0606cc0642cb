//! One expert in memory at a time, and stopping on the way.

use std::ops::ControlFlow;

use candle_core::Tensor;
use moeprune_capture::{
    CaptureProgress, ObserverOptions, TokenBlocks, embed_blocks, observe, observe_and_advance,
    observe_layer, passes,
};
use moeprune_core::CorpusTag;
use moeprune_model::{Compute, Embedding, Layer};

use crate::parity::{Family, Weights, spec};

const CONTINUE: ControlFlow<()> = ControlFlow::Continue(());

fn tag(samples: u64, sequence_len: u64) -> CorpusTag {
    CorpusTag {
        name: String::new(),
        sha256: String::new(),
        samples,
        sequence_len,
        seed: 0,
        repeated: 1,
    }
}

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
        let mut whole = Vec::new();
        let seen = observe_layer(&layer, &spec, index, &hidden, Some(&mut whole), options).unwrap();
        let mut passed = 0;
        let mut watch = |more| {
            passed += more;
            CONTINUE
        };
        let (streamed_seen, streamed) =
            observe_and_advance(&weights, &spec, cpu, index, hidden, options, &mut watch).unwrap();
        assert_eq!(passed, passes(&spec, index, blocks.tokens()));
        assert_eq!(streamed_seen, seen, "layer {index}");
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

#[test]
fn progress_counts_every_pass_of_every_layer() {
    let spec = spec(Family::Mixtral);
    let blocks = blocks(2, 5, spec.vocab);
    let mut last = Vec::new();
    let mut progress = |p: CaptureProgress| {
        assert_eq!((p.layers, p.passes_total), (3, 30));
        last.truncate(p.layer);
        last.push(p.passes_done);
        CONTINUE
    };
    let weights = Weights::load(Family::Mixtral);
    let print = String::new();
    observe(&weights, &spec, &blocks, &Compute::cpu(), 1, tag(2, 5), print, &mut progress).unwrap();
    assert_eq!(last, [30, 30, 30]);
}

#[test]
fn the_caller_can_stop_it_anywhere() {
    let spec = spec(Family::Mixtral);
    let weights = Weights::load(Family::Mixtral);
    for after in 0..8 {
        let mut calls = 0;
        let mut progress = |_| {
            calls += 1;
            if calls > after { ControlFlow::Break(()) } else { CONTINUE }
        };
        let (blocks, print) = (blocks(2, 5, spec.vocab), String::new());
        let stopped =
            observe(&weights, &spec, &blocks, &Compute::cpu(), 1, tag(2, 5), print, &mut progress);
        assert!(matches!(stopped, Err(moeprune_capture::Error::Stopped)));
        assert_eq!(calls, after + 1);
    }
}

#[test]
fn a_missing_tensor_names_the_layer() {
    let mut spec = spec(Family::Mixtral);
    spec.layers.push(spec.layers[0].clone());
    let blocks = blocks(1, 5, spec.vocab);
    let weights = Weights::load(Family::Mixtral);
    let print = String::new();
    let error =
        observe(&weights, &spec, &blocks, &Compute::cpu(), 1, tag(1, 5), print, &mut |_| CONTINUE)
            .unwrap_err();
    assert!(error.to_string().starts_with("layer 3: "), "{error}");
}
