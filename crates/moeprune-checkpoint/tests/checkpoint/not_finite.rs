//! NaN and infinity in weights: carried where they were only copied, refused where anything was computed.

use moeprune_checkpoint::verify;
use moeprune_core::TensorBytes;

use crate::{
    fixture::{Model, apply, plan_keeping},
    pruned::{as_it_is, check_fails, check_passes},
};

const FILE: &str = "model.safetensors";
/// NaN in BF16.
const NAN: [u8; 2] = [0xc0, 0x7f];
/// Infinity in BF16.
const INFINITY: [u8; 2] = [0x80, 0x7f];

/// Models with a weight that is not finite in a tensor of each kind, by the tensor's name.
const COPIED: [&str; 6] = [
    "lm_head.weight",
    "model.embed_tokens.weight",
    "model.norm.weight",
    "model.layers.1.input_layernorm.weight",
    "model.layers.1.self_attn.q_proj.weight",
    "model.layers.1.block_sparse_moe.experts.0.w2.weight",
];

fn with(name: &str, bytes: [u8; 2]) -> Model {
    let model = Model::copy_of("mixtral");
    model.edit_tensors(FILE, |tensors| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.name == name).expect("is there");
        tensor.bytes[2..4].copy_from_slice(&bytes);
    });
    model
}

#[test]
fn what_is_only_copied_is_carried_and_said() {
    for (bytes, shown) in [(NAN, "NaN"), (INFINITY, "inf")] {
        for name in COPIED {
            let model = with(name, bytes);
            let source = model.open().expect("opens");
            let plan = plan_keeping(&source, &[0, 2, 3, 5]);
            let out = model.root.path().join("out");
            apply(&source, &plan, &out, as_it_is);
            let report = verify(&out, &source, Some(&plan)).expect("verifies");
            check_passes(&report);
            let check =
                report.checks.iter().find(|check| check.name == "finite").expect("is there");
            let said = format!("as the source has them; first: `{name}` holds {shown}");
            assert!(check.detail.contains("1 with NaN or infinity"), "{}", check.detail);
            assert!(check.detail.contains(&said), "{}", check.detail);
        }
    }
}

#[test]
fn what_goes_with_an_expert_is_not_said() {
    let model = with("model.layers.1.block_sparse_moe.experts.1.w2.weight", NAN);
    let source = model.open().expect("opens");
    let plan = plan_keeping(&source, &[0, 2, 3, 5]);
    let out = model.root.path().join("out");
    apply(&source, &plan, &out, as_it_is);
    let report = verify(&out, &source, Some(&plan)).expect("verifies");
    check_passes(&report);
    let check = report.checks.iter().find(|check| check.name == "finite").expect("is there");
    assert!(!check.detail.contains("NaN"), "{}", check.detail);
}

#[test]
fn what_was_computed_with_must_be_finite() {
    let name = "model.layers.1.self_attn.q_proj.weight";
    let model = with(name, NAN);
    let source = model.open().expect("opens");
    let mut plan = plan_keeping(&source, &[0, 2, 3, 5]);
    plan.unstructured = crate::pruned::unstructured(0.5);
    let out = model.root.path().join("out");
    apply(&source, &plan, &out, |planned, tensor| {
        if planned.name != name {
            return tensor;
        }
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let mut bytes = tensor.into_bytes();
        bytes[4..6].fill(0);
        TensorBytes::new(dtype, shape, bytes).expect("fits")
    });
    check_fails(&verify(&out, &source, None).expect("verifies"), &[("finite", name)]);
}
