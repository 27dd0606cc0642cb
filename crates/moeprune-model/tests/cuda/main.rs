//! A CUDA device against the CPU and against the public model code.
//!
//! Without a driver or a device every test passes with a line that says so.
#![cfg(feature = "cuda")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[path = "../model/reference.rs"]
#[allow(dead_code, reason = "the tests on the CPU replace tensors, these do not")]
mod reference;

#[path = "../model/forward.rs"]
#[allow(dead_code, reason = "half precision is held against the CPU's here")]
mod forward;

use candle_core::DType;
use moeprune_model::{Branches, Compute, GenerationOptions, LanguageModel};

use crate::{
    forward::check_model,
    reference::{Checkpoint, Expected, floats},
};

/// The first device, computing in a type; `None` and a line that says so where there is none. A
/// run that is meant for a GPU says so by `MOEPRUNE_REQUIRE_CUDA`, and fails instead.
fn device(dtype: DType) -> Option<Compute> {
    match Compute::cuda_in(0, dtype) {
        Ok(compute) => Some(compute),
        Err(error) if std::env::var_os("MOEPRUNE_REQUIRE_CUDA").is_some() => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// Hidden states, router choices and logits within 1e-4, layer by layer, and logits of a pruned
/// model.
#[test]
fn f32_agrees_with_the_reference() {
    let Some(compute) = device(DType::F32) else { return };
    for name in ["arctic", "arctic_freq2", "mixtral"] {
        check_model(name, name, &compute);
    }
}

/// The type that runs take, against f32. The CPU's bf16 is no measure: it rounds in more places, and is further from f32.
#[test]
fn bf16_is_near_f32() {
    let Some(compute) = device(DType::BF16) else { return };
    for name in ["arctic", "arctic_freq2", "mixtral"] {
        let (model, ids) = (Checkpoint::open(name), Expected::read(name).input_ids());
        let on = |compute: &Compute| {
            logits_of(&LanguageModel::load(&model, &model.spec, compute).unwrap(), &ids)
        };
        let (device, cpu) = (on(&compute), on(&Compute::cpu()));
        let error = relative_error_of_most(&device, &cpu, model.spec.vocab);
        assert!(error <= 0.02, "{name}: logits differ by {error} of their size");
    }
}

/// One token after the other through the cache.
#[test]
fn greedy_generation_is_the_same_as_on_the_cpu() {
    let Some(compute) = device(DType::F32) else { return };
    for name in ["arctic", "mixtral"] {
        let (model, ids) = (Checkpoint::open(name), Expected::read(name).input_ids());
        let prompts: Vec<Vec<u32>> = ids.iter().map(|ids| ids[..8].to_vec()).collect();
        let options = GenerationOptions { max_new_tokens: 12, ..GenerationOptions::default() };
        let on = |compute: &Compute| {
            let model = LanguageModel::load(&model, &model.spec, compute).unwrap();
            model.generate(&prompts, &options, &mut |_, _| false).unwrap()
        };
        assert_eq!(on(&compute), on(&Compute::cpu()), "{name}");
    }
}

/// Continuations after a context that the cache holds.
#[test]
fn continuations_are_as_likely_as_on_the_cpu() {
    let Some(compute) = device(DType::F32) else { return };
    for name in ["arctic", "mixtral"] {
        let (model, ids) = (Checkpoint::open(name), Expected::read(name).input_ids());
        let of = |ids: &Vec<u32>| Branches {
            context: ids[..8].to_vec(),
            continuations: vec![ids[8..].to_vec(), vec![3], ids[9..12].to_vec()],
        };
        let branches: Vec<Branches> = ids.iter().map(of).collect();
        let on = |compute: &Compute| {
            let model = LanguageModel::load(&model, &model.spec, compute).unwrap();
            model.branch_likelihoods(&branches).unwrap().concat()
        };
        for (found, expected) in on(&compute).iter().zip(on(&Compute::cpu())) {
            let off = (found.sum - expected.sum).abs();
            assert!(off < 1e-3 * (1.0 + expected.sum.abs()), "{name}: {found:?}, not {expected:?}");
        }
    }
}

fn logits_of(model: &LanguageModel, ids: &[Vec<u32>]) -> Vec<f32> {
    model.logits(ids).unwrap().iter().flat_map(floats).collect()
}

/// What all but a twentieth of the tokens stay below: the length of a token's difference by that of its logits. A token near
/// a routing tie may take another expert.
fn relative_error_of_most(got: &[f32], want: &[f32], vocab: usize) -> f32 {
    assert_eq!(got.len(), want.len());
    let length = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
    let tokens = got.chunks(vocab).zip(want.chunks(vocab));
    let mut errors: Vec<f32> = tokens
        .map(|(g, w)| {
            length(&mut g.iter().zip(w).map(|(g, w)| g - w)) / length(&mut w.iter().copied())
        })
        .collect();
    errors.sort_by(f32::total_cmp);
    errors[errors.len() * 19 / 20]
}
