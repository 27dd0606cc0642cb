//! Dropping one expert after the other: the edges of its budgets, and what is refused.

use std::path::Path;

use moeprune_capture::TokenBlocks;
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{CorpusTag, LayerPlan, Promises, Sparsity};
use moeprune_engine::{
    BudgetSpread, Calibration, Error, Execution, ExpertRequest, ExpertStage, Job, Pipeline,
    PlanInputs, PruneRequest, Remedy, Scored, Silent, Stage, WeightStage, WeightTarget,
};
use moeprune_score::{Magnitude, PerRow, Rounding, Uniform};

fn open(model: &str) -> Checkpoint {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    Checkpoint::open(&assets.join(model)).unwrap()
}

fn calibration(vocab: usize) -> Calibration {
    let block =
        |block: u32| (0..16_u32).map(|i| (7 * i * i + 13 * block + 5) % vocab as u32).collect();
    let blocks = TokenBlocks::new((0..3).map(block).collect(), vocab).unwrap();
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

fn plan(
    model: &Checkpoint,
    experts: ExpertRequest,
    calibrated: bool,
) -> Result<Vec<LayerPlan>, Error> {
    let pipeline = Pipeline {
        experts: ExpertStage::Greedy { tokens: 32 },
        repair: None,
        refit: None,
        weights: WeightStage::Scored(Scored {
            scorer: Stage::new(Box::new(Magnitude)),
            pattern: Stage::new(Box::new(PerRow)),
            rounding: Rounding::Exact,
        }),
        allocator: Stage::new(Box::new(Uniform)),
    };
    let request = PruneRequest {
        total: Sparsity::ZERO,
        experts,
        extra: None,
        weights: WeightTarget::Nothing,
        promises: Promises::default(),
        recipe: serde_json::Value::Null,
    };
    let calibration = calibration(model.spec().vocab);
    let (execution, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(model, &pipeline, &execution, &mut silent);
    let inputs = PlanInputs { observation: None, calibration: calibrated.then_some(&calibration) };
    let spec = model.spec();
    let plan = job.plan(&request, inputs)?;
    Ok(plan.layers.into_iter().filter(|layer| layer.layer < spec.layers.len()).collect())
}

fn request(share: f64, spread: BudgetSpread) -> ExpertRequest {
    let share = Sparsity::new(share).unwrap();
    ExpertRequest { share, spread, protect_super_experts: false }
}

#[test]
fn edges_of_budgets() {
    let model = open("parity/mixtral");
    assert!(plan(&model, request(0.0, BudgetSpread::Uniform), false).unwrap().is_empty());
    let moe = model.spec().layers[0].moe().unwrap();
    let most = 1.0 - moe.top_k as f64 / moe.experts as f64;
    for spread in [BudgetSpread::Uniform, BudgetSpread::Global] {
        for layer in plan(&model, request(most, spread), true).unwrap() {
            assert_eq!(layer.survivors.len(), moe.top_k);
        }
    }
}

#[test]
fn refusals() {
    let check = |name: &str, request: ExpertRequest, calibrated: bool, remedy: Remedy| match plan(
        &open(name),
        request,
        calibrated,
    )
    .unwrap_err()
    {
        Error::Refused { remedy: got, .. } => assert_eq!(got, remedy, "{name}"),
        other => panic!("{name}: {other}"),
    };
    let some = request(0.25, BudgetSpread::Uniform);
    check("parity/mixtral", some, false, Remedy::Calibration);
    let protecting = ExpertRequest { protect_super_experts: true, ..some };
    check("parity/mixtral", protecting, true, Remedy::Observation);
    let global = request(0.25, BudgetSpread::Global);
    check("parity/deepseek_v3", global, true, Remedy::Spread(BudgetSpread::Uniform));
}
