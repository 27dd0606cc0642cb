/*!
Repairs a mixture-of-experts layer that lost experts: the ones that stay are refitted, without training.

# Brief overview

[`Refit`] implements [`ExpertRepair`](moeprune_core::ExpertRepair): it changes the down projections of
surviving experts so that the layer's output comes close to what it was before others were dropped. What it
needs is what is missing per token (the residual), and per expert the tokens it receives and its activations
there, which it reads from a [`RepairStore`](moeprune_core::RepairStore), one expert at a time.

| type | is |
|---|---|
| [`Refit`] | the repair: number of sweeps, [`Ridge`], whether zeros stay |
| [`Layer`], [`Store`] | what it works on, in `f32` or `f64` |
| [`InMemoryStore`] | experts in memory |

# Example

Two tokens, one expert of one feature that writes 2 where 3 was written before:

```
use moeprune_core::{Dtype, ExpertRepair, LayerToRepair, SurvivingExpert};
use moeprune_repair::{InMemoryStore, MemoryExpert, Refit, Ridge};

let expert = MemoryExpert { activations: vec![1.0, 2.0], weights: vec![2.0], features: 1 };
let store = InMemoryStore::new(vec![expert]).stored_as(Dtype::BF16);
let mut residual = [1.0, 2.0];
let mut layer = LayerToRepair {
    layer: 0,
    width: 1,
    residual: &mut residual,
    token_weights: &[1.0, 1.0],
    fitted: 2,
    experts: &[SurvivingExpert { tokens: vec![0, 1], features: 1, parts: vec![] }],
    store: &store,
};
let refit = Refit { ridge: Ridge::Share(0.0), ..Refit::default() };
let repair = refit.repair(&mut layer)?;
assert_eq!(store.into_weights(), [[3.0]]);
assert_eq!((repair.errors[0], repair.errors[1]), (5.0, 0.0));
# Ok::<(), moeprune_core::StageError>(())
```

# Why it is so

*A regression, not training.* An expert's output is linear in its down projection `W` (`[H, I]`). With `R` the
residual, `G_e` an expert's activations times its gate weights and `ω` the weights of tokens, the changes `D_e`
that minimise `Σ ω |R − Σ_e D_e g_e|² + Σ λ_e |D_e|²` are a ridge regression.

*One expert at a time.* The joint solution would factor a matrix of all experts' columns. Instead each expert, by ascending
index, is refitted to what the ones before it left missing (block Gauss-Seidel):

```text
H_e = G_eᵀ ω G_e
W  := stored_type(W + ((H_e + λ_e)⁻¹ (G_eᵀ ω R − λ_e D_eᵀ))ᵀ)
R  := R − what this changed
```

Four sweeps over the experts come close to the joint solution. Rounding to the stored type is inside the loop, so that
later experts make up for it. Where weights are stored in codes of four bits ([`Store::code_bits`]), the factor of the
inverse carries the error of each rounded column to the later ones (GPTQ), and the ridge is larger.

*The ridge needs no tuning.* See [`Ridge`]: a floor by the number of tokens per feature, and the evidence in the residual once
two sweeps were done. A matrix that is not positive definite gets ten times the ridge, and the report says so.

*Held-out tokens decide.* Nothing is fitted to them. An expert that makes them worse keeps its old weights,
and so does a layer that still does then.

*Products in `f32`, systems in `f64`.* Almost all time goes into `G_eᵀ R` and `G_e D_eᵀ`. These are products of large
pieces in the type of the activations, summed up in `f64`; factors and solutions are `f64`. Work is cut by shapes alone, so
any number of threads gives the same bits.

*What is held* is one expert: its activations up to a GiB (above that they are read twice per sweep), its weights, and
matrices of `I²` and `H · I` in `f64`. Gram matrices, and then factors, go through the store, `I (I + 1) / 2` numbers per
expert; what it forgets is computed again.
*/

mod error;
mod expert;
mod guard;
mod layer;
mod memory;
mod refit;
mod refit_layer;
mod residual;
mod ridge;
mod rounding;
mod support;
mod sweeps;
mod system;

pub use error::Error;
pub use layer::{Layer, Store};
pub use memory::{InMemoryStore, MemoryExpert};
pub use refit::Refit;
pub use ridge::Ridge;
