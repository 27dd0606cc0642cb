//! Quantised checkpoints: cut byte for byte, and what is wrong with damaged ones.

mod cutting;
mod damage;
mod fixture;
mod labels;
#[path = "../../../../tests/src/quantised_models.rs"]
mod quantised_models;
mod values;
