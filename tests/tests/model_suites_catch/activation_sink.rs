//! Sinks with one fault each.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use candle_core::{DType, Tensor};
use moeprune_checkpoint::Checkpoint;
use moeprune_core::LinearId;
use moeprune_model::{ActivationSink, Error, RoutingChoice};
use moeprune_tests::conformance::activation_sink::check;

use crate::caught;

type OnTensor<'a> = &'a (dyn Fn(&Tensor) -> Result<(), Error> + Sync);

/// Does one thing with each input, one with each choice and one with each output.
#[derive(Clone, Copy)]
struct Sink<'a> {
    input: OnTensor<'a>,
    choice: &'a (dyn Fn(&RoutingChoice<'_>) -> Result<(), Error> + Sync),
    output: OnTensor<'a>,
}

impl ActivationSink for Sink<'_> {
    fn linear_input(&mut self, _: LinearId, input: &Tensor) -> Result<(), Error> {
        (self.input)(input)
    }

    fn routing(&mut self, choice: &RoutingChoice<'_>) -> Result<(), Error> {
        (self.choice)(choice)
    }

    fn expert_output(&mut self, _: usize, output: &Tensor, _: &[f32]) -> Result<(), Error> {
        (self.output)(output)
    }
}

const FAULTLESS: Sink<'_> = Sink { input: &|_| Ok(()), choice: &|_| Ok(()), output: &|_| Ok(()) };

#[track_caller]
fn catches(sink: Sink<'_>, message: &str) {
    caught(|| suite(sink, |_| ()), message);
}

fn suite<T: PartialEq + std::fmt::Debug>(sink: Sink<'_>, result: impl Fn(Sink<'_>) -> T) {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/parity");
    let checkpoint = Checkpoint::open(&assets.join("mixtral")).unwrap();
    check(checkpoint.spec(), 1, || sink, result);
}

fn refused() -> Result<(), Error> {
    Err(Error::Sink("not this one".into()))
}

#[test]
fn no_fault() {
    suite(FAULTLESS, |_| ());
}

#[test]
fn sinks_that_refuse() {
    let only_f32 = |tensor: &Tensor| if tensor.dtype() == DType::F32 { Ok(()) } else { refused() };
    catches(
        Sink { input: &only_f32, ..FAULTLESS },
        "of BF16, is refused: activation sink: not this",
    );
    catches(Sink { output: &only_f32, ..FAULTLESS }, "the output of expert 0");
    let several = |tensor: &Tensor| if tensor.dims()[0] > 1 { Ok(()) } else { refused() };
    catches(Sink { input: &several, ..FAULTLESS }, "[1, ");
    let few = |choice: &RoutingChoice<'_>| if choice.tokens < 100 { Ok(()) } else { refused() };
    catches(Sink { choice: &few, ..FAULTLESS }, "the router's choice is refused");
}

#[test]
fn sinks_that_change_what_they_receive() {
    let zero = |tensor: &Tensor| Ok(tensor.slice_set(&tensor.zeros_like()?, 0, 0)?);
    catches(Sink { input: &zero, ..FAULTLESS }, "the input of attention.query is changed");
    catches(Sink { output: &zero, ..FAULTLESS }, "the output of expert 0 is changed");
}

#[test]
fn results_that_differ() {
    let calls = AtomicUsize::new(0);
    let result = |_: Sink<'_>| calls.fetch_add(1, Ordering::Relaxed);
    caught(|| suite(FAULTLESS, result), "equal activations of F32 give two results");
}
