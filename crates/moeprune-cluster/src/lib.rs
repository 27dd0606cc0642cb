/*!
Groups the experts of every layer so that exactly as many groups are left as a budget says.

# Brief overview

| type | what it does |
|---|---|
| [`Agglomerative`] | merges the two nearest clusters until the budget is met; complete linkage by default |
| [`ReferenceLinkage`] | the greedy edge-by-edge linkage of the released STUN code |
| [`KMeans`] | k-means on an embedding of the distances (linfa) |

Each is an [`ExpertClustering`](moeprune_core::ExpertClustering) and meets both kinds of
[`ExpertBudget`](moeprune_core::ExpertBudget) exactly: the same number of experts in every layer,
or one total over all layers. [`Dendrogram`] and [`reference_clusters`] are the parts underneath,
for looking at one layer or cutting at a threshold.

# Example

```
use moeprune_cluster::Agglomerative;
use moeprune_core::{DistanceMatrix, ExpertBudget, ExpertClustering};

// Four experts on a line at 0, 1, 10 and 12.
let at = [0.0f64, 1.0, 10.0, 12.0];
let layer = DistanceMatrix::from_fn(4, |i, j| (at[i] - at[j]).abs())?;
let budget = ExpertBudget::Uniform { keep: 2 };
let partitions = Agglomerative::default().cluster(&[layer], &budget)?;
assert_eq!(partitions[0].clusters(), [[0, 1], [2, 3]]);
# Ok::<(), moeprune_core::StageError>(())
```

# Why it is so

A global budget could be met by searching for a threshold at which the count comes out right. For
a linkage whose merge heights never fall, no search is needed: every layer's heights are put in
one sorted list and the lowest are taken, as many as experts must go. That is exact, and it
breaks ties by rule (height, then layer, then expert) where a threshold takes all or none.

The linkage is written here and not taken from `kodama` (which `linfa-hierarchical` wraps),
because that follows chains of nearest neighbours: among equally near pairs it merges the one that
its chain meets first, and complete linkage then ends in other clusters. Co-activation counts are
small integers, so ties are common. With no ties the two agree, and the tests hold this crate
against it.

K-means needs coordinates; a matrix of distances gets them by classical multidimensional scaling.
It is here to be compared with, not because it is better.
*/

mod agglomerative;
mod dendrogram;
mod embedding;
mod error;
mod kmeans;
mod reference;
mod reference_linkage;

pub use agglomerative::Agglomerative;
pub use dendrogram::{Dendrogram, Linkage, Merge};
pub use error::Error;
pub use kmeans::KMeans;
pub use reference::reference_clusters;
pub use reference_linkage::ReferenceLinkage;
