//! Experts that are chosen layer after layer, each by what it does once the layers before it have lost theirs.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use moeprune::{
    Calibration, Execution, FromRecipe, Inputs, Job, OutputPlace, Pipeline, PlanInputs, Recipe,
    Resume, Run, Silent, apply,
    capture::embed_blocks,
    checkpoint::Checkpoint,
    core::{LayerPlan, Partition, Plan, Survivor, SurvivorReason, TensorSource},
    engine::KeptExperts,
    model::{ActivationSink, Compute, Embedding, Error as ModelError, Layer},
    plan,
    recipe::{Budget, ExpertStatistics, Statistics},
};

use crate::scratch::{asset, observe, recipe, run, tokens};

/// Half of the experts by REAP, chosen in turn, and no weight zeroed.
fn in_turn(share: f64) -> Recipe {
    let mut recipe = recipe(share, share);
    recipe.experts.criterion = "reap".into();
    recipe.experts.statistics = ExpertStatistics::Sequential;
    (recipe.calibration.samples, recipe.calibration.sequence_len) = (8, 24);
    recipe
}

/// A model and text for it.
struct Case {
    model: Checkpoint,
    folder: tempfile::TempDir,
    text: PathBuf,
}

impl Case {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = Checkpoint::open(&asset(&format!("parity/{name}"))).unwrap();
        let text = tokens(folder.path(), 8, 24, model.spec().vocab.min(100) as u64);
        Self { model, folder, text }
    }

    fn calibration(&self, recipe: &Recipe) -> Calibration {
        Calibration::read(self.text.as_path(), &self.model, recipe).unwrap()
    }

    /// The plan of a recipe on the text, on so many threads and with so many blocks at a time.
    fn plan(&self, recipe: &Recipe, micro_batch: usize) -> Result<Plan, moeprune::Error> {
        let calibration = self.calibration(recipe);
        let pipeline = Pipeline::from_recipe(recipe)?;
        let execution = Execution::on(Compute::cpu(), Some(micro_batch));
        let mut silent = Silent;
        let mut job = Job::new(&self.model, &pipeline, &execution, &mut silent);
        let inputs = PlanInputs { observation: None, calibration: Some(&calibration) };
        let plan = plan(&mut job, recipe, inputs)?;
        Ok(job.choose_survivors(&plan)?)
    }
}

/// Of each expert, the tokens that it received and the sum of gate times norm of what it put out.
struct Gated(Vec<(f64, f64)>);

impl ActivationSink for Gated {
    fn expert_output(
        &mut self,
        expert: usize,
        output: &Tensor,
        gates: &[f32],
    ) -> Result<(), ModelError> {
        for (row, gate) in output.to_vec2::<f32>()?.iter().zip(gates) {
            let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            self.0[expert].0 += 1.0;
            self.0[expert].1 += f64::from(*gate) * norm;
        }
        Ok(())
    }
}

/// A layer on one block after the other.
fn forward(
    source: &dyn TensorSource,
    spec: &moeprune::core::ModelSpec,
    layer: usize,
    blocks: &[Tensor],
    sink: &mut dyn ActivationSink,
) -> Vec<Tensor> {
    let layer = Layer::load(source, spec, layer, &Compute::cpu()).unwrap();
    blocks.iter().map(|block| layer.forward(block, 0, None, sink).unwrap()).collect()
}

