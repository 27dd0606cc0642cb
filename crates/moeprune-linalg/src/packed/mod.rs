//! Products with weights that are packed once and used many times.

mod instructions;
mod kernel;
mod multiply;
mod out;
mod scratch;
#[cfg(test)]
mod tests;
mod tiles;
mod weights;

pub use instructions::instruction_set;
pub use multiply::multiply_packed;
pub use tiles::{has_tiles, multiply_in_tiles};
pub use weights::{PackedElements, PackedWeights, Panel};
