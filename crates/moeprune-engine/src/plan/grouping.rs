//! The expert stage where alike experts are grouped.

use moeprune_core::{ExpertBudget, LayerBehaviour, LayerPlan, Partition};
use rayon::prelude::*;

use super::{budget::contract, expert_layers::ExpertLayers, survivors::select};
use crate::{Error, Grouped, Model, Progress, in_codes::selecting};

/// Groups alike experts; which of each group survives is left open where that takes reading them.
pub(super) fn group(
    model: &dyn Model,
    layers: &ExpertLayers<'_>,
    grouped: &Grouped,
    progress: &mut dyn Progress,
) -> Result<Vec<LayerPlan>, Error> {
    let ExpertLayers { behaviours, budget, blocks, protected } = *layers;
    progress.begin("clustering experts", behaviours.len() as u64, "layers");
    let distances = behaviours
        .par_iter()
        .enumerate()
        .map(|(index, behaviour)| {
            let distances = grouped
                .similarity
                .distances(behaviour)
                .map_err(Error::stage("similarity", behaviour.layer))?;
            contract("similarity", behaviour.layer, behaviour.experts(), distances.len())?;
            protected.set_apart(index, distances)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let partitions = grouped
        .clustering
        .cluster(&blocks.distances(distances)?, &blocks.budget(budget))
        .map_err(Error::stage("clustering", None))?;
    let partitions = blocks.partitions(partitions)?;
    check_partitions(behaviours, &partitions, budget)?;
    progress.end();

    let plans = behaviours
        .iter()
        .zip(partitions)
        .enumerate()
        .map(|(index, (behaviour, clusters))| {
            protected.check_alone(index, behaviour.layer, &clusters)?;
            let layer = behaviour.layer;
            contract("clustering", layer, behaviour.experts(), clusters.experts())?;
            if let ExpertBudget::Uniform { keep } = budget {
                contract("clustering", layer, keep, clusters.len())?;
            }
            let open = open(behaviour, clusters);
            let selecting = selecting(model, layer, &open.clusters, &*grouped.selector);
            let selector = selecting.as_deref().unwrap_or(&*grouped.selector);
            if selector.reads_experts(&open.clusters) {
                return Ok(open);
            }
            select(model, behaviour.router, open, selector)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    note_of_selected(model, &plans, grouped).iter().for_each(|note| progress.note(note));
    Ok(plans)
}

/// A layer whose survivors are not chosen yet.
fn open(behaviour: &LayerBehaviour<'_>, clusters: Partition) -> LayerPlan {
    LayerPlan {
        layer: behaviour.layer,
        experts_before: behaviour.experts(),
        clusters,
        survivors: Vec::new(),
        tokens: behaviour.routing.map(|r| r.counts.clone()).unwrap_or_default(),
        dropped: Vec::new(),
    }
}

/// The note on layers where one expert of each group stays instead of their average.
pub(super) fn note_of_selected(
    model: &dyn Model,
    plans: &[LayerPlan],
    grouped: &Grouped,
) -> Option<String> {
    let is_selected = |plan: &&LayerPlan| {
        selecting(model, plan.layer, &plan.clusters, &*grouped.selector).is_some()
    };
    let layers: Vec<usize> = plans.iter().filter(is_selected).map(|plan| plan.layer).collect();
    let layers = match layers.as_slice() {
        [] => return None,
        [layer] => format!("layer {layer}"),
        [first, .., last] => format!("{} layers ({first} to {last})", layers.len()),
    };
    Some(format!(
        "note: in {layers} one expert of each group stays where they would be averaged if they were not stored in \
         codes, which have no room for averages"
    ))
}

/// Refuses a clustering that does not give what the budget asks of it.
fn check_partitions(
    behaviours: &[LayerBehaviour<'_>],
    partitions: &[Partition],
    budget: ExpertBudget,
) -> Result<(), Error> {
    if partitions.len() != behaviours.len() {
        return Err(Error::Contract {
            stage: "clustering",
            layer: behaviours.first().map_or(0, |b| b.layer),
            problem: format!("{} partitions for {} layers", partitions.len(), behaviours.len()),
        });
    }
    if let ExpertBudget::Global { keep, min_per_layer } = budget {
        let got: usize = partitions.iter().map(Partition::len).sum();
        contract("clustering", behaviours[0].layer, keep, got)?;
        for (behaviour, partition) in behaviours.iter().zip(partitions) {
            let least = min_per_layer.min(behaviour.experts());
            if partition.len() < least {
                contract("clustering", behaviour.layer, least, partition.len())?;
            }
        }
    }
    Ok(())
}
