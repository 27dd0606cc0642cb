//! What a run did, for people and for machines.

mod extra;
mod markdown;
mod mass;
mod repair;
mod search;
mod serving;
mod texts;

pub use extra::ExtraReport;
pub(crate) use markdown::{percent, write_savings, write_shares};
pub use repair::{RepairReport, RepairSummary, Repairing, SamplesNeeded};
pub use search::{Candidate, SearchReport};

use std::path::{Path, PathBuf};

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{
    CorpusTag, ModelSpec, ParameterCounts, Plan, Promises, REPORT_FILE, REPORT_TEXT_FILE,
    RoutedMass, Sparsity, Survivor, SurvivorReason,
};
use serde::{Deserialize, Serialize};

pub use moeprune_engine::StageReport;
use moeprune_engine::{
    Applied, Error as EngineError, LayerZeros, WrittenLayer, printable, stored_otherwise,
};

use crate::{
    Error, Recipe,
    serving::{Cut, unnamed_extra},
};

/// The report of a run: `moeprune-report.json` beside the weights, and as text
/// `moeprune-report.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct Report {
    /// Version of this format: 1.
    pub format: u32,
    /// Version of the tool.
    pub tool: String,
    /// The model that was pruned.
    pub model: ModelReport,
    /// Asked and achieved sparsity.
    pub sparsity: SparsityReport,
    /// Size of the weights on disk.
    pub bytes: BytesReport,
    /// One entry per decoder layer.
    pub layers: Vec<LayerReport>,
    /// What became of the layers behind the decoder's, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<ExtraReport>,
    /// Survivors that were tied with another of their cluster; the tie-break chose.
    pub ties: usize,
    /// Experts that no calibration token reached, as source indices.
    pub idle_experts: Vec<IdleExpert>,
    /// What the repair of the experts that stay did, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<RepairReport>,
    /// What changing the rest of down projections did, after weights were zeroed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refit: Option<RepairReport>,
    /// Whether weights that stayed were changed to make up for those that went.
    #[serde(default)]
    pub weights_changed: bool,
    /// Linears that were scored by Wanda or magnitude instead of reconstructed, as too few calibration
    /// tokens reached them; 0 without a reconstruction.
    #[serde(default)]
    pub scored_linears: u64,
    /// What is said of weights that have no code that is zero and stayed, if there are such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_zero: Option<String>,
    /// Time and memory of each step.
    pub stages: Vec<StageReport>,
    /// Where it ran and in which type, for example `cpu f32`.
    #[serde(default)]
    pub device: String,
    /// What a search tried, if the recipe's split was searched for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchReport>,
    /// Files beside the source's weights that are not in the result, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Calibration texts the run saw.
    pub corpora: Vec<CorpusTag>,
    /// What is to be known of these texts: blocks that are shorter than asked for, tokens that were used again and
    /// again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub text_warnings: Vec<String>,
    /// SHA-256 of the observation the plan was made from.
    pub observation_sha256: Option<String>,
    /// What the unstructured stage promised; missing in reports of version 0.1.0 and where no weight
    /// was zeroed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promises: Option<Promises>,
    /// The resolved recipe with its seeds.
    pub recipe: Recipe,
    /// Why what a token's experts weigh together is not known of layers where it changes, before experts
    /// went or after, and what would measure it. Absent if it is known, and where it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mass_unmeasured: Option<String>,
    /// What the result saves when it is served, and what it does not, in plain sentences.
    pub serving: Vec<String>,
}

/// A file or folder beside the source's weights that was not copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct LeftOut {
    /// Its path in the model.
    pub file: String,
    /// What kept it out.
    pub reason: String,
}

impl LeftOut {
    fn new((file, reason): &(PathBuf, String)) -> Self {
        Self { file: printable(&file.display().to_string()), reason: printable(reason) }
    }
}

/// Which model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct ModelReport {
    /// Family whose descriptor was used.
    pub family: String,
    /// Hashes of the source that the plan was made for, and of how it was stored.
    pub fingerprint: String,
    /// What is to be said where the source is stored otherwise than the model that the plan was
    /// made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_otherwise: Option<String>,
    /// Parameters before.
    pub parameters: ParameterCounts,
}

/// Asked and achieved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct SparsityReport {
    /// The total that was asked for, over the original decoder Linears, removed experts included.
    pub requested: f64,
    /// The share of experts that was asked to be removed.
    pub requested_experts: f64,
    /// What the written bytes have.
    pub achieved: AchievedSparsity,
    /// The share of the original decoder Linears that is zero in the source and in the result; it is part of
    /// what was achieved. Counted in the Linears in which weights were chosen; absent if there are none, and
    /// where kernels on a device chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_before: Option<f64>,
}

