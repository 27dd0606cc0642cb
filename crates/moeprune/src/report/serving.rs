//! What a pruned checkpoint saves when it is served, in plain sentences.

use moeprune_core::{ExtraPolicy, Plan};

use super::{BytesReport, LayerReport};
use crate::serving::Cut;

/// Every sentence follows from the plan, the bytes and what is known of engines; none is a promise of
/// speed.
pub(super) fn sentences(
    layers: &[LayerReport],
    plan: &Plan,
    bytes: BytesReport,
    cut: &Cut,
    is_listed: bool,
) -> Vec<String> {
    let mut sentences = Vec::new();
    let saved = 100.0 * (1.0 - bytes.after as f64 / bytes.before.max(1) as f64);
    let zeroed = plan.unstructured.is_some() && layers.iter().any(|layer| layer.achieved > 0.0);
    let experts = plan.layers.iter().any(|layer| layer.experts_after() < layer.experts_before);
    if !experts && plan.extra != Some(ExtraPolicy::Drop) {
        let none = match zeroed {
            true => "No expert was removed",
            false => "Nothing was removed and no weight was zeroed",
        };
        sentences.push(format!("{none}: the checkpoint takes as much disk and memory as before."));
    } else {
        sentences.push(format!(
            "Removing experts makes the checkpoint {saved:.1} % smaller on disk and in memory; \
             every token still runs through as many experts as before, so do not expect each \
             token to be computed faster."
        ));
    }
    if plan.unstructured.is_some() && !zeroed {
        sentences.push("The share that was asked for is less than one weight of any row.".into());
    } else if plan.unstructured.is_some() {
        sentences.push(
            "Zeroed weights are stored as zeros: they save no disk, no memory and no time in \
             engines that load dense weights (transformers, vLLM, SGLang, llama.cpp). They save \
             space only in a format or a kernel that is made for sparse weights."
                .into(),
        );
    }
    let mut counts: Vec<usize> =
        layers.iter().filter(|l| l.experts_before > 0).map(|l| l.kept.len()).collect();
    counts.dedup();
    if counts.len() > 1 {
        let remedy = match is_listed {
            true => {
                "Engines that read a single number need a keep-list with as many for each layer."
            }
            false => "Use --budget uniform for engines that read a single number.",
        };
        sentences.push(format!(
            "Layers have different numbers of experts and the expert count in config.json is a list. \
             {remedy}"
        ));
    }
    sentences.extend(cut.sentences());
    sentences
}
