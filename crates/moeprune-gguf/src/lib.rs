//! GGUF.
pub mod imatrix;
