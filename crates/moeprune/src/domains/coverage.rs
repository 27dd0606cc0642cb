//! How much of what a text uses is left.

use moeprune_core::{LayerPlan, Plan, RoutingSums, Survivor};
use serde::{Deserialize, Serialize};

use super::Domain;
use crate::Error;

/// Shares of what the experts did on one text that the experts which stay did.
///
/// An expert that is merged into another counts as staying. Where the member of a group that stays
/// is yet to be chosen, it is taken for the one that did most: the share is then the most it can
/// be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Coverage {
    /// The text.
    pub domain: String,
    /// How much it counted in the plan, as a share of all.
    pub weight: f64,
    /// Mean over the layers of the share of gate weight; of tokens, where weights were not observed.
    pub routed: f64,
    /// Mean over the layers of the share of gate weight × norm of the output: of saliency. `None` where
    /// norms were not observed.
    pub saliency: Option<f64>,
    /// The layer in which the share of saliency is least, or that of `routed` where there is no saliency.
    pub worst_layer: usize,
    /// That share.
    pub worst: f64,
}

impl Coverage {
    /// The share that texts are compared by: of saliency, or of what was routed where saliency was not
    /// observed.
    #[must_use]
    pub fn decisive(&self) -> f64 {
        self.saliency.unwrap_or(self.routed)
    }
}

/// How much of each domain a plan keeps; nothing of one of which it was not observed where tokens go. Nothing of
/// layers whose experts all stay, nor of those behind
/// the decoder's, which no text goes through.
///
/// # Errors
/// If a domain is of a model with other experts.
pub fn coverage(plan: &Plan, domains: &[Domain]) -> Result<Vec<Coverage>, Error> {
    let total: f64 = domains.iter().map(|domain| domain.weight).sum();
    let is_routed =
        |domain: &&Domain| domain.observation.layers.iter().any(|layer| layer.routing.is_some());
    domains.iter().filter(is_routed).map(|domain| of_domain(plan, domain, total)).collect()
}

fn of_domain(plan: &Plan, domain: &Domain, total: f64) -> Result<Coverage, Error> {
    let mut shares = Vec::with_capacity(plan.layers.len());
    let observed = domain.observation.layers.len();
    let is_run = |layer: &&LayerPlan| plan.extra.is_none() || layer.layer < observed;
    for layer in plan.layers.iter().filter(is_run) {
        let seen = domain.observation.layers.get(layer.layer).and_then(|l| l.routing.as_ref());
        let routing = seen.filter(|routing| routing.experts() == layer.experts_before);
        let Some(routing) = routing else {
            return Err(Error::Request(format!(
                "the observation of {} has not the experts of layer {}; observe this model",
                domain.name, layer.layer
            )));
        };
        shares.push(LayerShares::of(layer, routing));
    }
    let mean = |sum: f64| if shares.is_empty() { 1.0 } else { sum / shares.len() as f64 };
    let saliency: Option<f64> = shares.iter().map(|share| share.saliency).sum();
    let least = shares.iter().min_by(|a, b| a.decisive().total_cmp(&b.decisive()));
    let (worst_layer, worst) = least.map_or((0, 1.0), |least| (least.layer, least.decisive()));
    Ok(Coverage {
        domain: domain.name.clone(),
        weight: if total > 0.0 { domain.weight / total } else { 0.0 },
        routed: mean(shares.iter().map(|share| share.routed).sum()),
        saliency: saliency.map(mean),
        worst_layer,
        worst,
    })
}

/// What stays of one layer.
struct LayerShares {
    layer: usize,
    routed: f64,
    saliency: Option<f64>,
}

impl LayerShares {
    fn of(layer: &LayerPlan, seen: &RoutingSums) -> Self {
        let RoutingSums { gate_sums, gated_output_norms, counts, .. } = seen;
        let routed = match gate_sums.as_slice() {
            [] => share(layer, &counts.iter().map(|&count| count as f64).collect::<Vec<_>>()),
            sums => share(layer, sums),
        };
        let is_known = !gated_output_norms.is_empty();
        let saliency = is_known.then(|| share(layer, gated_output_norms));
        Self { layer: layer.layer, routed, saliency }
    }

    /// The share that layers and texts are compared by.
    fn decisive(&self) -> f64 {
        self.saliency.unwrap_or(self.routed)
    }
}

/// The share of a layer's sums that stays; all of it, if there is nothing.
fn share(layer: &LayerPlan, sums: &[f64]) -> f64 {
    let total: f64 = sums.iter().sum();
    let kept: f64 = if layer.is_open() {
        let clusters = layer.clusters.clusters().iter().filter(|c| !layer.is_dropped(c));
        clusters.map(|members| members.iter().map(|&e| sums[e]).fold(0.0, f64::max)).sum()
    } else {
        let of = |survivor: &Survivor| match survivor.average_of.as_slice() {
            [] => sums[survivor.source],
            members => members.iter().map(|&e| sums[e]).sum(),
        };
        layer.survivors.iter().map(of).sum()
    };
    if total > 0.0 { kept / total } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use moeprune_core::{Partition, SurvivorReason};

    use super::*;

    fn layer(clusters: &[&[usize]], survivors: Vec<Survivor>, dropped: &[usize]) -> LayerPlan {
        let clusters = clusters.iter().map(|c| c.to_vec()).collect();
        LayerPlan {
            layer: 0,
            experts_before: 4,
            clusters: Partition::new(4, clusters).unwrap(),
            survivors,
            dropped: dropped.to_vec(),
            tokens: Vec::new(),
        }
    }

    #[test]
    fn what_stays_is_counted() {
        let sums = [4.0, 3.0, 2.0, 1.0];
        let kept = |e| Survivor::kept(e, SurvivorReason::Salient);
        let alone: [&[usize]; 4] = [&[0], &[1], &[2], &[3]];
        let check = |layer: LayerPlan, expected: f64| assert_eq!(share(&layer, &sums), expected);
        check(layer(&alone, vec![kept(0), kept(1), kept(2)], &[3]), 0.9);
        check(layer(&alone, vec![kept(2)], &[0, 1, 3]), 0.2);
        let pairs: [&[usize]; 2] = [&[0, 3], &[1, 2]];
        check(layer(&pairs, vec![kept(0), kept(2)], &[]), 0.6);
        check(layer(&pairs, vec![Survivor::average(vec![0, 3], vec![]), kept(1)], &[]), 0.8);
        check(layer(&pairs, vec![], &[]), 0.7);
        assert_eq!(share(&layer(&pairs, vec![], &[]), &[0.0; 4]), 1.0);
    }
}
