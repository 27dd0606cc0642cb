//! Models whose weights are stored in codes, from file to file.

mod fixtures;
mod logits;
mod masks;
mod repaired;
mod twins;
