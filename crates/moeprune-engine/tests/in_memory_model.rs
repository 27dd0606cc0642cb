//! A model that lies in memory and has no directory: planned, observed and read as pruned, with
//! nothing but a `Model`.

use moeprune_capture::TokenBlocks;
use moeprune_core::{
    AttentionSpec, CorpusTag, Dtype, FeedForward, GroupedAttention, LayerSpec, MlpSpec, ModelSpec,
    MoeInput, MoeSpec, Multipliers, NormWeights, Promises, RouterSpec, SameModel, Sparsity,
    StageError, StoredWeight, TensorBytes, TensorId, TensorSource,
};
use moeprune_engine::{
    BudgetSpread, Calibration, Error, Execution, ExpertRequest, ExpertStage, Inputs, Job,
    KeptExperts, MemoryNeed, Model, Pipeline, PlanInputs, PruneRequest, RunKind, Scored, Silent,
    Stage, TextSize, UnwrittenModel, WeightStage, load_tokenizer,
};
use moeprune_saliency::Frequency;
use moeprune_score::{PerRow, Rounding, Uniform, Wanda};
use serde_json::Value;

const EXPERTS: usize = 4;

/// Weights that are numbers of their own for each part and place.
#[derive(Debug)]
struct Small(ModelSpec);

impl Small {
    fn new() -> Self {
        let attention = AttentionSpec::Grouped(GroupedAttention::new(2, 1, 4, 1e4));
        let moe = MoeSpec {
            experts: EXPERTS,
            top_k: 2,
            router: RouterSpec::softmax(true),
            expert: MlpSpec::gated(12),
            opaque: Vec::new(),
            input: MoeInput::AfterAttention,
            latent: None,
            residual: None,
            shared: Vec::new(),
        };
        let feed_forward = FeedForward::Moe(moe);
        let layer = LayerSpec::new(attention, feed_forward);
        Self(ModelSpec {
            family: "small".into(),
            hidden: 8,
            vocab: 32,
            max_positions: 16,
            norm_eps: 1e-5,
            norm_weights: NormWeights::Factor,
            tied_embeddings: true,
            head_bias: false,
            multipliers: Multipliers::default(),
            logit_cap: None,
            layers: vec![layer.clone(), layer],
            extra: None,
            undecoded: None,
            undecoded_experts: false,
        })
    }
}

impl TensorSource for Small {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        let part = self.0.part(id).ok_or_else(|| format!("there is no {id}"))?;
        let seed =
            id.to_string().bytes().fold(7_u64, |sum, byte| sum * 31 % 8191 + u64::from(byte));
        let value = |place: u64| ((seed * 131 + place * 977) % 2003) as f32 / 1001.0 - 1.0;
        let values: Vec<f32> = (0..part.parameters()).map(value).collect();
        Ok(StoredWeight::alone(TensorBytes::encode(Dtype::F32, part.shape, &values)?)?)
    }
}

impl Model for Small {
    fn spec(&self) -> &ModelSpec {
        &self.0
    }

    fn fingerprint(&self) -> Result<String, Error> {
        Ok("small+f32".into())
    }

    fn name(&self) -> String {
        "the small model".into()
    }

    fn stored_bytes(&self, id: TensorId) -> u64 {
        self.0.part(id).map_or(0, |part| 4 * part.parameters())
    }
}

fn calibration() -> Calibration {
    let block = |b: u32| (0..8).map(|i| (5 * i * i + 3 * b + i) % 32).collect();
    let blocks = TokenBlocks::new((0..4).map(block).collect(), 32).unwrap();
    let tag = CorpusTag {
        name: "numbers".into(),
        sha256: String::new(),
        samples: 4,
        sequence_len: 8,
        seed: 0,
        repeated: 1,
        read: None,
    };
    Calibration { blocks, tag, repair: None }
}

