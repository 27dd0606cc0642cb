//! Whole runs of the facade on small checkpoints.

mod budgets;
mod carried_over;
mod comparisons;
mod determinism;
mod domains;
mod element_types;
mod embedded_model;
mod expert_ratios;
mod experts_in_pieces;
mod extra_layers;
mod fused_experts;
mod fused_in_place_of_separate;
mod idle_experts;
mod keep_lists;
mod one_mixer;
mod opaque_experts;
mod opaque_family;
mod prefixed_extra_layers;
mod reference_masks;
mod reference_sparsegpt;
mod refusals;
mod repair;
mod routed_mass;
mod scratch;
mod shared_indexers;
mod timed_steps;
