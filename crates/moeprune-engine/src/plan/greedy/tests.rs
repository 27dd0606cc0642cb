//! Against computing each removal with the model's own code.

use std::path::Path;

use candle_core::Tensor;
use moeprune_capture::{TokenBlocks, embed_blocks};
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{CorpusTag, Plan};
use moeprune_model::{Compute, Embedding, Expert, Layer, LayerTrunk, NoSink, TrunkOutput};
use moeprune_score::{Magnitude, PerRow, Rounding, Uniform};

use super::*;
use crate::{
    Execution, ExpertStage, KeptExperts, Pipeline, Scored, Silent, Stage, WeightStage,
    plan::{blocks::Blocks, budget::groups_of, expert_layers::Protected, routers},
};

fn pipeline(tokens: usize) -> Pipeline {
    Pipeline {
        experts: ExpertStage::Greedy { tokens },
        repair: None,
        weights: WeightStage::Scored(Scored {
            scorer: Stage::new(Box::new(Magnitude)),
            pattern: Stage::new(Box::new(PerRow)),
            rounding: Rounding::Exact,
        }),
        refit: None,
        allocator: Stage::new(Box::new(Uniform)),
    }
}

fn open(model: &str) -> Checkpoint {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    Checkpoint::open(&root.join(model)).unwrap()
}

fn calibration(spec: &ModelSpec) -> Calibration {
    let ids = |block: u64| (0..16).map(move |i| 7 * i * i + 13 * block + 5);
    let vocab = spec.vocab as u64;
    let block = |block| ids(block).map(|id| (id % vocab) as u32).collect();
    let blocks = TokenBlocks::new((0..3).map(block).collect(), spec.vocab).unwrap();
    let tag = CorpusTag {
        name: String::new(),
        sha256: String::new(),
        samples: 3,
        sequence_len: 16,
        seed: 0,
        repeated: 1,
        read: None,
    };
    Calibration { blocks, tag, repair: None }
}

/// How experts are chosen in a test.
#[derive(Clone, Copy)]
struct Choice {
    keep: usize,
    tokens: usize,
    piece: u64,
    micro_batch: usize,
}

const ALL: Choice = Choice { keep: 0, tokens: 1000, piece: u64::MAX, micro_batch: 1 };

/// Calls `what` with what experts are chosen from.
fn choosing<R>(
    model: &dyn Model,
    (budget, choice): (ExpertBudget, Choice),
    what: impl FnOnce(&mut Job<'_>, &Greedy<'_>) -> R,
) -> R {
    let routers = routers(model).unwrap();
    let behaviours: Vec<_> = routers.iter().map(|r| r.behaviour().unwrap()).collect();
    let Choice { tokens, piece, micro_batch, .. } = choice;
    let layers = ExpertLayers {
        behaviours: &behaviours,
        budget,
        blocks: Blocks::new(groups_of(model.spec()).map_or(1, |groups| groups.count)),
        protected: &Protected::none(),
    };
    let calibration = &calibration(model.spec());
    let execution = &Execution::on(Compute::cpu(), Some(micro_batch));
    let mut job = Job { model, pipeline: &pipeline(1), execution, progress: &mut Silent };
    what(&mut job, &Greedy { calibration, tokens, piece, layers: &layers })
}

/// Experts in the order in which they go, by layer with experts, until each layer has as many as are kept.
fn found(model: &dyn Model, choice: Choice) -> Vec<Vec<Removal>> {
    let budget = ExpertBudget::Uniform { keep: choice.keep };
    choosing(model, (budget, choice), removals_by_layer).unwrap()
}

/// The inputs of each layer, one tensor per block.
fn inputs(model: &Checkpoint) -> Vec<Vec<Tensor>> {
    let (spec, compute) = (model.spec(), &Compute::cpu());
    let embedding = Embedding::load(model, spec, compute).unwrap();
    let mut inputs = vec![embed_blocks(&embedding, &calibration(spec).blocks, 1).unwrap()];
    for layer in 0..spec.layers.len() {
        let layer = Layer::load(model, spec, layer, compute).unwrap();
        let run = |x: &Tensor| layer.forward(x, 0, None, &mut NoSink).unwrap();
        inputs.push(inputs[inputs.len() - 1].iter().map(run).collect());
    }
    inputs
}

/// Whether each removal raises `loss` least of all that were possible, of equals the first.
#[track_caller]
fn check_order(
    what: &str,
    removals: &[Removal],
    may_go: impl Fn(&[usize]) -> Vec<usize>,
    loss: impl Fn(&[usize]) -> f64,
) {
    let mut gone = Vec::new();
    for removal in removals {
        let with = |expert: usize| loss(&[&gone[..], &[expert]].concat());
        let chosen = with(removal.expert);
        for expert in may_go(&gone) {
            let other = with(expert);
            let slack = 1e-5 * (chosen + 1e-6);
            assert!(
                other >= chosen - slack,
                "{what}: {expert} before {removal:?} after {gone:?}: {other} {chosen}"
            );
            let is_tie = other == chosen && expert < removal.expert;
            assert!(!is_tie, "{what}: {expert} ties with {removal:?} after {gone:?}");
        }
        gone.push(removal.expert);
    }
}

