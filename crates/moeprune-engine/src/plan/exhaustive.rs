//! The expert stage by trying every subset: NAEE (Lu et al., arXiv 2402.14800).

use candle_core::Tensor;
use moeprune_core::{
    ExpertBudget, GateSide, LayerPlan, ModelSpec, MoeSpec, SurvivorReason, TensorSource,
};
use moeprune_model::{Error as ModelError, Expert, ExpertTensors, Gating, LayerTrunk, TrunkOutput};
use rayon::prelude::*;

use super::{Router, budget::expert_budget, ranking::without};
use crate::{
    BudgetSpread, Calibration, Error, Execution, ExpertRequest, Job, Model, Remedy,
    finite::Finite,
    on_host::on_host,
    router_input::RouterInput,
    walk::{Route, walk},
};

/// Of each layer, drops the experts without which the block's output changes least.
///
/// With `Z_b` what the layer's experts make of calibration block `b` and `Z_b^(D)` what they make of it
/// when the router cannot choose the experts `D`, the subset with the least `Σ_b ‖Z_b − Z_b^(D)‖_F`
/// goes, the first in lexicographic order among equals. Each layer reads what the unpruned layers
/// before it give. A layer's experts are in memory together, and what each makes of a block.
pub(crate) fn drop_least_missed(
    job: &mut Job<'_>,
    calibration: &Calibration,
    request: &ExpertRequest,
) -> Result<Vec<LayerPlan>, Error> {
    let Job { model, execution, .. } = *job;
    let Some(budget) = expert_budget(model.spec(), request)? else { return Ok(Vec::new()) };
    check_gates(model.spec())?;
    let keep = keep_of(budget)?;
    let (spec, source) = (model.spec(), &Finite(model));
    let blocks = &calibration.blocks;
    let experts = |layer: usize| spec.layers[layer].moe().map_or(0, |moe| moe.experts);
    let work = |layer| blocks.tokens() * (1 + experts(layer) as u64);
    let work: Vec<u64> = (0..spec.layers.len()).map(work).collect();
    let route = Route {
        source,
        spec,
        blocks: Some(blocks),
        // A norm is of one block.
        micro_batch: 1,
        execution,
        step: "trying subsets",
        work: &work,
    };
    let mut plans = Vec::new();
    walk(&route, job.progress, |mut at| {
        let (layer, experts) = (at.layer, experts(at.layer));
        let mut hidden = at.take_hidden();
        let whole = WholeLayer::load(source, spec, layer, execution)?;
        let mut losses = match spec.layers[layer].moe() {
            None => None,
            Some(moe) => Some(Losses::new(model, layer, moe, moe.experts - keep)?),
        };
        for state in &mut hidden {
            let (batch, len, _) = state.dims3()?;
            *state = whole.run(state, losses.as_mut())?;
            let done = (batch * len * (1 + experts)) as u64;
            at.done(done)?;
        }
        *at.hidden = Some(hidden);
        if let Some(losses) = losses {
            let dropped = losses.least();
            plans.push(without(layer, experts, dropped, |_| SurvivorReason::Searched));
        }
        Ok(())
    })?;
    Ok(plans)
}

/// Refuses routers of which what an expert makes of a token depends on its weight: here each output is
/// computed once and weighed as each subset would.
fn check_gates(spec: &ModelSpec) -> Result<(), Error> {
    let weighs_inputs = |(layer, moe): (usize, &MoeSpec)| {
        (moe.router.gate_side() == GateSide::Input).then_some(layer)
    };
    let moe_layers = spec.layers.iter().enumerate().filter_map(|(l, of)| Some((l, of.moe()?)));
    match moe_layers.filter_map(weighs_inputs).next() {
        None => Ok(()),
        Some(layer) => Err(Error::Request(format!(
            "trying all subsets is not implemented for routers that multiply what experts read, as in \
             layer {layer}; choose experts by a criterion or by clusters"
        ))),
    }
}

/// A layer with all its experts in memory.
struct WholeLayer {
    trunk: LayerTrunk,
    experts: Vec<Expert>,
}

impl WholeLayer {
    fn load(
        source: &dyn TensorSource,
        spec: &ModelSpec,
        layer: usize,
        execution: &Execution,
    ) -> Result<Self, Error> {
        let compute = execution.compute();
        let trunk = LayerTrunk::load(source, spec, layer, compute)?;
        let experts = (0..spec.layers[layer].moe().map_or(0, |moe| moe.experts))
            .map(|e| {
                let tensors = ExpertTensors::read(source, spec, layer, e)?;
                Expert::load(&tensors, spec, layer, e, compute)
            })
            .collect::<Result<Vec<_>, ModelError>>()?;
        Ok(Self { trunk, experts })
    }

