//! What a selector reads of experts, in pieces of any size.

use std::path::PathBuf;

use moeprune::{
    Execution, ExpertStage, FromRecipe, Grouped, Job, OutputPlace, Pipeline, Resume, Silent, Stage,
    checkpoint::Checkpoint,
    core::{
        ClusteredLayer, ExpertSelector, ExpertWeights, LinearId, MlpProjection, StageError,
        Survivor, SurvivorReason, TensorId, TensorSource,
    },
    plan, prune,
};

use crate::scratch::{asset, copy, damage, recipe, tokens};

/// Compares pieces with the tensors of the checkpoint; the first of each cluster survives.
#[derive(Debug)]
struct Comparing {
    model: PathBuf,
}

impl ExpertSelector for Comparing {
    fn select(
        &self,
        layer: &ClusteredLayer<'_>,
        experts: &dyn ExpertWeights,
    ) -> Result<Vec<Survivor>, StageError> {
        let checkpoint = Checkpoint::open(&self.model)?;
        for expert in 0..layer.router.rows() {
            let (mut expected, mut ends) = (Vec::new(), vec![0]);
            for projection in MlpProjection::ALL {
                let id = TensorId::linear(layer.layer, LinearId::Expert(expert, projection));
                expected.extend(checkpoint.tensor(id)?.to_f32()?);
                ends.push(expected.len());
            }
            check_pieces(experts, expert, &expected, &ends);
        }
        let none = experts.read(layer.router.rows(), 0, &mut [0.0]).unwrap_err().to_string();
        assert!(none.contains("does not exist"), "{none}");
        let first = |cluster: &Vec<usize>| Survivor {
            source: cluster[0],
            reason: SurvivorReason::LowestIndex,
            average_of: Vec::new(),
            average_weights: Vec::new(),
        };
        Ok(layer.partition.clusters().iter().map(first).collect())
    }
}

/// The whole, single parameters on both sides of every border, and pieces across borders.
fn check_pieces(experts: &dyn ExpertWeights, expert: usize, expected: &[f32], ends: &[usize]) {
    let all = expected.len();
    assert_eq!(experts.parameters(), all);
    let check = |start: usize, end: usize| {
        let mut piece = vec![f32::NAN; end - start];
        experts.read(expert, start, &mut piece).unwrap();
        assert_eq!(piece, expected[start..end], "parameters {start}..{end} of {expert}");
    };
    check(0, all);
    check(1, all - 1);
    for &end in ends {
        check(end, end);
        check(end.saturating_sub(1), end);
        check(end, (end + 1).min(all));
        check(end.saturating_sub(3), (end + 5).min(all));
    }
    check(ends[1] - 1, ends[2] + 1);
    for (start, length) in [(0, all + 1), (all, 1), (all + 7, 0), (all - 1, 2)] {
        let beyond = experts.read(expert, start, &mut vec![0.0; length]);
        assert_eq!(beyond.is_err(), length > 0, "{start} + {length} of {all}");
    }
}

fn check(model: &str) {
    let model = asset(model);
    let scratch = tempfile::tempdir().unwrap();
    let calibration = tokens(scratch.path(), 8, 64, 256);
    let recipe = recipe(0.5, 0.25);
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let selector = Box::new(Comparing { model: model.clone() });
    let grouped =
        Grouped { selector: Stage::new(selector), ..Grouped::from_recipe(&recipe).unwrap() };
    let pipeline = Pipeline { experts: ExpertStage::Grouped(grouped), ..pipeline };
    let (source, out) = (Checkpoint::open(&model).unwrap(), scratch.path().join("out"));
    let to = OutputPlace { origin: &source, path: &out, resume: Resume::No };
    let (on, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&source, &pipeline, &on, &mut silent);
    prune(&mut job, to, &calibration, &recipe).unwrap();
}

#[test]
fn are_those_of_the_checkpoint() {
    check("parity/arctic");
    check("parity/mixtral");
    check("parity/mixtral_sharded");
}

/// Reads every expert to its last parameter.
#[derive(Debug)]
struct Reading;

impl ExpertSelector for Reading {
    fn select(
        &self,
        layer: &ClusteredLayer<'_>,
        experts: &dyn ExpertWeights,
    ) -> Result<Vec<Survivor>, StageError> {
        let mut parameters = vec![0.0; experts.parameters()];
        (0..layer.router.rows()).try_for_each(|e| experts.read(e, 0, &mut parameters))?;
        Err("every weight was a number".into())
    }
}

#[test]
fn are_numbers_or_the_weight_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let model = copy("parity/mixtral", scratch.path());
    let name = "model.layers.1.block_sparse_moe.experts.3.w2.weight";
    let at = damage(&model, name, 5);
    let checkpoint = Checkpoint::open(&model).unwrap();
    let recipe = recipe(0.25, 0.25);
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let selector = Box::new(Reading);
    let grouped =
        Grouped { selector: Stage::new(selector), ..Grouped::from_recipe(&recipe).unwrap() };
    let pipeline = Pipeline { experts: ExpertStage::Grouped(grouped), ..pipeline };
    let (on, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&checkpoint, &pipeline, &on, &mut silent);
    let mut open = plan(&mut job, &recipe, None).unwrap();
    open.layers.retain(|layer| layer.layer == 1);
    let error = job.choose_survivors(&open).unwrap_err();
    let error = error.to_string();
    for part in [name, &at] {
        assert!(error.contains(part), "`{part}` is not in `{error}`");
    }
}
