//! Reading what is there.

use std::time::{Duration, UNIX_EPOCH};

use moeprune_checkpoint::{Access, Checkpoint, FileIdentity};
use moeprune_core::{AttentionProjection, LinearId, MlpProjection, TensorId, TensorSource};

use crate::fixture::{Model, PARITY, RawTensor, check_refused, parity};

#[test]
fn every_tensor_is_what_the_public_reader_reads() {
    for name in PARITY {
        let checkpoint = Checkpoint::open(&parity(name)).expect("opens");
        let mut count = 0;
        for file in checkpoint.shard_files() {
            let bytes = std::fs::read(parity(name).join(file)).expect("reads");
            let theirs = safetensors::SafeTensors::deserialize(&bytes).expect("valid");
            for (name, view) in theirs.iter() {
                let ours = checkpoint.tensor_by_name(name).expect("reads");
                assert_eq!(ours.shape(), view.shape());
                assert_eq!(ours.bytes(), view.data());
                let part = checkpoint.family().part_of(name).expect("known");
                assert_eq!(checkpoint.tensor(part).expect("reads"), ours);
                count += 1;
            }
        }
        assert_eq!(checkpoint.tensors().count(), count);
    }
}

#[test]
fn both_ways_to_read_read_the_same() {
    let mapped = Checkpoint::open(&parity("mixtral_sharded")).expect("opens");
    let read = Checkpoint::open_by(&parity("mixtral_sharded"), None, Access::Read).expect("opens");
    for tensor in mapped.tensors() {
        let (a, b) = (mapped.tensor_by_name(&tensor.name), read.tensor_by_name(&tensor.name));
        assert_eq!(a.expect("reads"), b.expect("reads"));
    }
}

#[test]
fn elements_are_those_of_the_whole_tensor() {
    let part = TensorId::linear(1, LinearId::Expert(2, MlpProjection::Down));
    for access in [Access::MemoryMap, Access::Read] {
        let checkpoint =
            Checkpoint::open_by(&parity("mixtral_sharded"), None, access).expect("opens");
        let whole = checkpoint.tensor(part).expect("reads").to_f32().expect("decodes");
        let count = whole.len();
        for range in [0..count, 0..0, count..count, 0..1, count - 1..count, 7..count / 2] {
            let elements = checkpoint.elements(part, range.clone()).expect("reads");
            assert_eq!(elements.shape(), [range.len()]);
            assert_eq!(elements.to_f32().expect("decodes"), whole[range]);
        }
        for range in [0..count + 1, count + 1..count + 1, count..usize::MAX] {
            check_refused(checkpoint.elements(part, range), &["tensor range", &count.to_string()]);
        }
        #[expect(clippy::reversed_empty_ranges, reason = "what a caller may get wrong")]
        check_refused(checkpoint.elements(part, 2..1), &["tensor range"]);
        let absent = TensorId::linear(1, LinearId::Expert(99, MlpProjection::Down));
        check_refused(checkpoint.elements(absent, 0..1), &["expert.99"]);
    }
}

#[test]
fn a_file_cut_short_while_open_is_an_error_when_read() {
    let model = Model::copy_of("mixtral");
    let checkpoint = Checkpoint::open_by(&model.dir, None, Access::Read).expect("opens");
    let file = std::fs::File::options().write(true).open(model.path("model.safetensors"));
    file.expect("opens").set_len(20_000).expect("cuts");
    check_refused(
        checkpoint.tensor_by_name("model.norm.weight"),
        &["cannot read", "model.safetensors"],
    );
}

#[test]
fn tensors_come_in_stored_order() {
    let checkpoint = Checkpoint::open(&parity("mixtral_sharded")).expect("opens");
    let names: Vec<_> = checkpoint.tensors().map(|t| (&*t.file, t.name.as_str())).collect();
    assert_eq!(names[0], ("model-00001-of-00005.safetensors", "lm_head.weight"));
    let last = names.last().expect("not empty");
    assert_eq!(*last, ("model-00005-of-00005.safetensors", "model.norm.weight"));
    assert!(names.is_sorted_by_key(|(file, _)| *file));
}

