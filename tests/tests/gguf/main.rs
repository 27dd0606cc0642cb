//! Models in GGUF, from file to file.

mod builder;
mod cut;
mod fixtures;
mod refused;
mod split;
mod twins;
