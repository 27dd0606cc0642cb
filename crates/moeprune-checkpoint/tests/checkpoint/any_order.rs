//! Tensors that come in any order, put or copied.

use std::fs;

use moeprune_checkpoint::{Access, Checkpoint, PlannedTensor, ShardedWriter};
use moeprune_core::{Dtype, TensorBytes, TensorSink};
use proptest::prelude::*;

use crate::fixture::{Model, check_refused, contents, parity, planned};

/// Tensors of bytes with these lengths, named `t0`, `t1` and so on, with bytes that differ.
pub(crate) fn tensors(lengths: &[usize]) -> Vec<(PlannedTensor, Vec<u8>)> {
    let tensor = |(i, &length): (usize, &usize)| {
        let bytes = (0..length).map(|j| (i * 37 + j * 11 + 1) as u8).collect();
        (planned(&format!("t{i}"), Dtype::U8, &[length]), bytes)
    };
    lengths.iter().enumerate().map(tensor).collect()
}

pub(crate) fn plan_of(tensors: &[(PlannedTensor, Vec<u8>)]) -> Vec<PlannedTensor> {
    tensors.iter().map(|(planned, _)| planned.clone()).collect()
}

pub(crate) fn put(writer: &mut ShardedWriter, (planned, bytes): &(PlannedTensor, Vec<u8>)) {
    let tensor = TensorBytes::new(planned.dtype, planned.shape.clone(), &bytes[..]);
    writer.put(&planned.name, &tensor.expect("fits")).expect("puts");
}

fn written_in(
    tensors: &[(PlannedTensor, Vec<u8>)],
    order: &[usize],
    limit: u64,
) -> std::collections::BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut writer = ShardedWriter::create(dir.path(), limit, plan_of(tensors)).expect("plans");
    for &i in order {
        put(&mut writer, &tensors[i]);
    }
    assert_eq!(writer.missing().count(), 0);
    let written = writer.finish().expect("finishes");
    assert_eq!(written.tensors, tensors.len());
    contents(dir.path())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_order_does_not_show(
        (lengths, order) in prop::collection::vec(0..50_usize, 1..10).prop_flat_map(|lengths| {
            let order: Vec<usize> = (0..lengths.len()).collect();
            (Just(lengths), Just(order).prop_shuffle())
        }),
        limit in prop::sample::select(vec![1, 30, 100, 1 << 20]),
    ) {
        let tensors = tensors(&lengths);
        let in_order: Vec<usize> = (0..tensors.len()).collect();
        prop_assert_eq!(written_in(&tensors, &order, limit), written_in(&tensors, &in_order, limit));
    }

    /// Any choice of tensors, in any order, under new names, from and to shards of any size.
    #[test]
    fn copies_are_what_putting_the_bytes_gives(
        (lengths, chosen) in prop::collection::vec(0..50_usize, 1..10).prop_flat_map(|lengths| {
            let all: Vec<usize> = (0..lengths.len()).collect();
            let count = lengths.len();
            (Just(lengths), prop::sample::subsequence(all, 1..=count).prop_shuffle())
        }),
        (from_limit, to_limit) in (
            prop::sample::select(vec![1, 30, 1 << 20]),
            prop::sample::select(vec![1, 40, 1 << 20]),
        ),
        access in prop::sample::select(vec![Access::MemoryMap, Access::Read]),
        backwards: bool,
        singly: bool,
    ) {
        let model = Model::tiny(&tensors(&lengths), from_limit);
        let source = Checkpoint::open_by(&model.dir, None, access).expect("opens");
        let all = tensors(&lengths);
        let target: Vec<(PlannedTensor, Vec<u8>)> = chosen
            .iter()
            .enumerate()
            .map(|(i, &old)| (PlannedTensor { name: format!("n{i}"), ..all[old].0.clone() }, all[old].1.clone()))
            .collect();
        let in_order: Vec<usize> = (0..target.len()).collect();
        let expected = written_in(&target, &in_order, to_limit);

        let dir = tempfile::tempdir().expect("temporary directory");
        let mut writer = ShardedWriter::create(dir.path(), to_limit, plan_of(&target)).expect("plans");
        let mut pairs: Vec<(&str, &str)> =
            target.iter().zip(&chosen).map(|((new, _), &old)| (&*new.name, &*all[old].0.name)).collect();
        if backwards {
            pairs.reverse();
        }
        if singly {
            for (name, source_name) in pairs {
                writer.copy(name, &source, source_name).expect("copies");
            }
        } else {
            let mut copied = 0;
            writer.copy_all(&pairs, &source, &mut |bytes| copied += bytes).expect("copies");
            prop_assert_eq!(copied, target.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
        }
        writer.finish().expect("finishes");
        prop_assert_eq!(contents(dir.path()), expected);
    }
}

