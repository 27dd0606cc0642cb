//! What there is to see of each layer's experts.

use moeprune_checkpoint::Checkpoint;
use moeprune_core::comparison::LayerPicture;
use moeprune_core::{ExpertBudget, LayerBehaviour, Observation};
use moeprune_engine::{expert_budget, routers};

use crate::{Error, Recipe, Registry};

/// Distances and groups by a recipe's similarity and clustering, for any criterion, and how
/// many tokens each expert got.
pub(super) fn of(
    checkpoint: &Checkpoint,
    observation: Option<&Observation>,
    recipe: &Recipe,
    registry: &Registry,
) -> Result<Vec<LayerPicture>, Error> {
    let grouped = registry.grouped(recipe)?;
    let routers = routers(checkpoint)?;
    let behaviours = routers
        .iter()
        .map(|router| {
            let routing = observation.and_then(|o| o.layers.get(router.layer)?.routing.as_ref());
            Ok(LayerBehaviour { routing, ..router.behaviour()? })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let seen = observation.is_some() || !grouped.similarity.needs_observation();
    let distances = match seen {
        false => Vec::new(),
        true => behaviours
            .iter()
            .map(|layer| {
                let distances = grouped.similarity.distances(layer);
                distances.map_err(Error::stage("similarity", layer.layer))
            })
            .collect::<Result<Vec<_>, Error>>()?,
    };
    let keep = behaviours.iter().map(LayerBehaviour::experts).min().unwrap_or(0);
    let budget = expert_budget(checkpoint.spec(), &recipe.experts.request())?
        .unwrap_or(ExpertBudget::Uniform { keep });
    let clusters = match distances.is_empty() {
        true => Vec::new(),
        false => grouped
            .clustering
            .cluster(&distances, &budget)
            .map_err(Error::stage("clustering", None))?,
    };
    let picture = |(index, layer): (usize, &LayerBehaviour<'_>)| {
        let n = layer.experts();
        let counts = layer.routing.map(|routing| routing.counts.as_slice()).unwrap_or_default();
        let total: u64 = counts.iter().sum();
        LayerPicture {
            layer: layer.layer,
            experts: n,
            distances: distances.get(index).map_or(Vec::new(), |d| {
                let at = |place: usize| {
                    let (i, j) = (place / n, place % n);
                    if i == j { 0.0 } else { d.at(i, j) }
                };
                (0..n * n).map(at).collect()
            }),
            clusters: clusters.get(index).map_or(Vec::new(), |p| p.clusters().to_vec()),
            load: counts.iter().map(|&count| count as f64 / total.max(1) as f64).collect(),
        }
    };
    Ok(behaviours.iter().enumerate().map(picture).collect())
}
