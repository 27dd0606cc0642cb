//! Cross-crate tests and the conformance suites of the stage traits.

pub mod conformance;
pub mod hostile_files;
pub mod quantised_models;