fn moe_layers(spec: &ModelSpec) -> Vec<(usize, &MoeSpec)> {
    let layers = spec.layers.iter().enumerate();
    layers.filter_map(|(layer, parts)| Some((layer, parts.moe()?))).collect()
}

/// As many experts as each token needs.
fn least(spec: &ModelSpec) -> usize {
    moe_layers(spec).iter().map(|(_, moe)| moe.top_k).max().unwrap()
}

/// Layers without these experts, through the model's own code.
fn check(name: &str) {
    let model = open(name);
    let (spec, compute) = (model.spec(), Compute::cpu());
    let keep = least(spec);
    let found = found(&model, Choice { keep, ..ALL });
    let inputs = inputs(&model);
    assert_eq!(found.len(), moe_layers(spec).len());
    for ((layer, moe), removals) in moe_layers(spec).into_iter().zip(&found) {
        let experts = moe.experts;
        assert_eq!(removals.len(), experts - keep, "{name}");
        let output = |dropped: &[usize]| -> Vec<f32> {
            let mut dropped = dropped.to_vec();
            dropped.sort_unstable();
            let layers = vec![without(layer, experts, dropped, |_| SurvivorReason::Searched)];
            let plan = Plan {
                format: 1,
                tool: String::new(),
                model_fingerprint: String::new(),
                observation_sha256: None,
                corpora: Vec::new(),
                recipe: serde_json::Value::Null,
                unstructured: None,
                repairs: false,
                layers,
                extra: None,
            };
            let kept = KeptExperts::new(&model, &plan);
            let run = Layer::load(&kept, kept.spec(), layer, &compute).unwrap();
            let run = |x: &Tensor| run.forward(x, 0, None, &mut NoSink).unwrap();
            let flat = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            inputs[layer].iter().flat_map(|x| flat(run(x))).collect()
        };
        let dense = output(&[]);
        let loss = |dropped: &[usize]| -> f64 {
            let squares = dense.iter().zip(output(dropped)).map(|(a, b)| f64::from(a - b).powi(2));
            squares.sum()
        };
        check_order(name, removals, may_go(experts, 1, keep), loss);
    }
}

#[test]
fn softmax() {
    check("parity/arctic");
    check("parity/mixtral");
}

#[test]
fn softmax_over_all_experts() {
    check("parity/qwen2_moe_mixed");
    check("parity/olmoe_clip");
}

#[test]
fn sigmoids_with_a_correction() {
    check("parity/glm4_moe");
    check("parity/minimax_m2");
}

#[test]
fn softmax_with_a_correction() {
    check("parity/ernie4_5_moe");
}

#[test]
fn gates_on_inputs() {
    check("parity/llama4");
}

#[test]
fn biases_multipliers_and_rivals() {
    check("parity/gpt_oss");
    check("parity/granitemoe");
    check("parity/phimoe");
}

#[test]
fn latent_width() {
    check("parity/nemotron_h");
}

/// Experts of a layer that may go from blocks that keep `keep`.
fn may_go(experts: usize, blocks: usize, keep: usize) -> impl Fn(&[usize]) -> Vec<usize> {
    move |gone| {
        let size = experts / blocks;
        let left = |block: usize| size - gone.iter().filter(|e| **e / size == block).count();
        (0..experts).filter(|e| !gone.contains(e) && left(e / size) > keep / blocks).collect()
    }
}

/// What each expert makes of each token, by the gates of the layer, in f64: for groups, which cannot lose
/// experts one by one, and norms after the experts' sum.
fn check_by_gates(name: &str, keep: usize) {
    let model = open(name);
    let (spec, compute) = (model.spec(), Compute::cpu());
    let found = found(&model, Choice { keep, ..ALL });
    let (inputs, blocks) = (inputs(&model), groups_of(spec).map_or(1, |groups| groups.count));
    for ((layer, moe), removals) in moe_layers(spec).into_iter().zip(&found) {
        let trunk = LayerTrunk::load(&model, spec, layer, &compute).unwrap();
        let router = Router::read(&model, layer).unwrap();
        let gating = Gating::load(&model, spec, layer).unwrap();
        let mut tokens: Vec<(Vec<f64>, Vec<Vec<f64>>)> = Vec::new();
        for x in &inputs[layer] {
            let mut seen = Seen(Vec::new());
            let TrunkOutput { routed, .. } = trunk.forward(x, &mut seen).unwrap();
            let rows: Vec<u32> = (0..seen.0.len() as u32).collect();
            let read = routed.unwrap().normed(&rows).unwrap();
            let expert = |e| Expert::load(&model, spec, layer, e, &compute).unwrap();
            let outputs: Vec<Vec<Vec<f64>>> = (0..moe.experts)
                .map(|e| wide(&expert(e).forward(&read, &mut NoSink).unwrap()))
                .collect();
            for (token, read) in seen.0.iter().enumerate() {
                let row = |row: &[f32]| row.iter().zip(read).map(|(w, x)| f64::from(*w) * x).sum();
                let logits = router.values().chunks_exact(spec.hidden).map(row).collect();
                tokens.push((logits, outputs.iter().map(|of| of[token].clone()).collect()));
            }
        }
        let is_normed = spec.layers[layer].norms != moeprune_core::LayerNorms::Before;
        let loss = |dropped: &[usize]| -> f64 {
            let gone: Vec<bool> = (0..moe.experts).map(|e| dropped.contains(&e)).collect();
            let of_token = |(logits, outputs): &(Vec<f64>, Vec<Vec<f64>>)| {
                let sum = |gates: &[f64]| -> Vec<f64> {
                    let at = |i| gates.iter().zip(outputs).map(|(g, y)| g * y[i]).sum();
                    (0..spec.hidden).map(at).collect()
                };
                let dense = sum(&gating.gates_without(logits, &[]));
                let left = sum(&gating.gates_without(logits, &gone));
                let change: f64 = dense.iter().zip(&left).map(|(a, b)| (a - b).powi(2)).sum();
                let whole: f64 = dense.iter().map(|a| a * a).sum();
                if is_normed { change / whole } else { change }
            };
            tokens.iter().map(of_token).sum()
        };
        check_order(name, removals, may_go(moe.experts, blocks, keep), loss);
        assert_eq!(removals.len(), moe.experts - keep, "{name}");
    }
}