fn pipeline(experts: ExpertStage) -> Pipeline {
    Pipeline {
        experts,
        repair: None,
        weights: WeightStage::Scored(Scored {
            scorer: Stage::new(Box::new(Wanda::default())),
            pattern: Stage::new(Box::new(PerRow)),
            rounding: Rounding::Exact,
        }),
        refit: None,
        allocator: Stage::new(Box::new(Uniform)),
    }
}

fn request() -> PruneRequest {
    PruneRequest {
        total: Sparsity::new(0.5).unwrap(),
        experts: ExpertRequest {
            share: Sparsity::new(0.25).unwrap(),
            spread: BudgetSpread::Uniform,
            protect_super_experts: false,
        },
        extra: None,
        weights: moeprune_engine::WeightTarget::Total,
        promises: Promises::default(),
        recipe: Value::Null,
    }
}

#[test]
fn is_observed_planned_and_read_as_pruned() {
    let (model, calibration) = (Small::new(), calibration());
    for experts in [
        ExpertStage::Ranked(Stage::new(Box::new(Frequency))),
        ExpertStage::Searched { most_subsets: 100 },
    ] {
        let pipeline = pipeline(experts);
        let (execution, mut silent) = (Execution::cpu(), Silent);
        let mut job = Job::new(&model, &pipeline, &execution, &mut silent);
        let observation = job.observe(&calibration).unwrap();
        assert_eq!(observation.model_fingerprint, "small+f32");
        for layer in &observation.layers {
            assert_eq!(layer.routing.as_ref().unwrap().counts.iter().sum::<u64>(), 2 * 32);
        }
        let inputs =
            PlanInputs { observation: Some(&observation), calibration: Some(&calibration) };
        let plan = job.plan(&request(), inputs).unwrap();
        let plan = job.choose_survivors(&plan).unwrap();
        let dropped: Vec<usize> = plan.layers.iter().map(|layer| layer.dropped.len()).collect();
        assert_eq!(dropped, [1, 1]);

        let kept = KeptExperts::new(&model, &plan);
        let pruned =
            UnwrittenModel::new(&kept, &plan, Inputs::Observation(&observation), &mut job).unwrap();
        for part in pruned.spec().parts() {
            assert_eq!(pruned.tensor(part.id).unwrap().shape(), part.shape, "{}", part.id);
        }
        for share in pruned.layer_sparsity() {
            assert!((share - 0.5).abs() < 0.05, "{share}");
        }
    }
}

#[test]
fn what_it_does_not_say_has_a_default() {
    let model = Small::new();
    assert_eq!(model.is_of("small+bf16").unwrap(), SameModel::StoredOtherwise);
    assert_eq!(model.is_of("other+f32").unwrap(), SameModel::No);
    let embedding = model.tensor(TensorId::Embedding).unwrap().to_f32().unwrap();
    let some = model.elements(TensorId::Embedding, 3..11).unwrap();
    assert_eq!(some.to_f32().unwrap(), embedding[3..11]);
    assert!(model.elements(TensorId::Embedding, 0..embedding.len() + 1).is_err());
    let all: u64 = model.spec().parts().iter().map(|part| 4 * part.parameters()).sum();
    assert_eq!(model.weight_bytes(), all);
    let error = load_tokenizer(&model).unwrap_err().to_string();
    assert!(error.starts_with("tokenizer the small model: there is no tokenizer.json"), "{error}");
}

/// An expert's three matrices, and everything else of a layer.
#[test]
fn the_memory_that_a_run_needs_comes_from_the_sizes_of_its_parts() {
    let need = MemoryNeed::of(&Small::new(), TextSize { tokens: 100, block: 10 }, RunKind::Prune);
    assert_eq!(need.expert, 4 * 3 * 8 * 12);
    assert_eq!(need.layer_experts, EXPERTS as u64 * need.expert);
    let (norms, attention, router) = (2 * 8, 8 * 8 + 2 * 4 * 8 + 8 * 8, 4 * 8);
    assert_eq!(need.trunk, 4 * (norms + attention + router));
    assert_eq!((need.copies, need.hidden_states), (3, 3 * 100 * 8 * 4));
}
