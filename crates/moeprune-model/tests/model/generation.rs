//! Greedy generation: batched equals alone, and both equal the definition.

use candle_core::DType;
use moeprune_model::{Compute, GenerationOptions, LanguageModel};

use crate::reference::{Checkpoint, floats};

fn model(name: &str, dtype: DType) -> LanguageModel {
    let checkpoint = Checkpoint::open(name);
    LanguageModel::load(&checkpoint, &checkpoint.spec, &Compute::cpu_in(dtype)).unwrap()
}

/// Prompts of many lengths.
fn prompts(count: usize) -> Vec<Vec<u32>> {
    let len = |p: usize| [5, 1, 17, 8, 40, 2, 5, 29, 3][p % 9];
    (0..count)
        .map(|p| (0..len(p)).map(|t| ((p * 71 + t * 37 + t * t) % 256) as u32).collect())
        .collect()
}

fn options(max_new_tokens: usize, batch_size: usize) -> GenerationOptions {
    GenerationOptions { max_new_tokens, batch_size, ..GenerationOptions::default() }
}

/// Runs the whole sequence again for each token.
fn by_definition(model: &LanguageModel, prompt: &[u32], tokens: usize) -> Vec<u32> {
    let mut sequence = prompt.to_vec();
    for _ in 0..tokens {
        let logits = model.logits(&[sequence.clone()]).unwrap();
        let last = floats(&logits[0].narrow(0, sequence.len() - 1, 1).unwrap());
        let best = (0..last.len()).rev().max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
        sequence.push(best as u32);
    }
    sequence.split_off(prompt.len())
}

fn check(name: &str, dtype: DType) {
    let model = model(name, dtype);
    let prompts = prompts(11);
    let alone: Vec<_> = prompts
        .iter()
        .map(|p| {
            model
                .generate(std::slice::from_ref(p), &options(12, 1), &mut |_, _| false)
                .unwrap()
                .remove(0)
        })
        .collect();
    for batch in [2, 3, 64] {
        let together = model.generate(&prompts, &options(12, batch), &mut |_, _| false).unwrap();
        assert_eq!(together, alone, "{name} in batches of {batch}");
    }
    for (prompt, got) in prompts.iter().zip(&alone).take(4) {
        assert_eq!(got, &by_definition(&model, prompt, 12), "{name}");
    }
}

#[test]
fn batched_equals_alone_equals_the_definition() {
    check("arctic", DType::F32);
    check("arctic_freq2", DType::F32);
    check("mixtral", DType::F32);
    check("mixtral", DType::F64);
}

/// Not only the tokens: the logits have the same bits.
#[test]
fn a_sequence_does_not_see_the_others() {
    let model = model("arctic", DType::F32);
    let prompts = prompts(9);
    let together = model.logits(&prompts).unwrap();
    for (prompt, logits) in prompts.iter().zip(&together) {
        let alone = model.logits(std::slice::from_ref(prompt)).unwrap();
        assert_eq!(floats(&alone[0]), floats(logits), "{} tokens", prompt.len());
    }
}

#[test]
fn threads_do_not_matter() {
    let model = model("mixtral", DType::F32);
    let prompts = prompts(6);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| model.logits(&prompts).unwrap().iter().flat_map(floats).collect::<Vec<_>>())
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn stop_ids_end_a_sequence_and_are_left_out() {
    let model = model("arctic", DType::F32);
    let prompts = prompts(7);
    let free = model.generate(&prompts, &options(10, 4), &mut |_, _| false).unwrap();
    let stop = free[2][5];
    let options = GenerationOptions { stop_ids: vec![stop], ..options(10, 4) };
    let stopped = model.generate(&prompts, &options, &mut |_, _| false).unwrap();
    for (free, stopped) in free.iter().zip(stopped) {
        let end = free.iter().position(|&t| t == stop).unwrap_or(free.len());
        assert_eq!(stopped, free[..end]);
    }
}

#[test]
fn the_caller_can_stop_a_sequence() {
    let model = model("mixtral", DType::F32);
    let prompts = prompts(8);
    let free = model.generate(&prompts, &options(9, 3), &mut |_, _| false).unwrap();
    let mut calls = vec![0; prompts.len()];
    let mut stop = |index: usize, tokens: &[u32]| {
        calls[index] += 1;
        assert_eq!(tokens.len(), calls[index]);
        assert_eq!(tokens, &free[index][..tokens.len()]);
        tokens.len() == index + 1
    };
    let stopped = model.generate(&prompts, &options(9, 3), &mut stop).unwrap();
    for (index, tokens) in stopped.iter().enumerate() {
        assert_eq!(tokens, &free[index][..index + 1]);
    }
}

#[test]
fn nothing_to_do() {
    let model = model("arctic", DType::F32);
    let none: Vec<Vec<u32>> = Vec::new();
    assert_eq!(model.generate(&[], &options(5, 2), &mut |_, _| false).unwrap(), none);
    let nothing = model.generate(&prompts(2), &options(0, 2), &mut |_, _| false).unwrap();
    assert_eq!(nothing, vec![Vec::<u32>::new(); 2]);
    assert!(model.logits(&[]).unwrap().is_empty());
}
