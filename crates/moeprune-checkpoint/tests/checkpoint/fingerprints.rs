//! Which model a file is of, and how that model is stored.

use moeprune_checkpoint::{Checkpoint, Family};
use moeprune_core::{Fingerprint, SameModel};

use crate::fixture::{Model, RawTensor, parity};

/// What version 0.1.0 wrote for `assets/parity/mixtral`.
const LEGACY: &str = "sha256:7f3e51708d5409a368504e88be76e233b04a28650f1169662cc763956fda9fc6";

fn of(checkpoint: &Checkpoint) -> Fingerprint {
    checkpoint.fingerprint().expect("reads").parse().expect("two parts")
}

fn mixtral() -> Fingerprint {
    of(&Checkpoint::open(&parity("mixtral")).expect("opens"))
}

#[track_caller]
fn check(edit: impl Fn(&mut Vec<RawTensor>), family: Option<&str>, expected: SameModel) {
    let model = Model::copy_of("mixtral");
    model.edit_tensors("model.safetensors", edit);
    let family = family.map(|text| Family::from_toml(text).expect("parses"));
    let checkpoint = Checkpoint::open_with(&model.dir, family).expect("opens");
    assert_eq!(checkpoint.is_of(&mixtral().to_string()).expect("reads"), expected);
    let same = of(&checkpoint).model == mixtral().model;
    assert_eq!(same, expected != SameModel::No);
    assert_ne!(checkpoint.is_of(LEGACY).expect("reads"), SameModel::Yes);
}

fn widen(tensor: &mut RawTensor) {
    // A bf16 number is the upper half of the f32 one.
    tensor.bytes = tensor.bytes.chunks_exact(2).flat_map(|b| [0, 0, b[0], b[1]]).collect();
    tensor.dtype = "F32".to_owned();
}

#[test]
fn the_same_model_stored_otherwise() {
    let other = SameModel::StoredOtherwise;
    check(|tensors| tensors.iter_mut().for_each(widen), None, other);
    let prefixed = format!("prefix = \"text.\"\n{}", include_str!("../../families/mixtral.toml"));
    let rename = |tensor: &mut RawTensor| tensor.name = tensor.name.replace("model.", "text.");
    check(|tensors| tensors.iter_mut().for_each(rename), Some(&prefixed), other);
}

#[test]
fn another_model() {
    let changed = |tensors: &mut Vec<RawTensor>| {
        let router = tensors.iter_mut().find(|t| t.name.contains("2.block_sparse_moe.gate"));
        router.expect("is there").bytes[0] ^= 1;
    };
    check(changed, None, SameModel::No);
    assert_ne!(of(&Checkpoint::open(&parity("arctic")).expect("opens")), mixtral());
}

#[test]
fn routers_are_more_than_their_weights() {
    let check = |name: &str, from: &str, to: &str| {
        let text = match name {
            "mixtral" => include_str!("../../families/mixtral.toml"),
            _ => include_str!("../../families/deepseek_v3.toml"),
        };
        assert!(text.contains(from), "{from}");
        let family = Family::from_toml(&text.replace(from, to)).expect("parses");
        let plain = Checkpoint::open(&parity(name)).expect("opens");
        let other = Checkpoint::open_with(&parity(name), Some(family)).expect("opens");
        assert_eq!(other.is_of(&of(&plain).to_string()).expect("reads"), SameModel::No, "{to}");
    };
    check("mixtral", "renormalize = \"always\"", "renormalize = \"never\"");
    let top_k = "top_k = { keys = [\"num_experts_per_tok\"] }";
    check("mixtral", top_k, "top_k = { keys = [\"no_such\"], default = 3 }");
    let share = "keys = [\"norm_topk_prob\"], default = true";
    check("deepseek_v3", share, "keys = [\"no_such\"], default = false");

    let model = Model::copy_of("deepseek_v3");
    let plain = of(&model.open().expect("opens"));
    model.edit_tensors("model.safetensors", |tensors| {
        let name = "e_score_correction_bias";
        let bias = tensors.iter_mut().find(|t| t.name.ends_with(name)).expect("is there");
        bias.bytes[0] ^= 1;
    });
    let changed = of(&model.open().expect("opens"));
    assert_ne!(changed.model, plain.model);
    assert_ne!(changed.storage, plain.storage);
}

#[test]
fn shards_do_not_matter() {
    let sharded = Checkpoint::open(&parity("mixtral_sharded")).expect("opens");
    assert_eq!(of(&sharded), mixtral());
    for part in [mixtral().model, mixtral().storage] {
        assert!(part.starts_with("sha256:") && part.len() == 7 + 64, "{part}");
    }
}

#[test]
fn files_of_version_0_1_0_are_known() {
    for name in ["mixtral", "mixtral_sharded"] {
        let checkpoint = Checkpoint::open(&parity(name)).expect("opens");
        assert_eq!(checkpoint.is_of(LEGACY).expect("reads"), SameModel::Yes);
    }
    let arctic = Checkpoint::open(&parity("arctic")).expect("opens");
    assert_eq!(arctic.is_of(LEGACY).expect("reads"), SameModel::No);
}
