//! Sums of squared inputs on a CUDA device: the tests of their module, in a program that can be taken to one.
//!
//! Without a driver or a device they are run on the CPU alone, with a line that says so.
#![cfg(feature = "cuda")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

#[path = "../src/column_squares.rs"]
mod column_squares;

#[test]
fn there_is_a_device() {
    if let Err(error) = moeprune_model::Compute::cuda(0) {
        eprintln!("skipped: {error}");
    }
}