    /// The layer's outputs for one block, `[1, tokens, hidden]` as its inputs; every expert runs on
    /// every token, for `losses`.
    fn run(&self, state: &Tensor, losses: Option<&mut Losses>) -> Result<Tensor, Error> {
        let (batch, len, width) = state.dims3()?;
        let mut input = RouterInput::default();
        let TrunkOutput { mut sum, routed } = self.trunk.forward(state, &mut input)?;
        let mut outputs = Vec::with_capacity(self.experts.len());
        if let Some(routed) = &routed {
            let all: Vec<u32> = (0..(batch * len) as u32).collect();
            let read = routed.normed(&all)?;
            for expert in &self.experts {
                let output = expert.forward(&read, &mut moeprune_model::NoSink)?;
                let (rows, gates) = routed.tokens(expert.index());
                if !rows.is_empty() {
                    let index = Tensor::from_slice(rows, rows.len(), output.device())?;
                    sum.add(rows, gates, &output.index_select(&index, 0)?)?;
                }
                outputs.push(on_host(&self.trunk.in_hidden_width(&output)?)?);
            }
        }
        if let (Some(losses), Some(read)) = (losses, &input.0) {
            losses.add_block(&on_host(read)?, &outputs, width);
        }
        Ok(sum.into_tensor()?.reshape((batch, len, width))?)
    }
}

/// The experts that each layer keeps.
fn keep_of(budget: ExpertBudget) -> Result<usize, Error> {
    match budget {
        ExpertBudget::Uniform { keep } => Ok(keep),
        _ => Err(Error::refused(
            "trying all subsets compares those of one layer",
            Remedy::Spread(BudgetSpread::Uniform),
        )),
    }
}

/// Refuses more than `most` subsets of layers with these numbers of experts.
pub(crate) fn check_subsets(
    experts: &[usize],
    budget: ExpertBudget,
    most: u64,
) -> Result<(), Error> {
    let keep = keep_of(budget)?;
    for &n in experts {
        let subsets = combinations(n, n - keep);
        if subsets > most as f64 {
            let problem = format!(
                "dropping {} of {n} experts leaves {subsets:.3e} subsets to try in each layer, more \
                 than the {most} that are allowed",
                n - keep
            );
            return Err(Error::refused(problem, Remedy::MoreSubsets));
        }
    }
    Ok(())
}

fn combinations(n: usize, r: usize) -> f64 {
    (0..r).map(|i| (n - i) as f64 / (i + 1) as f64).product::<f64>().round()
}

/// All `r` of `0..n`, in lexicographic order.
fn subsets(n: usize, r: usize) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    let mut subset: Vec<usize> = (0..r).collect();
    loop {
        all.push(subset.clone());
        let Some(place) = (0..r).rev().find(|&i| subset[i] < n - r + i) else { return all };
        subset[place] += 1;
        for i in place + 1..r {
            subset[i] = subset[i - 1] + 1;
        }
    }
}

/// What each subset costs.
struct Losses {
    router: Router,
    gating: Gating,
    experts: usize,
    subsets: Vec<Vec<usize>>,
    losses: Vec<f64>,
}

impl Losses {
    fn new(model: &dyn Model, layer: usize, moe: &MoeSpec, dropped: usize) -> Result<Self, Error> {
        let subsets = subsets(moe.experts, dropped);
        Ok(Self {
            router: Router::read(model, layer)?,
            gating: Gating::load(&Finite(model), model.spec(), layer)?,
            experts: moe.experts,
            losses: vec![0.0; subsets.len()],
            subsets,
        })
    }

    /// `read` is `[tokens, hidden]`, as is what each expert makes of it.
    fn add_block(&mut self, read: &[f32], outputs: &[Vec<f32>], hidden: usize) {
        let router = self.router.values();
        let logits: Vec<Vec<f64>> = read
            .par_chunks_exact(hidden)
            .map(|token| {
                let dot = |row: &[f32]| -> f64 {
                    row.iter().zip(token).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
                };
                router.chunks_exact(hidden).map(dot).collect()
            })
            .collect();
        let none = vec![false; self.experts];
        let dense: Vec<Vec<f64>> =
            logits.iter().map(|token| self.gating.gates_without(token, &none)).collect();
        let (this, logits, dense) = (&*self, &logits, &dense);
        let squares: Vec<f64> = this
            .subsets
            .par_iter()
            .map(|subset| {
                let gone: Vec<bool> = (0..this.experts).map(|e| subset.contains(&e)).collect();
                let mut difference = vec![0.0; hidden];
                let change = |(token, (logits, dense)): (usize, (&Vec<f64>, &Vec<f64>))| -> f64 {
                    let left = this.gating.gates_without(logits, &gone);
                    difference.fill(0.0);
                    for (e, (new, old)) in left.iter().zip(dense).enumerate() {
                        if new == old {
                            continue;
                        }
                        let output = &outputs[e][token * hidden..(token + 1) * hidden];
                        for (sum, &x) in difference.iter_mut().zip(output) {
                            *sum += (old - new) * f64::from(x);
                        }
                    }
                    difference.iter().map(|d| d * d).sum()
                };
                logits.iter().zip(dense).enumerate().map(change).sum()
            })
            .collect();
        for (loss, squares) in self.losses.iter_mut().zip(squares) {
            *loss += squares.sqrt();
        }
    }