/// What a router reads.
struct Seen(Vec<Vec<f64>>);

impl moeprune_model::ActivationSink for Seen {
    fn linear_input(
        &mut self,
        site: moeprune_core::LinearId,
        input: &Tensor,
    ) -> Result<(), moeprune_model::Error> {
        if site == moeprune_core::LinearId::Router {
            self.0 = wide(input);
        }
        Ok(())
    }
}

fn wide(rows: &Tensor) -> Vec<Vec<f64>> {
    let rows: Vec<Vec<f32>> = rows.to_vec2().unwrap();
    rows.into_iter().map(|row| row.into_iter().map(f64::from).collect()).collect()
}

#[test]
fn groups() {
    check_by_gates("parity/deepseek_v3", 8);
    check_by_gates("parity/deepseek_v2", 8);
}

#[test]
fn norms_after_the_sum() {
    check_by_gates("parity/gemma4", 3);
}

/// Experts that no token is sent to cost nothing, and go from the first on.
#[test]
fn ties_go_to_the_lowest_index() {
    let model = open("parity/mixtral");
    let one = found(&model, Choice { keep: least(model.spec()), tokens: 1, ..ALL });
    for removals in one {
        assert!(removals.iter().all(|removal| removal.share == 0.0), "{removals:?}");
        assert!(removals.windows(2).all(|two| two[0].expert < two[1].expert), "{removals:?}");
    }
}

/// Neither how far a token can be sent, nor how many outputs are held at a time, nor what runs together and
/// on how many threads, changes which go.
#[test]
fn what_is_computed_at_a_time_changes_nothing() {
    let check = |name: &str| {
        let model = open(name);
        let all = found(&model, Choice { keep: least(model.spec()), ..ALL });
        let half = Choice { keep: all[0].len() / 2 + least(model.spec()), ..ALL };
        let few: Vec<_> =
            all.iter().map(|order| order[..order.len().div_ceil(2)].to_vec()).collect();
        assert_eq!(found(&model, half), few, "{name}");
        assert_eq!(found(&model, Choice { piece: 1, ..half }), few, "{name}");
        assert_eq!(found(&model, Choice { micro_batch: 2, ..half }), few, "{name}");
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| found(&model, half)), few, "{name}");
        }
    };
    check("parity/mixtral");
    check("parity/minimax_m2");
    check("parity/qwen2_moe_mixed");
}

/// Over all layers, the removals that raise the loss least of those that are next in their layer.
#[test]
fn a_global_budget_takes_the_cheapest() {
    let model = open("parity/mixtral");
    let spec = model.spec();
    let order = found(&model, Choice { keep: least(spec), ..ALL });
    let experts: usize = moe_layers(spec).iter().map(|(_, moe)| moe.experts).sum();
    let budget = ExpertBudget::Global { keep: experts - 7, min_per_layer: least(spec) };
    let plans = choosing(&model, (budget, ALL), drop_one_by_one).unwrap();
    assert_eq!(plans.iter().map(|layer| layer.dropped.len()).sum::<usize>(), 7);
    let dearest = plans
        .iter()
        .zip(&order)
        .flat_map(|(plan, order)| order[..plan.dropped.len()].iter().map(|removal| removal.share));
    let dearest = dearest.fold(f64::MIN, f64::max);
    for (plan, order) in plans.iter().zip(&order) {
        let mut first: Vec<usize> = order[..plan.dropped.len()].iter().map(|r| r.expert).collect();
        first.sort_unstable();
        assert_eq!(plan.dropped, first);
        let next = order.get(plan.dropped.len());
        assert!(next.is_none_or(|next| next.share >= dearest), "{next:?} {dearest}");
    }
}
