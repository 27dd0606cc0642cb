//! Writers that end early and are taken up by another.

use std::{fs, path::Path};

use moeprune_checkpoint::{PlannedTensor, ShardedWriter};
use moeprune_core::{Dtype, TensorBytes, TensorSink};
use proptest::prelude::*;

use crate::{
    any_order::{plan_of, put, tensors},
    fixture::{check_refused, contents, planned},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// The first writer makes some tensors durable and puts some more; the second knows of the
    /// former and puts the rest again.
    #[test]
    fn an_interruption_does_not_show(
        (lengths, order) in prop::collection::vec(0..50_usize, 1..10).prop_flat_map(|lengths| {
            let order: Vec<usize> = (0..lengths.len()).collect();
            (Just(lengths), Just(order).prop_shuffle())
        }),
        limit in prop::sample::select(vec![1, 30, 100, 1 << 20]),
        (durable, lost) in (0..10_usize, 0..10_usize),
        index_was_written: bool,
    ) {
        let tensors = tensors(&lengths);
        let [whole, cut] = [(), ()].map(|()| tempfile::tempdir().expect("temporary directory"));
        let mut writer = ShardedWriter::create(whole.path(), limit, plan_of(&tensors)).expect("plans");
        tensors.iter().for_each(|tensor| put(&mut writer, tensor));
        writer.finish().expect("finishes");

        let (durable, rest) = order.split_at(durable.min(order.len()));
        let mut writer = ShardedWriter::create(cut.path(), limit, plan_of(&tensors)).expect("plans");
        durable.iter().for_each(|&i| put(&mut writer, &tensors[i]));
        writer.sync().expect("syncs");
        rest.iter().take(lost).for_each(|&i| {
            // What was not made durable may be anything.
            let (planned, bytes) = &tensors[i];
            put(&mut writer, &(planned.clone(), vec![0xee; bytes.len()]));
        });
        drop(writer);
        if index_was_written {
            fs::write(cut.path().join("model.safetensors.index.json"), "{").expect("writes");
        }

        let mut writer = ShardedWriter::resume(cut.path(), limit, plan_of(&tensors)).expect("resumes");
        prop_assert_eq!(writer.missing().count(), tensors.len());
        for &i in durable {
            writer.mark_written(&tensors[i].0.name).expect("is there");
        }
        prop_assert_eq!(writer.missing().count(), rest.len());
        rest.iter().for_each(|&i| put(&mut writer, &tensors[i]));
        let single = writer.finish().expect("finishes").files.len() == 1;
        let mut got = contents(cut.path());
        if index_was_written && single {
            got.remove("model.safetensors.index.json");
        }
        prop_assert_eq!(got, contents(whole.path()));
    }
}

#[test]
fn a_complete_checkpoint_can_be_finished_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tensors = tensors(&[3, 4, 5]);
    let mut writer = ShardedWriter::create(dir.path(), 4, plan_of(&tensors)).expect("plans");
    tensors.iter().for_each(|tensor| put(&mut writer, tensor));
    let written = writer.finish().expect("finishes");
    let before = contents(dir.path());
    let mut writer = ShardedWriter::resume(dir.path(), 4, plan_of(&tensors)).expect("resumes");
    for (planned, _) in &tensors {
        writer.mark_written(&planned.name).expect("is there");
        writer.mark_written(&planned.name).expect("may be said twice");
    }
    assert_eq!(writer.finish().expect("finishes"), written);
    assert_eq!(contents(dir.path()), before);
}

/// The process died while it made a file: the file lies under another name, or under none.
#[test]
fn files_that_were_being_made() {
    let tensors = tensors(&[3, 4, 5]);
    let whole = tempfile::tempdir().expect("temporary directory");
    let mut writer = ShardedWriter::create(whole.path(), 4, plan_of(&tensors)).expect("plans");
    tensors.iter().for_each(|tensor| put(&mut writer, tensor));
    writer.finish().expect("finishes");

    let cut = tempfile::tempdir().expect("temporary directory");
    fs::write(cut.path().join(".model-00002-of-00003.safetensors.new"), "half").expect("writes");
    fs::write(cut.path().join(".model.safetensors.index.json.new"), "half").expect("writes");
    let mut writer = ShardedWriter::resume(cut.path(), 4, plan_of(&tensors)).expect("resumes");
    tensors.iter().for_each(|tensor| put(&mut writer, tensor));
    writer.finish().expect("finishes");
    assert_eq!(contents(cut.path()), contents(whole.path()));
}

#[test]
fn other_plans_are_refused() {
    let begun = vec![planned("a", Dtype::U8, &[4]), planned("b", Dtype::U8, &[4])];
    let check = |limit, plan: &[PlannedTensor], expected: &[&str]| {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut writer = ShardedWriter::create(dir.path(), 4, begun.clone()).expect("plans");
        let bytes = TensorBytes::new(Dtype::U8, [4], vec![1; 4]).expect("fits");
        writer.put("b", &bytes).expect("puts");
        drop(writer);
        let before = contents(dir.path());
        let mut expected = expected.to_vec();
        expected.push("cannot be resumed with this one");
        check_refused(ShardedWriter::resume(dir.path(), limit, plan.to_vec()), &expected);
        assert_eq!(contents(dir.path()), before);
    };
    let second = "model-00002-of-00002.safetensors";
    let (a, b) = (&begun[0], &begun[1]);
    let same_length = [a.clone(), planned("b", Dtype::U8, &[2, 2])];
    check(4, &same_length, &[second, "announces other tensors"]);
    check(4, &[a.clone(), planned("c", Dtype::U8, &[4])], &[second, "announces other tensors"]);
    check(4, &[a.clone(), planned("b", Dtype::I8, &[4])], &[second, "announces other tensors"]);
    check(4, &[b.clone(), a.clone()], &[second, "announces other tensors"]);
    check(4, &[a.clone(), planned("b", Dtype::U8, &[5])], &[second, "bytes long, but would be"]);
    check(8, &begun, &[second, "is not a file that would be written"]);
    check(4, &begun[..1], &[second, "is not a file that would be written"]);
}

#[test]
fn tensors_that_cannot_have_been_written() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tensors = tensors(&[1, 1]);
    let mut writer = ShardedWriter::create(dir.path(), 1, plan_of(&tensors)).expect("plans");
    check_refused(
        writer.mark_written("t0"),
        &["`t0` is said to have been written", "there was no model-00001-of-00002.safetensors"],
    );
    put(&mut writer, &tensors[0]);
    drop(writer);
    let mut writer = ShardedWriter::resume(dir.path(), 1, plan_of(&tensors)).expect("resumes");
    check_refused(writer.mark_written("t1"), &["there was no model-00002-of-00002.safetensors"]);
    check_refused(writer.mark_written("x"), &["`x` was not announced"]);
    writer.mark_written("t0").expect("is there");
    let byte = TensorBytes::new(Dtype::U8, [1], vec![1]).expect("fits");
    let message = writer.put("t0", &byte).expect_err("refused").to_string();
    assert!(message.contains("`t0` is written already"), "{message}");
    check_refused(writer.finish(), &["finished after 1 of 2 tensors; `t1` is missing"]);
}

#[test]
fn a_directory_that_is_not_there() {
    let plan = plan_of(&tensors(&[1]));
    check_refused(ShardedWriter::resume(Path::new("/nowhere"), 1, plan), &["cannot list /nowhere"]);
}
