//! Distance by how often one token chooses both experts.

use moeprune_core::{DistanceMatrix, ExpertSimilarity, LayerBehaviour, RoutingSums, StageError};

use crate::Error;

/// Minus the co-activation of two experts: `A_ij` tokens chose both.
///
/// Raw counts, which [`Counts`](CoActivationScaling::Counts) and
/// [`LayerMean`](CoActivationScaling::LayerMean) use, are not corrected for popularity: they bring
/// the *busiest* experts together and can never single out an unused one. The two other scalings
/// correct for it and are not in the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "options, written as literals")]
pub struct CoActivation {
    /// How counts become a distance.
    pub scaling: CoActivationScaling,
}

/// How a co-activation count `A_ij` becomes a distance. `c_i` is the number of tokens that chose
/// expert `i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CoActivationScaling {
    /// `−A_ij`. In the reference.
    Counts,
    /// `−A_ij / mean(A)`, the mean over all `n²` entries, diagonal included. In the reference.
    ///
    /// With a fixed top-k the mean is `T·k(k−1)/n²`: the same in every layer of `n` experts that
    /// saw the same `T` tokens. It makes distances independent of the amount of text, and does
    /// not balance layers against each other.
    #[default]
    LayerMean,
    /// `−A_ij / √(c_i c_j)`, in `[−1, 0]`; 0 for an expert nothing chose. **Not in the
    /// reference.**
    Cosine,
    /// `−A_ij / (c_i + c_j − A_ij)`, in `[−1, 0]`; 0 for two experts nothing chose. **Not in the
    /// reference.**
    Jaccard,
}

impl ExpertSimilarity for CoActivation {
    fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> {
        let n = layer.experts();
        let routing = layer.routing.ok_or(Error::NoObservation)?;
        check(routing, n)?;
        let total: f64 = routing.coactivation.iter().map(|&a| a as f64).sum();
        if total == 0.0 && n > 1 {
            let &RoutingSums { tokens, top_k, .. } = routing;
            return Err(Error::NothingCoActivated { tokens, top_k }.into());
        }
        let mean = total / (n * n) as f64;
        let both = |i: usize, j: usize| routing.coactivation[i * n + j] as f64;
        let count = |i: usize| routing.counts[i] as f64;
        Ok(DistanceMatrix::from_fn(n, |i, j| match self.scaling {
            CoActivationScaling::Counts => -both(i, j),
            CoActivationScaling::LayerMean => -both(i, j) / mean,
            CoActivationScaling::Cosine => -share(both(i, j), (count(i) * count(j)).sqrt()),
            CoActivationScaling::Jaccard => -share(both(i, j), count(i) + count(j) - both(i, j)),
        })?)
    }

    fn needs_observation(&self) -> bool {
        true
    }
}

/// Sizes that match, and no pair chosen more often than its members.
fn check(routing: &RoutingSums, n: usize) -> Result<(), Error> {
    if routing.experts() != n {
        return Err(Error::ExpertCount { observed: routing.experts(), router: n });
    }
    let (expected, got) = (n * n, routing.coactivation.len());
    if got == 0 && n > 0 {
        return Err(Error::NoCoActivation);
    }
    if got != expected {
        return Err(Error::CoActivationLength { experts: n, expected, got });
    }
    for i in 0..n {
        for j in i + 1..n {
            let both = routing.coactivation[i * n + j];
            let (count_i, count_j) = (routing.counts[i], routing.counts[j]);
            if both > count_i.min(count_j) {
                return Err(Error::Inconsistent { i, j, both, count_i, count_j });
            }
        }
    }
    Ok(())
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
