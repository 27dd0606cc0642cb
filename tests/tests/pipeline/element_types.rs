//! Weights come out in the type they came in.

use std::{fs, path::Path};

use moeprune::{
    checkpoint::{Checkpoint, PlannedTensor, ShardedWriter, verify},
    core::{Dtype, TensorBytes, TensorSink},
};

use crate::scratch::{asset, recipe, run, tokens};

/// Rewrites a checkpoint's weights, the tensors in turn as each of `dtypes`, in shards of at most
/// `shard` bytes.
fn convert(source: &Checkpoint, dtypes: &[Dtype], shard: u64, target: &Path) {
    fs::create_dir(target).unwrap();
    fs::copy(source.dir().join("config.json"), target.join("config.json")).unwrap();
    let dtype = |i: usize| dtypes[i % dtypes.len()];
    let plan = source
        .tensors()
        .enumerate()
        .map(|(i, t)| PlannedTensor {
            name: t.name.clone(),
            dtype: dtype(i),
            shape: t.shape.clone(),
        })
        .collect();
    let mut writer = ShardedWriter::create(target, shard, plan).unwrap();
    for (i, stored) in source.tensors().enumerate() {
        let values = source.tensor_by_name(&stored.name).unwrap().to_f32().unwrap();
        let tensor = TensorBytes::encode(dtype(i), stored.shape.clone(), &values).unwrap();
        writer.put(&stored.name, &tensor).unwrap();
    }
    writer.finish().unwrap();
}

fn check(dtypes: &[Dtype], shard: u64) {
    let scratch = tempfile::tempdir().unwrap();
    let model = scratch.path().join("model");
    convert(&Checkpoint::open(&asset("parity/arctic")).unwrap(), dtypes, shard, &model);
    let out = scratch.path().join("out");
    let calibration = tokens(scratch.path(), 8, 64, 256);
    let report = run(&model, &out, &calibration, &recipe(0.5, 0.25)).unwrap();
    assert!((report.sparsity.achieved.linears - 0.5).abs() < 5e-4);
    let (source, pruned) = (Checkpoint::open(&model).unwrap(), Checkpoint::open(&out).unwrap());
    assert!(pruned.tensors().all(|tensor| dtypes.contains(&tensor.dtype)));
    assert_eq!(source.is_single_file(), pruned.is_single_file());
    for check in verify(&out, &source, None).unwrap().checks {
        assert!(check.passed, "{dtypes:?}: {}: {}", check.name, check.detail);
    }
}

#[test]
fn bf16_f16_and_f32_one_file_or_many() {
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        check(&[dtype], u64::MAX);
        check(&[dtype], 200_000);
    }
}

#[test]
fn several_types_in_one_model() {
    check(&[Dtype::BF16, Dtype::F32], u64::MAX);
    check(&[Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F32], 200_000);
}
