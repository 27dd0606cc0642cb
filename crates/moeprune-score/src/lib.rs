/*!
Unstructured pruning: which weights of a matrix matter least, and how many of them go in each layer.

# Brief overview

A matrix is pruned by three choices that know nothing of each other:

| choice | trait | built in |
|---|---|---|
| how much does a weight matter? | [`WeightScorer`](moeprune_core::WeightScorer) | [`Magnitude`], [`Wanda`] |
| which of the low scores may go together? | [`MaskPattern`] | [`PerRow`], [`NOfM`] |
| how is a share turned into counts? | [`Rounding`] | exact over the matrix, or as the reference |

[`prune_matrix`] puts them together and works on the stored bytes (bf16, f16 or f32);
[`mask_matrix`] only says what would go. A fourth choice stands beside these three, as it makes all
of them at once and changes the weights that stay:

| choice | trait | built in |
|---|---|---|
| how do other weights make up for those that go? | [`WeightReconstructor`](moeprune_core::WeightReconstructor) | [`SparseGpt`] |

[`reconstruct_matrix`] applies it, and the first three where it cannot be. A model's layers need not all be equally sparse: a
[`SparsityAllocator`](moeprune_core::SparsityAllocator), [`Uniform`], [`Depth`] or [`Owl`], splits the overall
share, the last by how many outliers [`outlier_percent`] finds in each layer.

# Example

Half of a small matrix goes, by what its inputs were on calibration text:

```
use moeprune_core::{Dtype, InputMoments, LinearId, LinearView, Sparsity, TensorBytes};
use moeprune_score::{PerRow, Rounding, Wanda, prune_matrix};

let weights = [1.0, -2.0, 0.5, 3.0, 0.2, 1.5, -1.0, 0.1];
let tensor = TensorBytes::encode(Dtype::BF16, [2, 4], &weights)?;
// Sums of squares of three input vectors: [1,0,2,1], [0,1,1,0], [2,1,0,1].
let inputs = InputMoments { tokens: 3, calls: 1, sum_squares: vec![5.0, 2.0, 5.0, 2.0] };
let linear = LinearView {
    layer: 0,
    id: LinearId::Expert(0, moeprune_core::MlpProjection::Gate),
    rows: 2,
    cols: 4,
    inputs: Some(&inputs),
};
let half = Sparsity::new(0.5)?;
let pruned =
    prune_matrix(tensor, &linear, half, &Wanda::default(), &PerRow, Rounding::default())?;
assert_eq!(pruned.zeroed, 4);
assert_eq!(pruned.tensor.to_f32()?, [0.0, -2.0, 0.0, 3.0, 0.0, 1.5, -1.0, 0.0]);
# Ok::<(), Box<dyn std::error::Error>>(())
```

# Why it is so

*A row at a time.* Wanda compares a weight only with the others of its output row, so one row of
`f32` per thread is all that is ever decoded; a matrix of 35 million bf16 weights needs no second
copy. Rows are independent, hence the result is the same with any number of threads.

*Selection, not sorting.* The threshold of a row is found by counting the scores below guesses,
which a sample and then interpolation make good. What is zeroed is exactly what a stable sort would
put first: ties go to the lower column.

*Wide instructions where they are.* Inner loops are compiled for AVX2 and AVX-512 as well and chosen
when the program runs; the bits are the same. `MOEPRUNE_SIMD` set to `portable` or `avx2` holds it
to less, to compare times.

*Nothing is guessed.* A score that is not a number stops the work with its row and column, a
matrix is never zeroed entirely, and a Linear that no calibration token reached is pruned by
magnitude at the same ratio, and reported as [`PrunedMatrix::fallback`].

*Products of matrices are not written here.* SparseGPT spends its time in them; they are those of
[`moeprune_linalg`], in pieces that do not depend on the number of threads. It chooses its instructions
itself, and its bits depend on which.

*On a GPU too.* With the feature `cuda`, the module `cuda` does the same on matrices in the memory of
a CUDA device, with the same bits as the result.

This crate reads no files and knows no tensor names.
*/

#[cfg(feature = "cuda")]
pub mod cuda;
mod depth;
mod error;
mod input;
mod magnitude;
mod mask;
mod n_of_m;
mod outliers;
mod owl;
mod per_row;
mod product;
mod prune;
mod rank;
mod reconstruct;
mod rounding;
mod scoring;
mod simd;
mod smallest;
mod sparsegpt;
mod storage;
mod sum;
mod uniform;
mod wanda;
mod weights;

pub use depth::Depth;
pub use error::Error;
pub use magnitude::Magnitude;
pub use mask::BitMask;
pub use moeprune_core::{KnownPattern, MaskPattern};
pub use n_of_m::NOfM;
pub use outliers::{
    ScoreSum, count_above, outlier_percent, score_sum, weight_count_above, weight_score_sum,
};
pub use owl::Owl;
pub use per_row::PerRow;
pub use prune::{PrunedMatrix, mask_matrix, mask_weight, prune_matrix, prune_weight};
pub use reconstruct::{Fallback, enough_inputs, reconstruct_matrix};
pub use rounding::Rounding;
pub use sparsegpt::{BlockThreshold, SparseGpt};
pub use uniform::Uniform;
pub use wanda::{InputNormalization, Wanda};
