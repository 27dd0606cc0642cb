//! What a repaired layer goes on with.

mod rates;

use std::{ops::ControlFlow, sync::Arc};

use moeprune_capture::{LayerRun, TokenBlocks, embed_blocks};
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{
    CorpusTag, LayerPlan, Partition, Plan, RepairPasses, StageError, Survivor, SurvivorReason,
    repair::{ExpertOutcome, RepairedExpert},
};
use moeprune_model::Embedding;

use super::*;
use crate::{
    RepairBlocks, RepairCalibration,
    kept_experts::{TemporaryFolder, repaired_parts::RepairedParts},
};

/// All weights times a factor, each expert's another one.
#[derive(Debug)]
struct Scale;

impl ExpertRepair for Scale {
    fn repair(&self, layer: &mut LayerToRepair<'_>) -> Result<LayerRepair, StageError> {
        let before = layer.error(0..layer.fitted);
        let mut done = Vec::new();
        for (index, expert) in layer.experts.iter().enumerate() {
            if expert.tokens.is_empty() {
                done.push(RepairedExpert::unchanged(index, ExpertOutcome::NoTokens));
                continue;
            }
            let features = expert.features;
            let old = layer.store.weights(index)?;
            let factor = 1.0 + 0.25 * (1 + index) as f32;
            let new = layer.store.replace(index, old.iter().map(|w| w * factor).collect())?;
            assert_eq!(layer.store.original_weights(index)?, old);
            assert_eq!(layer.store.weights(index)?, new);
            let read = layer.store.activations(index, 0..expert.tokens.len())?;
            let last = expert.tokens.len() - 1;
            let end = layer.store.activations(index, last..last + 1)?;
            assert_eq!(end, read[last * features..]);
            layer.store.keep(index, &[index as f64, 0.5])?;
            for (row, &token) in read.chunks_exact(features).zip(&expert.tokens) {
                let missing = &mut layer.residual[token as usize * layer.width..][..layer.width];
                for (out, missing) in missing.iter_mut().enumerate() {
                    let place = out * features..(out + 1) * features;
                    let change = new[place.clone()].iter().zip(&old[place]).zip(row);
                    *missing -= change.map(|((new, old), x)| (new - old) * x).sum::<f32>();
                }
            }
            done.push(RepairedExpert::refitted(index, 0.0, f64::from(factor)));
        }
        let kept = layer.store.kept(0)?;
        assert!(kept.is_none_or(|kept| kept == [0.0, 0.5]));
        Ok(LayerRepair::new(layer.layer, vec![before], done))
    }
}

/// Changes nothing.
#[derive(Debug)]
struct Nothing;

impl ExpertRepair for Nothing {
    fn repair(&self, layer: &mut LayerToRepair<'_>) -> Result<LayerRepair, StageError> {
        let experts = 0..layer.experts.len();
        let unchanged = |e| RepairedExpert::unchanged(e, ExpertOutcome::NoTokens);
        Ok(LayerRepair::new(layer.layer, Vec::new(), experts.map(unchanged).collect()))
    }
}

fn checkpoint(model: &str) -> Checkpoint {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    Checkpoint::open(&assets.join(model)).unwrap()
}

/// Every layer loses experts, so that groups stay equal; `average`: instead two become one.
fn plan(checkpoint: &Checkpoint, average: bool) -> Plan {
    let spec = checkpoint.spec();
    let layers = (0..spec.layers.len()).filter_map(|layer| {
        let moe = spec.moe_of(layer)?;
        let n = moe.experts;
        let size = n / moe.router.groups().map_or(1, |groups| groups.count);
        let goes = |e: usize| size > 1 && e % size == 1 && (size < n || e == 1);
        let gone: Vec<usize> = (0..n).filter(|&e| goes(e)).collect();
        let kept = |e| Survivor::kept(e, SurvivorReason::Salient);
        let survivors = (0..n).filter(|e| !gone.contains(e)).map(|e| {
            let joined = average && gone.contains(&(e + 1));
            if joined { Survivor::average(vec![e, e + 1], Vec::new()) } else { kept(e) }
        });
        let survivors: Vec<Survivor> = survivors.collect();
        let clusters: Vec<Vec<usize>> = match average {
            true => survivors
                .iter()
                .map(|s| match s.average_of.is_empty() {
                    true => vec![s.source],
                    false => s.average_of.clone(),
                })
                .collect(),
            false => (0..n).map(|e| vec![e]).collect(),
        };
        Some(LayerPlan {
            layer,
            experts_before: n,
            clusters: Partition::new(n, clusters).unwrap(),
            survivors,
            dropped: if average { Vec::new() } else { gone },
            tokens: Vec::new(),
        })
    });
    Plan {
        format: crate::PLAN_FORMAT,
        tool: String::new(),
        model_fingerprint: String::new(),
        observation_sha256: None,
        corpora: Vec::new(),
        recipe: serde_json::Value::Null,
        unstructured: None,
        repairs: true,
        layers: layers.collect(),
        extra: None,
    }
}

