/*!
The linear algebra that pruning needs: products of matrices, Gram matrices, inverses by Cholesky, in
`f32` and `f64`; and products with weights that are packed once.

# Brief overview

| what | by | is |
|---|---|---|
| a product | [`multiply`], [`multiply_in_parallel`] | [`Matrix`] times [`Matrix`], on one thread or all |
| a Linear | [`multiply_packed`], [`multiply_in_tiles`] | rows times [`PackedWeights`], in `f32` or `bf16` |
| a sum of products of rows | [`Gram`], [`add_cross_products`] | `Xᵀ X`, `Xᵀ Y`: products in the type of the rows, sums in `f64` |
| an inverse | [`Inverse`], [`inverse_factor`] | the triangular `U` with `H⁻¹ = Uᵀ U` |

# Example

A least-squares fit: the row `w` that brings `X wᵀ` closest to `y`.

```
use moeprune_linalg::{Gram, Inverse, add_cross_products};

let x = [1.0_f32, 0.0, 1.0, 1.0, 1.0, 2.0]; // three rows
let y = [1.0_f32, 3.0, 5.0];
let mut gram = Gram::new(2);
gram.add(&x);
let mut w = [0.0; 2];
add_cross_products(&mut w, &y, &x, [1, 2]);
Inverse::new(gram.matrix(), 2)?.apply(&mut w);
assert!((w[0] - 1.0).abs() < 1e-12 && (w[1] - 2.0).abs() < 1e-12);
# Ok::<(), moeprune_linalg::Error>(())
```

# Why it is so

*Products of two matrices are not written here.* They are those of the crate `gemm`, behind slices that are checked. Work is
cut into pieces that depend on the shapes alone, and a piece runs on one thread: results have the same bits with any
number of threads. They may differ between processors, since `gemm` adds in the order that suits its vector units.

*Products with packed weights are.* A weight is used by all rows of a calibration text and packed once, so it is packed in the
order in which a product reads it, in the two bytes that a bf16 has, and widened on its way into the registers. The order of
additions is part of what is promised: one chain of fused multiply-adds, cut after every 512, which each instruction set can give.
So results are the same on any processor. AMX has an order of its own: it is used by those who ask for it.

*Half of a Gram matrix is computed.* It is cut into squares below its diagonal and small ones on it; the other half is
copied, so it is symmetric to the bit.

*Two types in one sum.* A piece of some thousand rows is multiplied in `f32`, at twice the rate of `f64`; the sum
over pieces is in `f64`. A matrix summed in `f32` throughout stops being positive definite once less than about 1e-5 of its
diagonal is added to it.

*The factor of the inverse, not of the matrix.* Its square is the inverse, its squared norm the inverse's trace, and
both are what callers need. Blocks on the diagonal are factored in `f64`; all else is products.

This crate knows no other crate of the workspace.
*/

mod error;
mod factor;
mod gram;
mod inverse;
mod matrix;
mod packed;
mod real;

pub use error::Error;
pub use factor::inverse_factor;
pub use gram::{Gram, add_cross_products};
pub use inverse::Inverse;
pub use matrix::{Matrix, Update, multiply, multiply_in_parallel};
pub use packed::{
    PackedElements, PackedWeights, Panel, has_tiles, instruction_set, multiply_in_tiles,
    multiply_packed,
};
pub use real::Real;