/// The experts that stay by the definition: per layer, REAP on all blocks with all of its experts, then the layer without
/// those that go, block after block.
fn by_definition(case: &Case, recipe: &Recipe) -> Vec<(usize, Vec<usize>)> {
    let (model, spec) = (&case.model, case.model.spec());
    let share = recipe.experts.sparsity.value();
    let embedding = Embedding::load(model, spec, &Compute::cpu()).unwrap();
    let mut blocks = embed_blocks(&embedding, &case.calibration(recipe).blocks, 1).unwrap();
    let mut kept = Vec::new();
    for layer in 0..spec.layers.len() {
        let Some(moe) = spec.moe_of(layer) else {
            blocks = forward(model, spec, layer, &blocks, &mut Gated(Vec::new()));
            continue;
        };
        let mut seen = Gated(vec![(0.0, 0.0); moe.experts]);
        forward(model, spec, layer, &blocks, &mut seen);
        let saliency = |e: usize| seen.0[e].1 / seen.0[e].0.max(1.0);
        let mut order: Vec<usize> = (0..moe.experts).collect();
        order.sort_by(|&a, &b| saliency(a).total_cmp(&saliency(b)).then(a.cmp(&b)));
        let mut stay = order.split_off((moe.experts as f64 * share).round() as usize);
        stay.sort_unstable();
        order.sort_unstable();
        let survivor = |&expert: &usize| Survivor::kept(expert, SurvivorReason::Salient);
        let of_layer = LayerPlan {
            layer,
            experts_before: moe.experts,
            clusters: Partition::singletons(moe.experts),
            survivors: stay.iter().map(survivor).collect(),
            tokens: Vec::new(),
            dropped: order,
        };
        let plan = Plan { layers: vec![of_layer], ..nothing(case) };
        let pruned = KeptExperts::new(model, &plan);
        let unseen = &mut Gated(vec![(0.0, 0.0); stay.len()]);
        blocks = forward(&pruned, pruned.spec(), layer, &blocks, unseen);
        kept.push((layer, stay));
    }
    kept
}

/// A plan of the model by which everything stays.
fn nothing(case: &Case) -> Plan {
    let mut recipe = recipe(0.3, 0.0);
    recipe.weights.statistics = Statistics::Stored;
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let plan = plan(&mut Job::new(&case.model, &pipeline, &cpu, &mut silent), &recipe, None);
    Plan { unstructured: None, ..plan.unwrap() }
}

fn kept_of(plan: &Plan) -> Vec<(usize, Vec<usize>)> {
    let sources = |plan: &LayerPlan| plan.survivors.iter().map(|s| s.source).collect();
    plan.layers.iter().map(|plan| (plan.layer, sources(plan))).collect()
}

/// The same recipe by the sums of the model as it is.
fn independent(case: &Case, recipe: &Recipe) -> Plan {
    let mut recipe = recipe.clone();
    recipe.experts.statistics = ExpertStatistics::Independent;
    let observation = observe(&case.model, &case.calibration(&recipe)).unwrap();
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&case.model, &pipeline, &cpu, &mut silent);
    let plan = plan(&mut job, &recipe, Some(&observation)).unwrap();
    job.choose_survivors(&plan).unwrap()
}

/// Whether the choice is another than by the sums of the model as it is.
#[track_caller]
fn check_definition(name: &str, share: f64) -> bool {
    let (case, recipe) = (Case::new(name), in_turn(share));
    let mut plan = case.plan(&recipe, 1).unwrap();
    // Layers behind the decoder's are not run.
    plan.layers.retain(|plan| plan.layer < case.model.spec().layers.len());
    assert_eq!(kept_of(&plan), by_definition(&case, &recipe), "{name}, {share}");
    assert_eq!(plan.corpora.len(), 1, "{name}");
    let mut other = independent(&case, &recipe);
    other.layers.retain(|plan| plan.layer < case.model.spec().layers.len());
    assert_eq!(plan.layers.first(), other.layers.first(), "{name}: the first layer is the same");
    plan.layers != other.layers
}

#[test]
fn each_layer_is_chosen_by_what_it_does_after_the_pruned_ones_before_it() {
    let mut others = 0;
    for name in ["mixtral", "arctic", "granitemoe", "gpt_oss", "qwen3_next", "qwen3_moe_mixed"] {
        for share in [0.25, 0.5] {
            others += usize::from(check_definition(name, share));
        }
    }
    assert!(others > 0, "no choice differs from that by the model as it is");
}

/// Experts that stay, or their averages, by distances that are observed; groups of experts, latent experts, codes.
#[test]
fn groups_and_kinds_of_layers() {
    let mut grouped = in_turn(0.5);
    grouped.experts.criterion = "stun".into();
    grouped.experts.similarity = "outputs".into();
    for (name, survivor) in [
        ("mixtral", "nearest"),
        ("arctic", "average"),
        ("deepseek_v3", "busiest"),
        ("nemotron_h", "nearest"),
        ("llama4", "weighted-average"),
        ("gpt_oss_mxfp4", "nearest"),
        ("kimi_linear", "average"),
        ("lfm2_moe", "nearest"),
    ] {
        grouped.experts.survivor = survivor.into();
        let case = Case::new(name);
        let made = case.plan(&grouped, 2).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(made.layers.iter().all(|layer| !layer.is_open()), "{name}");
        let other = independent(&case, &grouped);
        assert_eq!(made.layers.first(), other.layers.first(), "{name}");
    }
}

