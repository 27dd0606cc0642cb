//! Parts that share a tensor: reading them, and writing such tensors in pieces.

use std::{borrow::Cow, path::Path, sync::Arc};

use moeprune_checkpoint::{
    Checkpoint, FusedExperts, Place, PlannedTensor, RangeCopy, ShardedWriter,
};
use moeprune_core::{Dtype, TensorBytes, TensorSink};
use moeprune_files::{Access, LocalFiles, MemoryFiles};

use crate::fixture::{Model, check_refused, contents, planned};

const FUSED: &str = "fused";

/// The values of matrix `m` of expert `e`, row by row: no two elements of a layer are equal.
fn matrix(fused: &FusedExperts, [rows, cols]: [usize; 2], e: usize, m: usize) -> Vec<u16> {
    let first = (e * fused.matrices + m) * rows * cols;
    (first..first + rows * cols).map(|value| value as u16).collect()
}

/// The tensor that holds all matrices, made by the definition of each layout.
fn stored(fused: &FusedExperts, [rows, cols]: [usize; 2]) -> Vec<u16> {
    let FusedExperts { experts, matrices, transposed, interleaved } = *fused;
    let lines = rows * matrices;
    let mut all = vec![0; experts * lines * cols];
    for (e, slab) in all.chunks_mut(lines * cols).enumerate() {
        for m in 0..matrices {
            for (i, value) in matrix(fused, [rows, cols], e, m).into_iter().enumerate() {
                let (row, col) = (i / cols, i % cols);
                let line = if interleaved { row * matrices + m } else { m * rows + row };
                slab[if transposed { col * lines + line } else { line * cols + col }] = value;
            }
        }
    }
    all
}

