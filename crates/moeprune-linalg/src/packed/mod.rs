//! Products with weights that are packed once and used many times.

mod kernel;
mod multiply;
mod out;
mod scratch;
#[cfg(test)]
mod tests;
mod tiles;
mod weights;

pub use multiply::multiply_packed;
pub use tiles::{has_tiles, multiply_in_tiles};
pub use weights::{PackedElements, PackedWeights, Panel};
