/*!
The same on matrices that are in the memory of a CUDA device.

[`ScoreKernels`] holds this crate's kernels, loaded from PTX that is part of the crate: the driver is
all that is needed to run them. What they do is bit for bit what the functions of the same names do
on the CPU, ties and sums included, and so are the errors. A scorer that is more than a
[factor per column](moeprune_core::BoundScorer::column_factors), or a pattern that is not
[known](crate::MaskPattern::known), is left to the CPU: the matrix is copied there and back.

Work goes on a stream of the caller. [`ScoreKernels::enqueue_prune`] does not wait for it;
[`ScoreKernels::prune_matrix`] does, for it reports scores that cannot be ranked.
*/

mod error;
mod kernels;
mod matrix;
#[expect(unsafe_code, reason = "kernels are started with bare arguments")]
mod outliers;
#[expect(unsafe_code, reason = "kernels are started with bare arguments")]
mod prune;

pub use error::Error;
pub use kernels::ScoreKernels;
pub use prune::{DevicePruned, PendingPrune};
