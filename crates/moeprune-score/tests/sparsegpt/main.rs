//! SparseGPT against the public code, the counts it promises, and input it must survive.

mod counts;
mod matrices;
mod refusals;
mod results;
