//! The loop that prunes, one step after the other and each timed: as much work as is to be done, on the
//! host and by the worker of devices.
#![cfg(target_os = "linux")]

use candle_core::DType;
use moeprune::{
    Calibration, Execution, FromRecipe, Job, Pipeline, Recipe, Resume, Run, Silent,
    checkpoint::Checkpoint,
    core::{LayerTensor, Sparsity, TensorId},
    model::Compute,
    timed::time_parts,
};

use crate::{reference_masks::Reference, scratch::asset};

fn check(execution: &Execution, loads: u64, fetches: u64) {
    let scratch = tempfile::tempdir().unwrap();
    let mut recipe = Recipe::reference();
    recipe.calibration.samples = 8;
    recipe.calibration.sequence_len = 64;
    let model = Checkpoint::open(&asset("parity").join("mixtral")).unwrap();
    let tokens = Reference::read("mixtral_wanda50_stun").calibration(scratch.path());
    let calibration = Calibration::read(&tokens, &model, &recipe).unwrap();
    let pipeline = &Pipeline::from_recipe(&recipe).unwrap();
    let mut silent = Silent;
    let job = &mut Job::new(&model, pipeline, execution, &mut silent);
    let out = scratch.path().join("out");
    let ratio = Sparsity::new(0.5).unwrap();
    let run = Run::claim(&out, &model, Resume::No).unwrap();
    let times = time_parts(job, run, &calibration, ratio).unwrap();

    let bytes_of = |counts: &dyn Fn(TensorId) -> bool| -> u64 {
        let of_layer = model.tensors().filter(|stored| stored.part.is_some_and(counts));
        of_layer.map(|stored| stored.bytes).sum()
    };
    let layer = bytes_of(&|part| matches!(part, TensorId::Layer(0, _)));
    let linears = model.spec().linears(0);
    let prunable = bytes_of(&|part| match part {
        TensorId::Layer(0, LayerTensor::Linear(id)) => {
            linears.iter().any(|linear| linear.id == id && linear.prunable)
        }
        _ => false,
    });
    assert_eq!(times.load.work, loads * layer);
    assert_eq!(times.mask.work, prunable);
    assert_eq!(times.write.work, prunable);
    assert_eq!(times.fetch.work, fetches * prunable);
    assert!(times.read.work >= layer);
    assert_eq!(times.watched.work, times.trunk.work + times.experts.work);
    assert_eq!(times.expert_tokens.iter().sum::<u64>(), 2 * calibration.blocks.tokens());
    for spent in [times.read, times.load, times.trunk, times.experts, times.capture, times.mask] {
        assert!(spent.seconds > 0.0 && spent.work > 0, "{times:?}");
    }
    assert!(!out.exists());
}

#[test]
fn the_host_widens_a_part_whenever_it_runs() {
    check(&Execution::cpu(), 2, 0);
}

#[test]
fn a_device_is_brought_a_part_once_and_fetched_from_once() {
    check(&Execution::on(Compute::cpu_in(DType::F64), Some(3)), 1, 1);
}
