//! Benchmarks with criterion, in `benches/`. They are a separate package and need a feature, so that neither `cargo xtask`
//! nor `cargo test` compiles the harness:
//!
//! ```text
//! cargo bench -p moeprune-benches --features criterion --bench masks
//! ```