    fn least(mut self) -> Vec<usize> {
        let least = (0..self.losses.len()).reduce(|best, other| {
            if self.losses[other] < self.losses[best] { other } else { best }
        });
        least.map(|subset| self.subsets.swap_remove(subset)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use moeprune_capture::{TokenBlocks, embed_blocks};
    use moeprune_checkpoint::Checkpoint;
    use moeprune_core::{CorpusTag, Plan, Sparsity};
    use moeprune_model::{Compute, Embedding, Layer, NoSink};
    use moeprune_score::{Magnitude, PerRow, Rounding, Uniform};

    use super::*;
    use crate::{ExpertStage, KeptExperts, Pipeline, Scored, Silent, Stage, WeightStage};

    #[test]
    fn subsets_are_all_and_in_order() {
        assert_eq!(subsets(4, 2), [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
        assert_eq!(subsets(3, 0), [Vec::<usize>::new()]);
        for (n, r) in [(8, 4), (16, 2), (5, 5)] {
            assert_eq!(subsets(n, r).len() as f64, combinations(n, r));
        }
        assert_eq!(combinations(128, 64).log10().floor(), 37.0);
    }

    fn searching() -> Pipeline {
        Pipeline {
            experts: ExpertStage::Searched { most_subsets: 1000 },
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

    fn plan_of(layers: Vec<LayerPlan>) -> Plan {
        Plan {
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
        }
    }

    /// The first layer with and without experts, through the model's own code.
    #[test]
    fn what_goes_is_what_the_layer_misses_least() {
        for model in ["mixtral", "arctic"] {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/parity");
            let checkpoint = Checkpoint::open(&root.join(model)).unwrap();
            let spec = checkpoint.spec();
            let ids =
                |block: u32| (0..24).map(move |i| (7 * i * i + 13 * block + 5) % spec.vocab as u32);
            let blocks: Vec<Vec<u32>> = (0..3).map(|block| ids(block).collect()).collect();
            let blocks = TokenBlocks::new(blocks, spec.vocab).unwrap();
            let tag = CorpusTag {
                name: String::new(),
                sha256: String::new(),
                samples: 3,
                sequence_len: 24,
                seed: 0,
                repeated: 1,
                read: None,
            };
            let request = ExpertRequest {
                share: Sparsity::new(0.25).unwrap(),
                spread: BudgetSpread::Uniform,
                protect_super_experts: false,
            };
            let compute = Compute::cpu();
            let embedding = Embedding::load(&checkpoint, spec, &compute).unwrap();
            let hidden = embed_blocks(&embedding, &blocks, 1).unwrap();
            let calibration = Calibration { blocks, tag, repair: None };
            let mut job = Job {
                model: &checkpoint,
                pipeline: &searching(),
                execution: &Execution::cpu(),
                progress: &mut Silent,
            };
            let found = drop_least_missed(&mut job, &calibration, &request).unwrap();
            let n = spec.layers[0].moe().unwrap().experts;
            let outputs = |plan: &Plan| -> Vec<Vec<f32>> {
                let kept = KeptExperts::new(&checkpoint, plan);
                let layer = Layer::load(&kept, kept.spec(), 0, &compute).unwrap();
                let run = |x| layer.forward(x, 0, None, &mut NoSink).unwrap();
                hidden.iter().map(|x| on_host(&run(x)).unwrap()).collect()
            };
            let dense = outputs(&plan_of(Vec::new()));
            let loss = |dropped: &[usize]| -> f64 {
                let plan = without(0, n, dropped.to_vec(), |_| SurvivorReason::Searched);
                let norm = |(a, b): (&Vec<f32>, &Vec<f32>)| {
                    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
                    squares.sum::<f64>().sqrt()
                };
                dense.iter().zip(&outputs(&plan_of(vec![plan]))).map(norm).sum()
            };
            let chosen = loss(&found[0].dropped);
            assert_eq!(found[0].dropped.len(), n / 4, "{model}");
            for subset in subsets(n, n / 4) {
                assert!(loss(&subset) >= chosen * (1.0 - 1e-5), "{model}: {subset:?}");
            }
        }
    }
}
