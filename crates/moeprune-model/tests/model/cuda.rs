//! A CUDA device against the public model code and the CPU.

#[expect(dead_code, reason = "shared with the tests of the CPU")]
mod reference;

mod forward;

use candle_core::DType;
use moeprune_model::Compute;

use crate::forward::{check_half, check_model};

/// The first device, or `None` and a line that says so. A test that asks for a GPU by
/// `MOEPRUNE_REQUIRE_CUDA` fails instead.
fn device(dtype: DType) -> Option<Compute> {
    match Compute::cuda_in(0, dtype) {
        Ok(compute) => Some(compute),
        Err(error) if std::env::var_os("MOEPRUNE_REQUIRE_CUDA").is_some() => panic!("{error}"),
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

/// Logits within 1e-4 in f32, and the same experts for every token.
fn check(checkpoint: &str) {
    if let Some(compute) = device(DType::F32) {
        check_model(checkpoint, checkpoint, &compute);
    }
}

#[test]
fn arctic() {
    check("arctic");
}

#[test]
fn arctic_with_dense_layers() {
    check("arctic_freq2");
}

#[test]
fn mixtral() {
    check("mixtral");
}

#[test]
fn half_precision_is_near() {
    if let Some(compute) = device(DType::BF16) {
        check_half(&compute);
    }
}
