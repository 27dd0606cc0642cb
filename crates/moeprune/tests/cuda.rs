//! The pipeline on a CUDA device.
//!
//! Without a driver or a device, tests of it pass with a line that says so.
#![cfg(feature = "cuda")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

use std::{fmt::Write as _, fs, path::PathBuf};

use moeprune::{
    ComputeType, DeviceChoice, Execution, FromRecipe, Job, OutputPlace, Pipeline, Recipe, Report,
    Resume, Silent, checkpoint::Checkpoint, prune,
};
use tempfile::TempDir;

/// The first device, with so many blocks in a micro-batch; `None` and a line that says so where
/// there is none, unless a run that is meant for a GPU says so by `MOEPRUNE_REQUIRE_CUDA`.
fn device(dtype: ComputeType, micro_batch: usize) -> Option<Execution> {
    match Execution::open(DeviceChoice::Cuda(0), Some(dtype), Some(micro_batch)) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("MOEPRUNE_REQUIRE_CUDA").is_some() => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// Cargo names the crate's folder when it runs tests too; on a machine without the sources, the
/// program that runs them does.
fn checkpoint(name: &str) -> Checkpoint {
    let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR");
    let crate_folder = crate_folder.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Checkpoint::open(&PathBuf::from(crate_folder).join("../../assets/parity").join(name)).unwrap()
}

/// Prunes a small model by the default recipe: what was reported, and the weights written.
fn pruned(name: &str, on: &Execution) -> (Report, Vec<Vec<u8>>) {
    let scratch = TempDir::new().unwrap();
    let mut tokens = String::new();
    for block in 0..8u32 {
        let ids: Vec<u32> = (0..32u32).map(|i| (block * 97 + i * i * 31 + i) % 256).collect();
        writeln!(tokens, "{{\"tokens\":{ids:?}}}").unwrap();
    }
    let (calibration, out) = (scratch.path().join("tokens.jsonl"), scratch.path().join("out"));
    fs::write(&calibration, tokens).unwrap();
    let mut recipe = Recipe::arctic();
    (recipe.calibration.samples, recipe.calibration.sequence_len) = (8, 32);
    let (model, pipeline) = (checkpoint(name), Pipeline::from_recipe(&recipe).unwrap());
    let to = OutputPlace { origin: &model, path: &out, resume: Resume::No };
    let mut silent = Silent;
    let mut job = Job::new(&model, &pipeline, on, &mut silent);
    let report = prune(&mut job, to, &calibration, &recipe).unwrap();
    let entries = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
    let mut weights: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    weights.sort();
    (report, weights.iter().map(|path| fs::read(path).unwrap()).collect())
}

#[test]
fn two_runs_give_the_same_bytes() {
    let Some(on) = device(ComputeType::Bf16, 3) else { return };
    for name in ["arctic", "mixtral_sharded"] {
        let (first, second) = (pruned(name, &on).1, pruned(name, &on).1);
        assert!(!first.is_empty() && first == second, "{name}");
    }
}

#[test]
fn the_experts_kept_and_the_total_are_those_of_the_cpu() {
    let Some(on) = device(ComputeType::F32, 8) else { return };
    for name in ["arctic", "arctic_freq2", "mixtral"] {
        let (device, cpu) = (pruned(name, &on).0, pruned(name, &Execution::cpu()).0);
        let kept = |report: &Report| -> Vec<_> {
            report.layers.iter().map(|l| (l.kept.clone(), l.clusters.clone())).collect()
        };
        assert_eq!(kept(&device), kept(&cpu), "{name}");
        let linears = |report: &Report| report.sparsity.achieved.linears;
        assert!((linears(&device) - linears(&cpu)).abs() < 1e-3, "{name}");
    }
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let error = Execution::open(DeviceChoice::Cuda(63), None, None).unwrap_err().to_string();
    assert!(error.contains("63") && error.contains("nvidia-smi"), "{error}");
}
