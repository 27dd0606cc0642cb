//! Whole runs of the facade on small checkpoints.

mod budgets;
mod carried_over;
mod determinism;
mod element_types;
mod embedded_model;
mod experts_in_pieces;
mod idle_experts;
mod reference_masks;
mod reference_sparsegpt;
mod refusals;
mod scratch;
