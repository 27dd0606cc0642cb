//! The conformance suites catch layers, sinks and generators that break their contract.

#[path = "model_suites_catch/activation_sink.rs"]
mod activation_sink;
#[path = "model_suites_catch/generator.rs"]
mod generator;
#[path = "model_suites_catch/layer.rs"]
mod layer;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// `suite` must panic, and say `message`.
#[track_caller]
fn caught(suite: impl FnOnce(), message: &str) {
    let payload = catch_unwind(AssertUnwindSafe(suite)).expect_err("the suite found nothing");
    let said = payload.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
    assert!(said.contains(message), "{said}");
}