fn calibration(vocab: usize) -> RepairCalibration {
    let block = |b: u32| (0..20).map(|t| (b * 7 + t * 13 + t * t) % vocab as u32).collect();
    let blocks = |range: Range<u32>| TokenBlocks::new(range.map(block).collect(), vocab).unwrap();
    let tag = CorpusTag {
        name: "made up".into(),
        sha256: String::new(),
        samples: 6,
        sequence_len: 20,
        seed: 0,
        repeated: 1,
        read: None,
    };
    let (fitted, held_out) = (Some(blocks(0..5)), Some(blocks(5..6)));
    RepairCalibration { texts: vec![RepairBlocks { tag, fitted, held_out }] }
}

fn largest_difference(a: &[Tensor], b: &[Tensor]) -> f32 {
    assert_eq!(a.len(), b.len());
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let pairs = a.iter().zip(b).flat_map(|(a, b)| values(a).into_iter().zip(values(b)));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn run(kept: &KeptExperts<'_>, layer: usize, hidden: Vec<Tensor>) -> Vec<Tensor> {
    let execution = Execution::cpu();
    let (spec, compute) = (kept.spec(), execution.compute());
    let watch: Watch<'_> = &mut |_| ControlFlow::Continue(());
    let trunk = LayerTrunk::load(kept, spec, layer, compute).unwrap();
    let mut run = LayerRun::advance(&trunk, layer, hidden, None, watch).unwrap();
    let stored = StoredLayer { source: kept, spec, layer, compute };
    let all: Vec<usize> = (0..spec.moe_of(layer).map_or(0, |moe| moe.experts)).collect();
    for_each_loaded_expert(stored, &all, |expert| {
        Ok::<_, Error>(run.expert(expert.index(), &expert, None, watch)?)
    })
    .unwrap();
    run.finish().unwrap()
}

/// The outputs that a repaired layer goes on with are those of the layer with its new weights.
fn check(model: &str, average: bool) {
    let checkpoint = checkpoint(model);
    let plan = plan(&checkpoint, average);
    let execution = &Execution::cpu();
    let calibration = calibration(checkpoint.spec().vocab);
    let tokens = &RepairTokens::of(&calibration).unwrap();
    let kept = &KeptExperts::new(&checkpoint, &plan);
    let embedding = Embedding::load(kept, kept.spec(), execution.compute()).unwrap();
    let mut hidden = embed_blocks(&embedding, &tokens.blocks, 2).unwrap();
    for layer in 0..kept.spec().layers.len() {
        let plain = run(kept, layer, hidden.clone());
        if !kept.loses_experts(layer) {
            hidden = plain;
            continue;
        }
        for activations in [true, false] {
            let holding = Holding { activations, factors: activations };
            let folder = Arc::new(TemporaryFolder::new_in(&std::env::temp_dir()).unwrap());
            let watch: Watch<'_> = &mut |_| ControlFlow::Continue(());
            let mut task = |repair: &Stage<dyn ExpertRepair>| {
                let folder = folder.path();
                let (wanted, after) = (kept.source(), After::Experts);
                let task = RepairTask { wanted, kept, repair, execution, tokens, after, folder };
                task.repair(layer, (hidden.clone(), holding), watch).unwrap()
            };
            let same = task(&Stage::new(Box::new(Nothing)));
            let error = largest_difference(&same.hidden, &plain);
            assert!(same.replaced.is_empty() && error < 1e-4, "{model} {layer}: {error}");
            let scaled = task(&Stage::new(Box::new(Scale)));
            let mut parts = RepairedParts::in_folder(Arc::clone(&folder));
            parts.add(kept, (folder.path(), After::Experts), (layer, &scaled.replaced)).unwrap();
            let changed = KeptExperts::new(&checkpoint, &plan).with_repaired(parts);
            let error = largest_difference(&scaled.hidden, &run(&changed, layer, hidden.clone()));
            let moved = largest_difference(&scaled.hidden, &plain);
            assert!(error < 1e-4 && moved > 1e-3, "{model} {layer}: {error} of {moved}");
            let held_out = scaled.report.held_out[0].unwrap();
            assert!(held_out.before > 0.0 && held_out.after > 0.0, "{held_out:?}");
            assert!(scaled.report.output > 0.0);
        }
        hidden = plain;
    }
}

#[test]
fn outputs_follow_from_what_is_missing() {
    // By turns: a parallel block, renormalised and plain weights, biases, scores of inputs, norms
    // around blocks, a latent width, a multiplier, groups of experts.
    for model in [
        "parity/arctic",
        "parity/mixtral",
        "parity/qwen2_moe_mixed",
        "parity/gpt_oss",
        "parity/llama4",
        "parity/gemma4",
        "parity/nemotron_h",
        "parity/granitemoe",
        "parity/deepseek_v3",
        "parity/deepseek_v2",
        "parity/phimoe",
        "parity/ernie4_5_moe",
    ] {
        check(model, false);
    }
}

#[test]
fn averages_are_repaired_like_others() {
    for model in ["parity/mixtral", "parity/qwen3_moe_mixed", "parity/llama4"] {
        check(model, true);
    }
}

#[test]
fn weights_of_fitted_tokens_have_the_mean_one_and_short_streams_count_more() {
    let weights = token_weights(&[4.0, 1.0, 0.25, 100.0], 3, 1e-5);
    let mean = weights[..3].iter().sum::<f32>() / 3.0;
    assert!((mean - 1.0).abs() < 1e-6);
    assert!((weights[1] / weights[0] - 4.0).abs() < 1e-5);
    assert!((weights[2] / weights[1] - 4.0).abs() < 1e-5);
}

#[test]
fn a_token_without_length_has_a_finite_weight() {
    let weights = token_weights(&[0.0, 1.0], 2, 1e-5);
    assert!(weights.iter().all(|weight| weight.is_finite()));
}

/// Weights are refitted in a model whose experts all stay, on what another one writes.
#[test]
fn outputs_follow_after_masks_too() {
    for model in ["parity/arctic", "parity/mixtral", "parity/llama4", "parity/gpt_oss"] {
        let (wanted, checkpoint) = (checkpoint(model), checkpoint(model));
        let plan = Plan { layers: Vec::new(), ..plan(&checkpoint, false) };
        let execution = &Execution::cpu();
        let tokens = &RepairTokens::of(&calibration(checkpoint.spec().vocab)).unwrap();
        let kept = &KeptExperts::new(&checkpoint, &plan);
        let embedding = Embedding::load(kept, kept.spec(), execution.compute()).unwrap();
        let hidden = embed_blocks(&embedding, &tokens.blocks, 2).unwrap();
        let layer = (0..kept.spec().layers.len()).find(|&l| kept.spec().moe_of(l).is_some());
        let layer = layer.unwrap();
        let folder = Arc::new(TemporaryFolder::new_in(&std::env::temp_dir()).unwrap());
        let repair = &Stage::<dyn ExpertRepair>::new(Box::new(Scale));
        let (after, wanted) = (After::Masks, &wanted as &dyn Model);
        let task =
            RepairTask { wanted, kept, repair, execution, tokens, after, folder: folder.path() };
        let holding = Holding { activations: true, factors: true };
        let watch: Watch<'_> = &mut |_| ControlFlow::Continue(());
        let scaled = task.repair(layer, (hidden.clone(), holding), watch).unwrap();
        let mut parts = RepairedParts::in_folder(Arc::clone(&folder));
        parts.add(kept, (folder.path(), after), (layer, &scaled.replaced)).unwrap();
        let changed = KeptExperts::new(&checkpoint, &plan).with_repaired(parts);
        let error = largest_difference(&scaled.hidden, &run(&changed, layer, hidden.clone()));
        assert!(error < 1e-4, "{model}: {error}");
        let held_out = scaled.report.held_out[0].unwrap();
        assert!(held_out.before < 1e-9 && held_out.after > 1e-4, "{held_out:?}");
    }
}
