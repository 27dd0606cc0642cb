//! Quantised checkpoints: cut byte for byte, and what is wrong with damaged ones.

mod counts;
mod cutting;
mod damage;
mod fixture;
mod labels;
#[path = "../../../../tests/src/quantised_models.rs"]
#[expect(unreachable_pub, reason = "public where the tests across crates use it")]
mod quantised_models;
mod values;
