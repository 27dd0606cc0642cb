//! Tests of the crate from outside, in one binary because each that links candle is large.

mod hostile;
mod observation_file;
mod observer;
mod parity;
mod reference;
mod sampling;
mod streaming;
mod weighed_inputs;
