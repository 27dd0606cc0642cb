//! Matrices on a device come out as on the CPU, bit for bit.
//!
//! Without a driver or a device every test passes with a line that says so. `cargo xtask emulate-cuda -- cargo test -p
//! moeprune-score --features cuda` runs them where there is no GPU.
#![cfg(feature = "cuda")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod device;
mod left_to_cpu;
mod masks;
mod matrices;
mod sums;