#[test]
fn whole_models_are_copied_from_shards_to_shards() {
    let source = Checkpoint::open(&parity("mixtral_sharded")).expect("opens");
    let plan: Vec<_> = source.tensors().map(|t| planned(&t.name, t.dtype, &t.shape)).collect();
    for limit in [100_000, source.max_shard_bytes(), u64::MAX] {
        let [put, copied] = [(), ()].map(|()| tempfile::tempdir().expect("temporary directory"));
        let create =
            |dir: &tempfile::TempDir| ShardedWriter::create(dir.path(), limit, plan.clone());
        let mut writer = create(&put).expect("plans");
        for tensor in &plan {
            let bytes = source.tensor_by_name(&tensor.name).expect("reads");
            writer.put(&tensor.name, &bytes).expect("puts");
        }
        writer.finish().expect("finishes");
        let mut writer = create(&copied).expect("plans");
        let pairs: Vec<(&str, &str)> = plan.iter().map(|t| (&*t.name, &*t.name)).collect();
        let mut progress = Vec::new();
        writer.copy_all(&pairs, &source, &mut |bytes| progress.push(bytes)).expect("copies");
        let tensor_bytes = writer.finish().expect("finishes").tensor_bytes;
        assert_eq!(progress.iter().sum::<u64>(), tensor_bytes);
        assert!(progress.len() < 20, "neighbours are copied as one: {progress:?}");
        assert!(contents(put.path()) == contents(copied.path()));
    }
}

#[test]
fn more_files_than_are_held_open() {
    let tensors = tensors(&[3; 80]);
    let order: Vec<usize> = (0..2).flat_map(|odd| (0..40).map(move |i| 2 * i + odd)).collect();
    let in_order: Vec<usize> = (0..80).collect();
    assert_eq!(written_in(&tensors, &order, 6), written_in(&tensors, &in_order, 6));
}

#[test]
fn tensors_can_be_small_beside_large_ones() {
    let tensors = tensors(&[1, 5_000_000, 0, 3]);
    assert!(
        written_in(&tensors, &[3, 1, 2, 0], 1 << 30)
            == written_in(&tensors, &[0, 1, 2, 3], 1 << 30)
    );
}

#[track_caller]
fn check_copy_refused(pairs: &[(&str, &str)], expected: &[&str]) {
    let model = Model::tiny(&tensors(&[4, 4, 5]), 1 << 20);
    let source = model.open().expect("opens");
    let dir = tempfile::tempdir().expect("temporary directory");
    let plan = vec![
        planned("a", Dtype::U8, &[4]),
        planned("b", Dtype::U8, &[2, 2]),
        planned("c", Dtype::I8, &[5]),
        planned("d", Dtype::U8, &[4]),
    ];
    let mut writer = ShardedWriter::create(dir.path(), 1 << 20, plan).expect("plans");
    writer.copy("d", &source, "t1").expect("copies");
    check_refused(writer.copy_all(pairs, &source, &mut |_| ()), expected);
    assert_eq!(writer.missing().collect::<Vec<_>>(), ["a", "b", "c"], "nothing was copied");
}

#[test]
fn copies_that_do_not_fit() {
    check_copy_refused(&[("x", "t0")], &["`x` was not announced"]);
    check_copy_refused(&[("a", "t0"), ("a", "y")], &["tensor `y`", "is not in this checkpoint"]);
    check_copy_refused(&[("a", "t2")], &["`a` was announced as U8 [4] but is U8 [5]"]);
    check_copy_refused(&[("a", "t0"), ("b", "t1")], &["U8 [2, 2] but is U8 [4]"]);
    check_copy_refused(&[("c", "t2")], &["I8 [5] but is U8 [5]"]);
    check_copy_refused(&[("a", "t0"), ("a", "t1")], &["`a` is written already"]);
    check_copy_refused(&[("a", "t0"), ("d", "t1")], &["`d` is written already"]);
}

#[test]
fn a_source_that_changes() {
    let check = |access, expected: &str| {
        let model = Model::tiny(&tensors(&[4000]), 1 << 20);
        let source = Checkpoint::open_by(&model.dir, None, access).expect("opens");
        let dir = tempfile::tempdir().expect("temporary directory");
        let plan = plan_of(&tensors(&[4000]));
        let mut writer = ShardedWriter::create(dir.path(), 1 << 20, plan).expect("plans");
        let path = model.path("model.safetensors");
        let file = fs::File::options().write(true).open(&path).expect("opens");
        let length = file.metadata().expect("is there").len();
        file.set_len(length - 1).expect("truncates");
        check_refused(writer.copy("t0", &source, "t0"), &["model.safetensors", expected]);
        assert_eq!(writer.missing().count(), 1);
    };
    check(Access::Read, "became shorter while it was being copied");
    check(Access::MemoryMap, "is another file than when it was opened first");
}
