//! The expert stage by what the layer loses: one expert after the other goes, each time the one without
//! which what the layer's experts make together changes least.

mod outputs;
mod removal;
mod sample;

use moeprune_capture::{StoredLayer, passes};
use moeprune_core::{
    ExpertBudget, GateSide, LayerPlan, ModelSpec, MoeSpec, SurvivorReason, bytes_in_words,
};
use moeprune_model::Gating;

use super::{Router, expert_layers::ExpertLayers, ranking::without};
use crate::{
    Calibration, Error, Job, Model, Remedy, RunKind,
    finite::Finite,
    walk::{Route, walk},
};

use self::{
    outputs::{Looks, OutputsNeed, run},
    removal::{Quota, Removal, Weighing, removals},
    sample::Sample,
};

/// Bytes of outputs that are held at a time. Where more tokens are looked at than they hold, a layer's
/// experts are read again for the next ones.
pub(super) const PIECE: u64 = 2 << 30;

/// What experts are chosen from.
pub(super) struct Greedy<'a> {
    /// The text that the model runs on.
    pub(super) calibration: &'a Calibration,
    /// Tokens of it that are looked at per layer, at most.
    pub(super) tokens: usize,
    /// Bytes of what experts make of them that are held at a time ([`PIECE`]).
    pub(super) piece: u64,
    /// The layers, and how many experts of them stay.
    pub(super) layers: &'a ExpertLayers<'a>,
}

/// Of each layer, drops one expert after the other, each time the one whose removal raises
/// `Σ_t |T_t − Z_t|²` least, the lowest index among equals.
///
/// `T` is what the layer's experts make together of a token, and `Z` what they make of it when the router
/// cannot choose those that are gone; where a norm follows their sum, each token counts by `1 / |T_t|²`.
/// Tokens are spread evenly over the calibration blocks. Each layer reads what the unpruned layers before it give.
///
/// A global budget drops over all layers, next wherever the raise is the smallest share of the layer's
/// `Σ_t |T_t|²`, in the lowest layer among equals.
pub(super) fn drop_one_by_one(
    job: &mut Job<'_>,
    greedy: &Greedy<'_>,
) -> Result<Vec<LayerPlan>, Error> {
    let layers = greedy.layers;
    let found = removals_by_layer(job, greedy)?;
    let counts: Vec<usize> = match layers.budget {
        ExpertBudget::Global { keep, .. } => {
            let experts: usize = layers.behaviours.iter().map(|layer| layer.experts()).sum();
            cheapest(&found, experts - keep)?
        }
        _ => found.iter().map(Vec::len).collect(),
    };
    Ok(plans(layers, &found, &counts))
}

/// As many experts as each layer with experts may lose, in the order in which they go.
fn removals_by_layer(job: &mut Job<'_>, greedy: &Greedy<'_>) -> Result<Vec<Vec<Removal>>, Error> {
    let Job { model, execution, .. } = *job;
    let (spec, source, blocks) = (model.spec(), &Finite(model), &greedy.calibration.blocks);
    let sample = Sample::of(blocks, greedy.tokens);
    let quotas = quotas(spec, greedy.layers)?;
    check_gates(model)?;
    announce(job, greedy.calibration, &OutputsNeed::of(spec, &sample, &quotas))?;
    let work = |layer: usize| {
        let experts = spec.layers[layer].moe().map_or(0, |moe| moe.experts as u64);
        passes(spec, layer, blocks.tokens()) + sample.tokens() * experts
    };
    let work: Vec<u64> = (0..spec.layers.len()).map(work).collect();
    let route = Route {
        source,
        spec,
        blocks: Some(blocks),
        micro_batch: execution.micro_batch(),
        execution,
        step: "choosing experts",
        work: &work,
    };
    let mut found = Vec::new();
    walk(&route, job.progress, |mut at| {
        let hidden = at.take_hidden();
        let stored = StoredLayer { source, spec, layer: at.layer, compute: execution.compute() };
        let outputs =
            match quotas.get(found.len()).filter(|_| spec.layers[at.layer].moe().is_some()) {
                None => run(stored, hidden, None, at.watch)?.0,
                Some(quota) => {
                    let router = Router::read(model, at.layer)?;
                    let gating = Gating::load(source, spec, at.layer)?;
                    let weighing = Weighing::of(&spec.layers[at.layer]);
                    let looks = Looks {
                        sample: &sample,
                        router: &router,
                        gating: &gating,
                        removals: quota.per_block,
                        gates: weighing.gates,
                        piece: greedy.piece,
                    };
                    let (outputs, tokens) = run(stored, hidden, Some(looks), at.watch)?;
                    found.push(removals(&tokens, &gating, weighing, quota)?);
                    outputs
                }
            };
        *at.hidden = Some(outputs);
        Ok(())
    })?;
    Ok(found)
}