#[test]
fn sizes() {
    let checkpoint = Checkpoint::open(&parity("mixtral_sharded")).expect("opens");
    assert_eq!(checkpoint.max_shard_bytes(), 299_136 - 8 - 3064);
    assert_eq!(checkpoint.weight_bytes(), 264_464 + 225_112 * 2 + 299_136 + 25_232);
    let single = Checkpoint::open(&parity("mixtral")).expect("opens");
    assert_eq!(single.weight_bytes(), 1_038_984);
    assert_eq!(single.max_shard_bytes(), 1_027_968);
}

#[test]
fn what_is_not_there() {
    let checkpoint = Checkpoint::open(&parity("mixtral")).expect("opens");
    check_refused(
        checkpoint.tensor_by_name("nothing"),
        &["`nothing`", "is not in this checkpoint"],
    );
    let query = |l| TensorId::linear(l, LinearId::Attention(AttentionProjection::Query));
    checkpoint.tensor(query(2)).expect("is there");
    let message = checkpoint.tensor(query(3)).expect_err("is not").to_string();
    assert!(
        message.contains("no layer 3 attention.query: there is no `model.layers.3"),
        "{message}"
    );
}

#[test]
fn checkpoints_are_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Checkpoint>();
    check::<moeprune_checkpoint::Error>();
}

#[test]
fn files_can_be_told_from_changed_ones() {
    let model = Model::copy_of("mixtral_sharded");
    let source = model.open().expect("opens");
    let before = source.file_identities().expect("inspects");
    let names: Vec<&str> = before.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(
        names[..3],
        ["config.json", "model.safetensors.index.json", "model-00001-of-00005.safetensors"]
    );
    assert_eq!(names.len(), 7);
    let config = std::fs::metadata(model.path("config.json")).expect("is there");
    assert_eq!(before[0].bytes, config.len());
    let text = serde_json::to_string(&before).expect("is JSON");
    let again: Vec<FileIdentity> = serde_json::from_str(&text).expect("reads back");
    assert_eq!(again, before);
    assert_eq!(source.file_identities().expect("inspects"), before);

    let touch = |file: &str, nanoseconds| {
        let file = std::fs::File::options().write(true).open(model.path(file)).expect("opens");
        let time = UNIX_EPOCH + Duration::from_nanos(nanoseconds);
        file.set_modified(time).expect("sets the time");
    };
    touch("model-00003-of-00005.safetensors", 1_700_000_000_123_456_000);
    let after = source.file_identities().expect("inspects");
    let changed: Vec<usize> = (0..7).filter(|&i| before[i] != after[i]).collect();
    assert_eq!(changed, [4]);
    assert_eq!(after[4].modified / 1000, 1_700_000_000_123_456);

    let single = Model::copy_of("mixtral").open().expect("opens");
    check_refused(single.file_identities(), &["cannot inspect", "config.json"]);
}

/// Of a layer in tensors of all experts, messages name such a tensor.
#[test]
fn fused_tensors_that_are_missing_or_of_another_type() {
    let check = |edit: &dyn Fn(&mut Vec<RawTensor>), expected: &[&str]| {
        let model = Model::copy_of("mixtral_fused");
        model.edit_tensors("model.safetensors", edit);
        check_refused(model.open(), expected);
    };
    let name = "model.layers.1.mlp.experts.gate_up_proj";
    let named = format!("`{name}`");
    check(&|tensors| tensors.retain(|t| t.name != name), &[&named, "is missing"]);
    for (dtype, per_byte) in [("U8", 1), ("F4", 2)] {
        let change = |tensors: &mut Vec<RawTensor>| {
            let fused = tensors.iter_mut().find(|t| t.name == name).expect("is there");
            dtype.clone_into(&mut fused.dtype);
            let elements: usize = fused.shape.iter().product();
            fused.bytes.truncate(elements / per_byte);
        };
        let stored = format!("is stored as {dtype}; only F32, F16 and BF16 can be pruned");
        check(&change, &[&named, &stored]);
    }
}