/// Removed and zero weights as a share of the original's, counted from the bytes written.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct AchievedSparsity {
    /// Over the routed experts.
    pub experts: f64,
    /// Over the decoder Linears, routers not among them: what was asked for is compared with this.
    pub linears: f64,
    /// Over all parameters. Zeros outside decoder layers do not count.
    pub all: f64,
}

/// Size of the weights on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct BytesReport {
    /// Shards of the source.
    pub before: u64,
    /// Shards written.
    pub after: u64,
}

/// One layer, of the decoder's or behind them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct LayerReport {
    /// Which layer.
    pub index: usize,
    /// Experts of the source; 0 in a layer without.
    pub experts_before: usize,
    /// Experts kept, as source indices.
    pub kept: Vec<usize>,
    /// Those of them that are the average of their cluster; the others are kept as they were.
    pub merged: Vec<Survivor>,
    /// Experts that went without another standing in for them, as source indices.
    pub dropped: Vec<usize>,
    /// The clusters the kept experts stand for, as source indices.
    pub clusters: Vec<Vec<usize>>,
    /// Unstructured ratio asked of this layer's Linears.
    pub ratio: Option<f64>,
    /// Removed and zero weights over the layer's original Linears.
    pub achieved: f64,
    /// What a token's experts weigh together, before experts went and after, on the calibration text.
    /// Absent where that stays as it is, and of a layer that was neither run nor observed
    /// ([`Report::mass_unmeasured`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed_mass: Option<RoutedMass>,
}

/// An expert that no calibration token reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct IdleExpert {
    /// Decoder layer.
    pub layer: usize,
    /// Index in the source.
    pub expert: usize,
}

impl LayerReport {
    fn new(
        spec: &ModelSpec,
        plan: &Plan,
        layer: usize,
        ratio: Option<Sparsity>,
        zeros: LayerZeros,
    ) -> Self {
        let experts = spec.moe_of(layer).map_or(0, |moe| moe.experts);
        let decided = plan.layers.iter().find(|l| l.layer == layer);
        let (kept, clusters): (Vec<usize>, Vec<Vec<usize>>) = match decided {
            Some(plan) => (
                plan.survivors.iter().map(|s| s.source).collect(),
                plan.clusters.clusters().to_vec(),
            ),
            None => ((0..experts).collect(), (0..experts).map(|e| vec![e]).collect()),
        };
        let counted = spec.decoded().linears(layer).into_iter().filter(|l| l.prunable);
        let (all, expert) = counted.fold((0, 0), |(all, expert), linear| {
            let parameters = linear.parameters();
            (all + parameters, expert + if linear.id.expert().is_some() { parameters } else { 0 })
        });
        let each = if experts == 0 { 0 } else { expert / experts as u64 };
        let removed = each * (experts - kept.len()) as u64;
        Self {
            index: layer,
            experts_before: experts,
            achieved: (removed + zeros.linears) as f64 / all.max(1) as f64,
            merged: decided
                .iter()
                .flat_map(|plan| &plan.survivors)
                .filter(|survivor| !survivor.average_of.is_empty())
                .cloned()
                .collect(),
            dropped: decided.map(|plan| plan.dropped.clone()).unwrap_or_default(),
            kept,
            clusters,
            ratio: ratio.map(Sparsity::value),
            routed_mass: None,
        }
    }
}

impl LayerReport {
    /// The experts that no token reached.
    fn idle(&self, written: &WrittenLayer) -> Vec<IdleExpert> {
        let idle = |&e: &usize| IdleExpert { layer: self.index, expert: self.kept[e] };
        written.idle.iter().map(idle).collect()
    }
}

