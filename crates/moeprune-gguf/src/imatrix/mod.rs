//! Importance matrices: what `llama-imatrix` collects while a model runs over text.
//!
//! Per weight matrix of the model an imatrix has the sums of squares of what the matrix multiplies. Files
//! come in two forms, which [`Imatrix::read`] tells apart by their first bytes:
//!
//! | form | per weight matrix `NAME` |
//! |---|---|
//! | GGUF, `general.type = "imatrix"` (since mid-2025) | tensors `NAME.in_sum2` (F32, a row per matrix) and `NAME.counts` (F32, tokens per matrix); later files have `NAME.in_sum` and `NAME.stats` besides, which are not read here |
//! | the older one (`.dat`) | means times a number of calls, tokens unknown |
//!
//! A tensor that holds the matrices of all experts of a layer has one row and one count per expert: its
//! count is the number of tokens that were routed to that expert.

mod cut;
mod dat;
mod error;
mod gguf;

use std::collections::BTreeMap;

use moeprune_files::{ReadAt, StandIn};

pub use self::{
    cut::{ExpertCut, cut_experts},
    error::ImatrixError,
};

/// Sums over the tokens of one or several texts.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(clippy::exhaustive_structs, reason = "plain data, as files have it")]
pub struct Imatrix {
    /// Names of the texts, as `llama-imatrix` was given them.
    pub datasets: Vec<String>,
    /// Chunks that the texts were cut into, if the file says so.
    pub chunk_count: Option<u64>,
    /// Tokens of a chunk, if the file says so.
    pub chunk_size: Option<u64>,
    /// Sums by the name of the tensor whose inputs they are of, such as `blk.0.attn_q.weight`.
    pub entries: BTreeMap<String, ImatrixEntry>,
}

/// What one tensor of the model multiplied.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, as files have it")]
pub struct ImatrixEntry {
    /// Matrices in the tensor: its experts, or 1. The older form does not say how many there are: 1, with
    /// the inputs of all of them one after the other.
    pub matrices: usize,
    /// Inputs of a matrix.
    pub inputs: usize,
    /// `[matrices, inputs]`, row-major, finite and none negative: what [`tally`](Self::tally) says.
    pub sums: Vec<f32>,
    /// What the sums are over.
    pub tally: Tally,
}

/// What the sums of an entry are over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "one per form of the file")]
pub enum Tally {
    /// Tokens that reached each matrix, `[matrices]`: sums are over them.
    Tokens(Vec<u64>),
    /// The older form, in which tokens are lost: each sum is a mean over the tokens that reached the
    /// matrix, times this number of calls. A matrix that no token reached has the mean 1 everywhere.
    Calls(u64),
}

impl Imatrix {
    /// Reads a file of either form.
    ///
    /// # Errors
    /// If it cannot be read, is neither, or anything in it contradicts the form; the error names the
    /// tensor. What is allocated is bounded by the file's length.
    pub fn read(file: &dyn ReadAt) -> Result<Self, ImatrixError> {
        let beginning = file.read_at(0..file.len().min(StandIn::BYTES as u64))?;
        match StandIn::pointer(&beginning) {
            Some(stand_in) => Err(ImatrixError::Other(format!("it {stand_in}"))),
            None if beginning.starts_with(b"GGUF") => gguf::read(file),
            None => dat::read(file),
        }
    }

    /// Whether tokens were counted, which only the GGUF form has.
    #[must_use]
    pub fn counts_tokens(&self) -> bool {
        self.entries.values().all(|entry| matches!(entry.tally, Tally::Tokens(_)))
    }
}

/// Checks that a sum of squares is one.
fn check_sums(tensor: &str, sums: &[f32]) -> Result<(), ImatrixError> {
    let bad = |sum: &f32| !sum.is_finite() || *sum < 0.0;
    match sums.iter().position(bad) {
        None => Ok(()),
        Some(at) => Err(ImatrixError::tensor(
            tensor,
            "finite sums of squares, none negative",
            format!("{} at {at}", sums[at]),
        )),
    }
}
