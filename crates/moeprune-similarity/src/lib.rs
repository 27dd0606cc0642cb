/*!
How far apart the experts of a layer behave: router rows, co-activation, a mix of the two, and mean outputs.

# Brief overview

STUN groups experts by behaviour before it drops any. Two experts behave alike when the router
sends them the same tokens, which can be read off in two ways, or when they say the same:

| type | distance between experts `i` and `j` | needs an observation |
|---|---|---|
| [`RouterDistance`] | `‖g_i − g_j‖₂` between their router rows | no |
| [`CoActivation`] | minus how often one token chose both | yes |
| [`OutputDistance`] | `‖ō_i − ō_j‖₂` between their mean outputs | yes |
| [`Mixed`] | `λ₁ · router − λ₂ · co-activation` | if `λ₂ ≠ 0` |

All are [`ExpertSimilarity`](moeprune_core::ExpertSimilarity) implementations and compute in f64.
The default everywhere is the plain router distance, `(λ₁, λ₂) = (1, 0)`.

# Example

```
use moeprune_core::{ExpertSimilarity, LayerBehaviour, MatrixView};
use moeprune_similarity::RouterDistance;

let router = MatrixView::new(3, 2, &[0.0, 0.0, 3.0, 4.0, 0.0, 1.0])?;
let layer = LayerBehaviour::new(0, router);
let distances = RouterDistance::default().distances(&layer)?;
assert_eq!(distances.at(0, 1), 5.0);
assert_eq!(distances.at(0, 2), 1.0);
# Ok::<(), moeprune_core::StageError>(())
```

# Why it is so

The paper states a similarity `b_ij = −λ₁‖g_i − g_j‖ + λ₂ a_ij`; a clustering wants a distance, so
everything here is `−b_ij`. Distances built from co-activation are therefore negative, which no
clustering of ours minds: only their order counts.

Differences are taken row by row in f64. The usual shortcut, `‖a‖² + ‖b‖² − 2a·b` through one
matrix product, loses the digits that separate near-identical rows, and near-identical rows are
the ones that matter here.
*/

mod coactivation;
mod error;
mod mixed;
mod outputs;
mod router;
mod squares;

pub use coactivation::{CoActivation, CoActivationScaling};
pub use error::Error;
pub use mixed::Mixed;
pub use outputs::OutputDistance;
pub use router::{RouterDistance, RouterNormalization};