#[test]
fn where_nothing_goes_the_sums_are_those_of_the_model_as_it_is() {
    for name in ["mixtral", "deepseek_v3", "gpt_oss"] {
        let case = Case::new(name);
        let mut recipe = in_turn(0.01);
        recipe.sparsity = moeprune::core::Sparsity::new(0.3).unwrap();
        let plan = case.plan(&recipe, 1).unwrap();
        let observed = observe(&case.model, &case.calibration(&recipe)).unwrap();
        let hash = moeprune::capture::observation_sha256(&observed);
        assert_eq!(plan.observation_sha256, Some(hash), "{name}");
    }
}

#[test]
fn any_threads_and_blocks_at_a_time_give_the_same_plan() {
    let (case, recipe) = (Case::new("mixtral"), in_turn(0.5));
    let text = |threads: usize, micro_batch: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let plan = pool.install(|| case.plan(&recipe, micro_batch).unwrap());
        serde_json::to_string(&plan).unwrap()
    };
    let one = text(1, 1);
    for (threads, micro_batch) in [(2, 1), (3, 2), (1, 8), (4, 8)] {
        assert_eq!(text(threads, micro_batch), one, "{threads} threads, {micro_batch} blocks");
    }
}

/// Pruning in one go writes what applying the plan writes, which is of the plan's experts alone.
#[test]
fn prune_does_what_the_plan_says() {
    let (case, recipe) = (Case::new("mixtral"), in_turn(0.5));
    let (whole, applied) = (case.folder.path().join("whole"), case.folder.path().join("applied"));
    let report = run(&asset("parity/mixtral"), &whole, &case.text, &recipe).unwrap();
    assert_eq!(report.recipe.experts.statistics, ExpertStatistics::Sequential);
    let plan = case.plan(&recipe, 1).unwrap();
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&case.model, &pipeline, &cpu, &mut silent);
    let place = Run::claim(&applied, &case.model, Resume::No).unwrap();
    apply(&mut job, place, &plan, Inputs::None).unwrap();
    let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&applied));
}

#[track_caller]
fn check_refused(change: impl Fn(&mut Recipe), expected: &str) {
    let (case, mut recipe) = (Case::new("mixtral"), in_turn(0.5));
    change(&mut recipe);
    let out = case.folder.path().join("out");
    let pruned = Pipeline::from_recipe(&recipe).and_then(|pipeline| {
        let (cpu, mut silent) = (Execution::cpu(), Silent);
        let mut job = Job::new(&case.model, &pipeline, &cpu, &mut silent);
        let to = OutputPlace { origin: &case.model, path: &out, resume: Resume::No };
        moeprune::prune(&mut job, to, &case.text, &recipe)
    });
    let error = pruned.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    assert!(!out.exists());
}

#[test]
fn what_takes_all_layers_at_once_is_refused() {
    check_refused(|r| r.experts.budget = Budget::Global, "no budget can be spread over all");
    check_refused(|r| r.experts.protect_super_experts = true, "by comparing all layers");
    check_refused(|r| r.experts.criterion = "exhaustive".into(), "`exhaustive` chooses otherwise");
    check_refused(|r| r.experts.criterion = "reconstruction".into(), "chooses otherwise");
    check_refused(|r| r.experts.criterion = "keep-list".into(), "chooses otherwise");
    check_refused(
        |r| {
            r.sparsity = moeprune::core::Sparsity::new(0.6).unwrap();
            r.weights.statistics = Statistics::Stored;
        },
        "which is not observed",
    );
}

#[test]
fn an_observation_cannot_stand_in_for_the_text() {
    let (case, recipe) = (Case::new("mixtral"), in_turn(0.5));
    let observation = observe(&case.model, &case.calibration(&recipe)).unwrap();
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&case.model, &pipeline, &cpu, &mut silent);
    let error = plan(&mut job, &recipe, Some(&observation)).unwrap_err().to_string();
    assert!(error.contains("an observation is of the model with all its experts"), "{error}");
    let domain = moeprune::Domain { name: "all".into(), observation, weight: 1.0 };
    let error = moeprune::plan_domains(&mut job, &[domain], &recipe).unwrap_err().to_string();
    assert!(error.contains("and no observation"), "{error}");
}
