//! Models of every family, with experts that are read when they are needed and with beginnings that are run once:
//! the same answers, bit for bit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_core::DType;
use moeprune_checkpoint::Checkpoint;
use moeprune_core::ModelSpec;
use moeprune_model::{
    Branches, Compute, ExpertProvider, GenerationOptions, HeldExperts, LanguageModel,
    StreamedExperts, check_runnable,
};

/// All checkpoints in a folder of assets that can be run.
fn for_each_model(folder: &str, mut check: impl FnMut(&str, &Checkpoint, &ModelSpec)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets").join(folder);
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    let mut checked = 0;
    for path in folders {
        let checkpoint = Checkpoint::open(&path).unwrap();
        if check_runnable(checkpoint.spec()).is_ok() {
            // More than the pieces in which attention works.
            let spec = ModelSpec { max_positions: 512, ..checkpoint.spec().clone() };
            check(&path.file_name().unwrap().to_string_lossy(), &checkpoint, &spec);
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked} models");
}

fn tokens(seed: usize, len: usize) -> Vec<u32> {
    (0..len).map(|t| ((seed * 71 + t * 37 + t * t) % 120) as u32).collect()
}

/// Prompts that begin with the same `common` tokens.
fn prompts(common: usize) -> Vec<Vec<u32>> {
    let rest = [5, 1, 70];
    rest.iter().enumerate().map(|(n, &len)| [tokens(9, common), tokens(n, len)].concat()).collect()
}

/// What a model answers: tokens, and log-likelihoods as bits.
#[derive(Debug, PartialEq)]
struct Answers {
    written: Vec<Vec<u32>>,
    likelihoods: Vec<(u64, bool)>,
}

fn answers<E: ExpertProvider>(
    model: &LanguageModel<E>,
    prompts: &[Vec<u32>],
    options: &GenerationOptions,
) -> Answers {
    let written = model.generate(prompts, options, &mut |_, _| false).unwrap();
    let branches = prompts.iter().map(|prompt| Branches {
        context: prompt.clone(),
        continuations: vec![tokens(3, 1), tokens(4, 3)],
    });
    let branches: Vec<Branches> = branches.collect();
    let found = model.branch_likelihoods_by(&branches, options.pass_tokens).unwrap();
    let likelihoods = found.iter().flatten().map(|one| (one.sum.to_bits(), one.is_greedy));
    Answers { written, likelihoods: likelihoods.collect() }
}

/// One prompt after the other, so that nothing is shared.
fn alone(model: &LanguageModel, prompts: &[Vec<u32>], options: &GenerationOptions) -> Answers {
    let mut all = Answers { written: Vec::new(), likelihoods: Vec::new() };
    for prompt in prompts {
        let one = answers(model, std::slice::from_ref(prompt), options);
        all.written.extend(one.written);
        all.likelihoods.extend(one.likelihoods);
    }
    all
}

fn options(batch_size: usize, pass_tokens: usize, cached_positions: usize) -> GenerationOptions {
    let (max_new_tokens, stop_ids) = (3, Vec::new());
    GenerationOptions { max_new_tokens, stop_ids, batch_size, pass_tokens, cached_positions }
}

/// Bytes of an expert as it runs.
fn expert_bytes(experts: &HeldExperts, spec: &ModelSpec) -> u64 {
    let layer = spec.layers.iter().position(|layer| layer.moe().is_some()).unwrap();
    let mut bytes = 0;
    let mut first = |expert: &moeprune_model::Expert| {
        bytes = expert.bytes();
        Ok(())
    };
    experts.for_each(layer, &[0], &mut first).unwrap();
    bytes
}

fn check_streamed(name: &str, checkpoint: &Checkpoint, spec: &ModelSpec, compute: &Compute) {
    let held = LanguageModel::load(checkpoint, spec, compute).unwrap();
    let prompts = prompts(3);
    let expected = answers(&held, &prompts, &options(64, 4096, usize::MAX));
    let expert = expert_bytes(held.experts(), spec);
    // None is kept, a few are, all are.
    for room in [0, 3 * expert, u64::MAX / 2] {
        let streamed = StreamedExperts::new(checkpoint, spec, compute, room);
        let streamed = LanguageModel::with_experts(checkpoint, spec, compute, streamed).unwrap();
        let got = answers(&streamed, &prompts, &options(2, 50, 100));
        assert_eq!(got, expected, "{name} with room for {room} bytes");
        let counts = streamed.experts().counts();
        assert!(counts.read > 0, "{name}: {counts:?}");
        assert_eq!(counts.reused > 0, room > 0, "{name} with room for {room} bytes: {counts:?}");
    }
}

#[test]
fn experts_that_are_read_when_they_are_needed_answer_the_same() {
    for_each_model("parity", |name, checkpoint, spec| {
        check_streamed(name, checkpoint, spec, &Compute::cpu());
    });
}

#[test]
fn so_do_experts_in_codes() {
    for_each_model("quantised", |name, checkpoint, spec| {
        check_streamed(name, checkpoint, spec, &Compute::cpu());
    });
}

/// The way of other devices than the CPU.
#[test]
fn so_does_what_holds_weights_as_they_are_stored() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/parity/qwen3_moe_mixed");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    check_streamed("in f64", &checkpoint, checkpoint.spec(), &Compute::cpu_in(DType::F64));
}

#[test]
fn beginnings_that_are_run_once_change_nothing() {
    for_each_model("parity", |name, checkpoint, spec| {
        let compute = Compute::cpu();
        let load = || LanguageModel::load(checkpoint, spec, &compute).unwrap();
        let prompts = prompts(70);
        let expected = alone(&load(), &prompts, &options(1, 4096, usize::MAX));
        let model = load();
        for (batch, pass_tokens) in [(64, 4096), (2, 1)] {
            let got = answers(&model, &prompts, &options(batch, pass_tokens, usize::MAX));
            assert_eq!(got, expected, "{name}, {batch} at once, {pass_tokens} tokens together");
        }
        // What is remembered by now begins one prompt too.
        let one = answers(&model, &prompts[2..3], &options(1, 4096, usize::MAX));
        assert_eq!(one.written[0], expected.written[2], "{name}");
        assert_eq!(one.likelihoods, expected.likelihoods[4..6], "{name}");
    });
}