/// The plans of layers that lose the first so many of these.
fn plans(layers: &ExpertLayers<'_>, found: &[Vec<Removal>], counts: &[usize]) -> Vec<LayerPlan> {
    let plan = |(index, (removals, &count)): (usize, (&Vec<Removal>, &usize))| {
        let layer = &layers.behaviours[index];
        let mut dropped: Vec<usize> = removals[..count].iter().map(|r| r.expert).collect();
        dropped.sort_unstable();
        let reason = |expert: &usize| match layers.protected.has(index, *expert) {
            true => SurvivorReason::Protected,
            false => SurvivorReason::Searched,
        };
        without(layer.layer, layer.experts(), dropped, reason)
    };
    found.iter().zip(counts).enumerate().map(plan).collect()
}

/// How many experts each layer loses if `count` go over all of them, each time the one that is next in the
/// layer where that costs least.
fn cheapest(found: &[Vec<Removal>], count: usize) -> Result<Vec<usize>, Error> {
    let mut gone = vec![0; found.len()];
    for _ in 0..count {
        let mut best: Option<(f64, usize)> = None;
        for (layer, removals) in found.iter().enumerate() {
            let Some(next) = removals.get(gone[layer]) else { continue };
            if best.is_none_or(|(share, _)| next.share < share) {
                best = Some((next.share, layer));
            }
        }
        let Some((_, layer)) = best else {
            return Err(Error::refused(
                "more experts are to go than are left unprotected",
                Remedy::FewerExpertsOrNoProtection,
            ));
        };
        gone[layer] += 1;
    }
    Ok(gone)
}

/// What each layer with experts may lose at most.
fn quotas(spec: &ModelSpec, layers: &ExpertLayers<'_>) -> Result<Vec<Quota>, Error> {
    let ExpertLayers { behaviours, budget, blocks, protected } = *layers;
    let of_layers = behaviours.iter().enumerate().map(|(index, layer)| {
        let experts = layer.experts();
        let size = experts / blocks.per_layer();
        let protected: Vec<bool> = (0..experts).map(|e| protected.has(index, e)).collect();
        let free = protected.chunks(size.max(1)).map(|b| b.iter().filter(|p| !**p).count()).min();
        let free = free.unwrap_or(0);
        let per_block = match blocks.budget(budget) {
            ExpertBudget::Uniform { keep } if size - keep > free => {
                let problem = format!(
                    "so many experts of {} are protected that no {} can go",
                    spec.layer_name(layer.layer),
                    experts - keep * blocks.per_layer()
                );
                return Err(Error::refused(problem, Remedy::FewerExpertsOrNoProtection));
            }
            ExpertBudget::Uniform { keep } => size - keep,
            ExpertBudget::Global { min_per_layer, .. } => {
                experts.saturating_sub(min_per_layer).min(free)
            }
            other => {
                return Err(Error::Request(format!(
                    "choosing experts by what a layer loses is not implemented for the budget {other:?}"
                )));
            }
        };
        Ok(Quota { per_block, blocks: blocks.per_layer(), protected })
    });
    of_layers.collect()
}

/// Refuses routers of which what an expert makes of a token depends on which others there are: each output
/// is computed once.
fn check_gates(model: &dyn Model) -> Result<(), Error> {
    let spec = model.spec();
    let on_inputs = |moe: &MoeSpec| moe.router.gate_side() == GateSide::Input;
    for (layer, parts) in spec.layers.iter().enumerate() {
        if !parts.moe().is_some_and(on_inputs) {
            continue;
        }
        let gating = Gating::load(&Finite(model), spec, layer)?;
        let experts = parts.moe().map_or(0, |moe| moe.experts);
        if gating.own_weights(&vec![0.0; experts]).is_none() {
            return Err(Error::Request(format!(
                "choosing experts by what the layer loses is not implemented for routers that multiply \
                 what experts read by a weight that depends on the other experts, as in layer {layer}; \
                 choose experts by another criterion or by clusters"
            )));
        }
    }
    Ok(())
}

/// Says what memory the choice takes.
fn announce(job: &mut Job<'_>, calibration: &Calibration, need: &OutputsNeed) -> Result<(), Error> {
    let text = (&calibration.tag).into();
    let running = crate::MemoryNeed::of(job.model, text, RunKind::Observe);
    crate::memory::check_memory(running.total() + need.total(), job.execution.max_memory())?;
    job.progress.note(&format!(
        "choosing experts needs up to {} of memory: {} for what experts make of {} tokens, {} for its \
         products, the rest as any run",
        bytes_in_words(running.total() + need.total()),
        bytes_in_words(need.outputs),
        need.tokens,
        bytes_in_words(need.products),
    ));
    Ok(())
}

#[cfg(test)]
mod tests;
