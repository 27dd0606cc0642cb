/*!
Which expert of a cluster survives, and whether a cluster is averaged instead.

# Brief overview

[`NearestToMean`] is STUN's rule. In a layer that is left with more than a few clusters, the
member nearest to its cluster's mean in weight space survives, weights and router row bit for bit.
In a layer that collapsed to a few, every cluster is averaged. It implements
[`ExpertSelector`](moeprune_core::ExpertSelector) and reads weights only through
[`ExpertWeights`](moeprune_core::ExpertWeights), a piece of each expert at a time. [`MergeAll`] and
[`Busiest`] are other rules for the same seam.

Where experts are ranked and not clustered, [`least_salient`] says which go.

# Example

```
use moeprune_core::{
    ClusteredLayer, ExpertSelector, ExpertWeights, MatrixView, Partition, StageError,
    SurvivorReason,
};
use moeprune_select::NearestToMean;

/// Experts of one parameter.
struct Scalars([f32; 5]);

impl ExpertWeights for Scalars {
    fn parameters(&self) -> usize {
        1
    }

    fn read(&self, expert: usize, start: usize, out: &mut [f32]) -> Result<(), StageError> {
        out.copy_from_slice(&self.0[expert..][..1][start..]);
        Ok(())
    }
}

let experts = Scalars([1.0, 2.0, 9.0, 7.0, 0.0]);
let partition = Partition::new(5, vec![vec![0, 1, 2], vec![3], vec![4]])?;
let layer = ClusteredLayer {
    layer: 0,
    partition: &partition,
    router: MatrixView::new(5, 1, &[0.0; 5])?,
    tokens: None,
};
let survivors = NearestToMean::default().select(&layer, &experts)?;
// The mean of 1, 2 and 9 is 4.
assert_eq!(survivors[0].source, 1);
assert_eq!(survivors[0].reason, SurvivorReason::NearestToMean);
assert_eq!(survivors[1].reason, SurvivorReason::Alone);
# Ok::<(), StageError>(())
```

# Why it is so

Let expert `r` stand in for all of a cluster `C`. To first order its error is bounded by
`Σ_j ‖θ_r − θ_j‖²`, which is `|C| · ‖θ_r − mean‖²` plus a constant: the member nearest to the mean
is the exact minimiser.

It follows that **the two members of a pair always tie**, and most clusters are pairs when a fifth
of the experts goes. Rounding would decide between them at random, so a pair is never read: the
busier expert survives, if tokens were counted, or the lower index. The reason is recorded with
each survivor, so a plan says how much of it the weights decided.

Averaging lowers the error in an expert's weights but moves the router's decision boundary. With
few clusters left the boundary matters less, hence the rule by the layer's number of clusters.
*/

mod busiest;
mod error;
mod least_salient;
mod mean_distance;
mod merge_all;
mod nearest_to_mean;
mod tokens;

pub use busiest::Busiest;
pub use error::Error;
pub use least_salient::least_salient;
pub use merge_all::MergeAll;
pub use nearest_to_mean::{NearestToMean, Precision};
