//! Tests of the crate from outside, in one binary because each that links candle is large.

mod hostile;
pub(crate) mod observation_file;
mod observer;
mod parity;
mod part_file;
mod reference;
mod sampling;
mod streaming;
mod weighed_inputs;
