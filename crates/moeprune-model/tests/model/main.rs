//! Whole layers and models against reference values, and against themselves.

mod forward;
mod generation;
mod likelihood;
mod one_mixer;
mod parity;
mod reference;
mod refusals;
mod sink;
mod states;
mod streamed;