fn bytes(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A model with one more tensor, and that tensor's shape.
fn model(fused: &FusedExperts, part: [usize; 2], shape: &[usize]) -> Model {
    Model::tiny(&[(planned(FUSED, Dtype::BF16, shape), bytes(&stored(fused, part)))], 1 << 20)
}

fn place(checkpoint: &Checkpoint, fused: &FusedExperts, e: usize, m: usize) -> Place {
    let tensor = checkpoint.tensors().find(|tensor| tensor.name == FUSED).expect("is there");
    fused.place(tensor.form(), e, m).expect("has a place")
}

/// Reads each matrix of a fused tensor and finds it to be the separate one; then makes the slabs
/// again from the matrices.
#[track_caller]
fn check(fused: FusedExperts, part: [usize; 2], shape: &[usize], contiguous: bool) {
    let model = model(&fused, part, shape);
    for access in [Access::MemoryMap, Access::Read] {
        let checkpoint = Checkpoint::open_by(&model.dir, None, access).expect("opens");
        let whole = checkpoint.tensor_by_name(FUSED).expect("reads");
        let mut again = vec![0; whole.bytes().len()];
        for e in 0..fused.experts {
            for m in 0..fused.matrices {
                let place = place(&checkpoint, &fused, e, m);
                assert_eq!(place.is_contiguous(), contiguous, "{fused:?}");
                let read = checkpoint.read_place(&place).expect("reads");
                assert_eq!(read.bytes(), bytes(&matrix(&fused, part, e, m)), "{fused:?} {e} {m}");
                assert_eq!(read.elements(), part[0] * part[1]);
                assert_eq!(read.shape()[0], part[0]);
                let range = place.bytes();
                let slab = &mut again[range.start as usize..range.end as usize];
                place.scatter(read.bytes(), slab);
                assert_eq!(place.gather(Cow::Borrowed(slab)), read.bytes());
            }
        }
        assert_eq!(again, whole.bytes(), "{fused:?}");
    }
}

#[test]
fn every_layout_gives_the_separate_matrices() {
    let fused = |matrices, transposed, interleaved| FusedExperts {
        experts: 3,
        matrices,
        transposed,
        interleaved,
    };
    check(fused(1, false, false), [4, 5], &[3, 4, 5], true);
    check(fused(1, false, false), [4, 5], &[12, 5], true);
    check(fused(1, true, false), [4, 5], &[3, 5, 4], false);
    check(fused(1, true, false), [4, 5], &[15, 4], false);
    check(fused(2, false, false), [4, 5], &[3, 8, 5], true);
    check(fused(2, false, true), [4, 5], &[3, 8, 5], false);
    check(fused(2, true, false), [4, 5], &[3, 5, 8], false);
    check(fused(2, true, true), [4, 5], &[3, 5, 8], false);
    check(fused(3, true, true), [130, 70], &[3, 70, 390], false);
    check(fused(2, false, false), [4, 1], &[3, 8], true);
    check(fused(2, false, true), [4, 1], &[3, 8], false);
}

#[test]
fn places_that_cannot_be() {
    let fused = FusedExperts { experts: 3, matrices: 2, transposed: false, interleaved: false };
    let model = model(&fused, [4, 5], &[3, 8, 5]);
    let checkpoint = model.open().expect("opens");
    let tensor = checkpoint.tensors().find(|tensor| tensor.name == FUSED).expect("is there");
    let refused = |fused: FusedExperts, e, m, expected: &[&str]| {
        check_refused(fused.place(tensor.form(), e, m), expected);
    };
    refused(fused, 3, 0, &["[3, 8, 5]", "2 matrices of 3 experts", "expert 3"]);
    refused(fused, 0, 2, &["matrix 2"]);
    refused(FusedExperts { experts: 2, ..fused }, 0, 0, &["another number of experts"]);
    refused(FusedExperts { experts: 0, ..fused }, 0, 0, &["another number of experts"]);
    refused(FusedExperts { matrices: 3, ..fused }, 0, 0, &["8 lines of BF16 for 3 matrices"]);
    check_refused(fused.slab_bytes(tensor.form(), 3), &["expert 3"]);
    check_refused(fused.shape_with(&[4, 2], 1), &["another number of experts"]);
    check_refused(fused.shape_with(&[], 1), &["no dimension of experts"]);
}

fn writer(dir: &Path, shape: &[usize]) -> ShardedWriter {
    let plan = vec![planned("a", Dtype::U8, &[3]), planned(FUSED, Dtype::BF16, shape)];
    ShardedWriter::create(dir, u64::MAX, plan).expect("plans")
}

fn put_a(writer: &mut ShardedWriter) {
    let a = TensorBytes::new(Dtype::U8, [3], &[1, 2, 3][..]).expect("fits");
    writer.put("a", &a).expect("puts");
}

#[test]
fn slabs_are_put_one_by_one_in_any_order() {
    let fused = FusedExperts { experts: 3, matrices: 2, transposed: true, interleaved: true };
    let all = bytes(&stored(&fused, [4, 5]));
    let (whole, pieces) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let mut at_once = writer(whole.path(), &[3, 5, 8]);
    put_a(&mut at_once);
    let tensor = TensorBytes::new(Dtype::BF16, [3, 5, 8], &all[..]).expect("fits");
    at_once.put(FUSED, &tensor).expect("puts");
    at_once.finish().expect("finishes");

    let mut writer = writer(pieces.path(), &[3, 5, 8]);
    for e in [2, 0, 1] {
        assert_eq!(writer.missing().collect::<Vec<_>>(), ["a", FUSED]);
        writer.put_range(FUSED, 80 * e, &all[80 * e as usize..][..80]).expect("puts");
    }
    assert_eq!(writer.missing().collect::<Vec<_>>(), ["a"]);
    put_a(&mut writer);
    writer.finish().expect("finishes");
    assert_eq!(contents(whole.path()), contents(pieces.path()));
}

#[test]
fn pieces_that_do_not_fit() {
    let dir = tempfile::tempdir().expect("dir");
    let mut writer = writer(dir.path(), &[3, 5, 8]);
    put_a(&mut writer);
    writer.put_range(FUSED, 80, &[0; 80]).expect("puts");
    let twice = [FUSED, "is written already"];
    check_refused(writer.put_range(FUSED, 159, &[0; 2]), &twice);
    check_refused(writer.put_range(FUSED, 0, &[0; 81]), &twice);
    check_refused(writer.put_range(FUSED, 100, &[0; 1]), &twice);
    check_refused(writer.put_range(FUSED, 239, &[0; 2]), &["240 bytes", "none at 239..241"]);
    check_refused(writer.put_range(FUSED, u64::MAX, &[0; 2]), &["240 bytes"]);
    check_refused(writer.put_range("b", 0, &[0; 2]), &["`b` was not announced"]);
    let whole = TensorBytes::new(Dtype::BF16, [3, 5, 8], vec![0; 240]).expect("fits");
    check_refused(writer.put(FUSED, &whole), &twice);
    writer.put_range(FUSED, 0, &[0; 80]).expect("puts");
    check_refused(writer.finish(), &["finished after 1 of 2", "`fused` is missing"]);
}

/// Keeps three of five experts, in another order, without decoding any.
#[test]
fn slabs_are_copied_byte_for_byte() {
    let fused = FusedExperts { experts: 5, matrices: 2, transposed: false, interleaved: true };
    let model = model(&fused, [4, 5], &[5, 8, 5]);
    let local = LocalFiles::open(&model.dir, Access::Read).expect("opens");
    let memory = MemoryFiles::copy_of(&local).expect("reads");
    let in_memory = Checkpoint::open_files(Arc::new(memory), None).expect("opens");
    let kept = [1, 2, 4];
    for source in [model.open().expect("opens"), in_memory] {
        let tensor = source.tensors().find(|tensor| tensor.name == FUSED).expect("is there");
        let shape = fused.shape_with(&tensor.shape, 3).expect("has experts");
        assert_eq!(shape, [3, 8, 5]);
        let dir = tempfile::tempdir().expect("dir");
        let plan = vec![PlannedTensor { name: "x".into(), dtype: tensor.dtype, shape }];
        let mut writer =
            ShardedWriter::create(dir.path(), source.output_form(), plan).expect("plans");
        let copies: Vec<RangeCopy<'_>> = kept
            .iter()
            .zip(0..)
            .map(|(&expert, at)| {
                let range = fused.slab_bytes(tensor.form(), expert).expect("is there");
                RangeCopy { name: "x", at: at * 80, source: FUSED, range }
            })
            .collect();
        let twice = [copies.clone(), copies.clone()].concat();
        let mut copied = Vec::new();
        check_refused(writer.copy_ranges(&twice, &source, &mut |_| ()), &["is written already"]);
        let beyond = RangeCopy { range: 0..401, ..copies[0].clone() };
        check_refused(writer.copy_ranges(&[beyond], &source, &mut |_| ()), &["has 400 bytes"]);
        writer.copy_ranges(&copies, &source, &mut |bytes| copied.push(bytes)).expect("copies");
        // All are neighbours in the file that is written, the first two in the source as well.
        assert!(copied == [240] || copied == [160, 80], "{copied:?}");
        writer.finish().expect("finishes");
        let expected: Vec<u8> =
            kept.iter().flat_map(|&e| bytes(&stored(&fused, [4, 5])[e * 40..][..40])).collect();
        let written = &contents(dir.path())["model.safetensors"];
        assert_eq!(written[written.len() - 240..], expected);
    }
}

#[test]
fn pieces_of_an_earlier_process_are_declared() {
    let dir = tempfile::tempdir().expect("dir");
    let mut first = writer(dir.path(), &[3, 5, 8]);
    first.put_range(FUSED, 80, &[7; 80]).expect("puts");
    first.sync().expect("syncs");
    drop(first);
    let plan = vec![planned("a", Dtype::U8, &[3]), planned(FUSED, Dtype::BF16, &[3, 5, 8])];
    let mut writer = ShardedWriter::resume(dir.path(), u64::MAX, plan).expect("resumes");
    writer.mark_range_written(FUSED, 80..160).expect("is there");
    writer.mark_range_written(FUSED, 90..100).expect("may be said twice");
    check_refused(writer.mark_range_written(FUSED, 239..241), &["none at 239..241"]);
    check_refused(writer.put_range(FUSED, 80, &[0]), &["is written already"]);
    writer.put_range(FUSED, 0, &[1; 80]).expect("puts");
    writer.put_range(FUSED, 160, &[2; 80]).expect("puts");
    put_a(&mut writer);
    writer.finish().expect("finishes");
    let written = &contents(dir.path())["model.safetensors"];
    assert_eq!(written[written.len() - 240..], [[1; 80], [7; 80], [2; 80]].concat());
}