impl Report {
    /// The report of what was done to `checkpoint`, by the recipe that was followed.
    pub(crate) fn new(checkpoint: &Checkpoint, recipe: &Recipe, applied: Applied) -> Self {
        let Applied { plan, ratios, layers: written, bytes_written, corpora, .. } = &applied;
        let spec = checkpoint.spec();
        let twin = stored_otherwise("plan", &plan.model_fingerprint, checkpoint).ok().flatten();
        let zeros: Vec<LayerZeros> = written.iter().map(|layer| layer.zeros).collect();
        let layers: Vec<LayerReport> = written
            .iter()
            .enumerate()
            .map(|(l, written)| LayerReport {
                routed_mass: written.mass,
                ..LayerReport::new(spec, plan, l, ratios.as_ref().map(|r| r[l]), written.zeros)
            })
            .collect();
        let bytes = BytesReport { before: checkpoint.weight_bytes(), after: *bytes_written };
        let idle = written.iter().zip(&layers).flat_map(|(written, layer)| layer.idle(written));
        let idle_experts = idle.collect();
        let tied = |s: &&Survivor| {
            matches!(s.reason, SurvivorReason::MoreTokens | SurvivorReason::LowestIndex)
        };
        let of_decoder = plan.layers.iter().filter(|l| l.layer < spec.layers.len());
        let extra = ExtraReport::new(spec, plan);
        let cut = Cut::of(checkpoint, &spec.after(plan));
        let mut serving = serving::sentences(&layers, plan, bytes, &cut, recipe.keeps_listed());
        serving.extend(extra.as_ref().map(ExtraReport::sentence));
        serving.extend(unnamed_extra(checkpoint));
        Self {
            format: 1,
            tool: plan.tool.clone(),
            model: ModelReport {
                family: spec.family.clone(),
                fingerprint: plan.model_fingerprint.clone(),
                stored_otherwise: twin,
                parameters: ParameterCounts::of(spec),
            },
            sparsity: SparsityReport::new(spec, recipe, plan, &zeros),
            bytes,
            ties: of_decoder.flat_map(|l| &l.survivors).filter(tied).count(),
            idle_experts,
            repair: applied.repair.clone().map(RepairReport::new),
            refit: applied.refit.clone().map(RepairReport::new),
            weights_changed: plan.unstructured.as_ref().is_some_and(|asked| asked.reconstructs),
            scored_linears: written.iter().map(|layer| layer.scored).sum(),
            without_zero: moeprune_engine::without_zero(written)
                .map(|note| note.trim_start_matches("note: ").to_owned()),
            stages: applied.clock.stages().to_vec(),
            device: applied.device.clone(),
            search: None,
            left_out: applied.left_out.iter().map(LeftOut::new).collect(),
            corpora: corpora.clone(),
            text_warnings: texts::warnings(corpora, spec),
            observation_sha256: plan.observation_sha256.clone(),
            promises: plan.unstructured.as_ref().and_then(|_| plan.promises()),
            recipe: recipe.clone(),
            mass_unmeasured: mass::unmeasured(spec, &layers),
            serving,
            layers,
            extra,
        }
    }

    /// The shares that were asked for, of decoder Linears and of experts. A list of experts asks for
    /// none, and may come with the first.
    #[must_use]
    pub fn asked(&self) -> (Option<f64>, Option<f64>) {
        let (total, experts) = (self.sparsity.requested, self.sparsity.requested_experts);
        let is_listed = self.recipe.keeps_listed();
        let has_total = !is_listed || self.recipe.prunes_weights();
        (has_total.then_some(total), (!is_listed).then_some(experts))
    }

    /// Writes `moeprune-report.json` and `moeprune-report.md` into `directory`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), Error> {
        Ok(self.save(directory)?)
    }

    /// [`write`](Self::write) within a run of the engine.
    pub(crate) fn save(&self, directory: &Path) -> Result<(), EngineError> {
        let json = self.to_json().map_err(|e| EngineError::Request(e.to_string()))?;
        for (name, text) in [(REPORT_FILE, json), (REPORT_TEXT_FILE, markdown::render(self))] {
            let path = directory.join(name);
            std::fs::write(&path, text).map_err(|e| EngineError::io(&path, "write", e))?;
        }
        Ok(())
    }

    /// The report as indented JSON.
    ///
    /// # Errors
    /// If a number is not finite, which no report has.
    pub fn to_json(&self) -> Result<String, Error> {
        serde_json::to_string_pretty(self)
            .map(|json| json + "\n")
            .map_err(|e| Error::Request(format!("the report cannot be written as JSON: {e}")))
    }
}

impl SparsityReport {
    fn new(spec: &ModelSpec, recipe: &Recipe, plan: &Plan, zeros: &[LayerZeros]) -> Self {
        Self {
            requested: plan
                .unstructured
                .as_ref()
                .map_or_else(|| recipe.sparsity.value(), |asked| asked.total_sparsity),
            requested_experts: recipe.experts.sparsity.value(),
            achieved: achieved(spec, plan, zeros),
            zero_before: zero_before(spec, zeros),
        }
    }
}

fn zero_before(spec: &ModelSpec, zeros: &[LayerZeros]) -> Option<f64> {
    let counted: Vec<u64> = zeros.iter().filter_map(|layer| layer.before).collect();
    let linears = ParameterCounts::of(spec).linears.max(1);
    (!counted.is_empty()).then(|| counted.iter().sum::<u64>() as f64 / linears as f64)
}

fn achieved(spec: &ModelSpec, plan: &Plan, zeros: &[LayerZeros]) -> AchievedSparsity {
    let before = ParameterCounts::of(spec);
    let after = ParameterCounts::of(&spec.without_experts(&plan.layers));
    let share = |before: u64, after: u64, zeros: u64| {
        if before == 0 { 0.0 } else { (before - after + zeros) as f64 / before as f64 }
    };
    let sum = |of: fn(&LayerZeros) -> u64| zeros.iter().map(of).sum::<u64>();
    AchievedSparsity {
        experts: share(before.experts, after.experts, sum(|z| z.experts)),
        linears: share(before.linears, after.linears, sum(|z| z.linears)),
        all: share(before.all, after.all, sum(|z| z.linears + z.router)),
    }
}
