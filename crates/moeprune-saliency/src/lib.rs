/*!
How much an expert matters to its layer: the criteria by which experts are ranked and dropped.

# Brief overview

With `T_e` the tokens routed to expert `e`, `r_e(x)` the gate weight it is given for token `x` (the
one the layer really uses: renormalised where the family renormalises) and `E_e(x)` its output:

| type | saliency of expert `e` | also known as |
|---|---|---|
| [`Frequency`] | `|T_e|` | routing frequency |
| [`GateWeight`] | `Σ r_e(x)` | gate-weighted frequency, soft counting |
| [`OutputNorm`] | `Σ ‖E_e(x)‖` or its mean over `T_e` | EAN, expert activation norm |
| [`Reap`] | mean over `T_e` of `r_e(x) · ‖E_e(x)‖` | REAP (arXiv 2510.13999) |
| [`PeakActivation`] | largest magnitude in any `E_e(x)` | maximum activation |
| [`Random`] | a seeded draw | the control |

All are [`ExpertSaliency`](moeprune_core::ExpertSaliency) implementations over the sums of one
observation: none runs the model. [`super_experts`] finds the few experts whose outputs peak far
above all others' (arXiv 2507.23279), which can be kept at any rank.

# Example

```
use moeprune_core::{ExpertSaliency, LayerBehaviour, MatrixView, RoutingSums};
use moeprune_saliency::{Frequency, Reap};

// Expert 0 is chosen often and says little; expert 1 is chosen rarely and says much.
let routing = RoutingSums {
    tokens: 10,
    counts: vec![8, 2],
    gated_output_norms: vec![4.0, 6.0],
    ..RoutingSums::new(2, 1)
};
let router = MatrixView::new(2, 1, &[0.0, 0.0])?;
let layer = LayerBehaviour { routing: Some(&routing), ..LayerBehaviour::new(0, router) };
assert_eq!(Frequency.saliency(&layer)?, [8.0, 2.0]);
assert_eq!(Reap.saliency(&layer)?, [0.5, 3.0]);
# Ok::<(), moeprune_core::StageError>(())
```

# Why it is so

A sum asks how much an expert contributes to a text in all, a mean how much to the tokens that need
it: the former follows popularity, the latter does not. Which is right depends on what the model is
for, so both are here, and one observation serves all.

An expert that no token reached has saliency 0 under every criterion but [`Random`]. What weighs an
observation's texts against each other is a [blend](moeprune_core::Observation::blend) of
observations, not a saliency.
*/

mod error;
mod frequency;
mod gate_weight;
mod output_norm;
mod peak_activation;
mod random;
mod reap;
mod routing;
mod super_experts;

pub use error::Error;
pub use frequency::Frequency;
pub use gate_weight::GateWeight;
pub use output_norm::OutputNorm;
pub use peak_activation::PeakActivation;
pub use random::Random;
pub use reap::Reap;
pub use super_experts::{SuperExperts, super_experts};
