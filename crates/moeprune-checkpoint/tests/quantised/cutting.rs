//! Whole experts of every layout, byte for byte.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use moeprune_checkpoint::{Checkpoint, verify};
use moeprune_core::LayerTensor;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    fixture::{Kept, Model, cut, read_json},
    quantised_models::{expected, folder, names},
};

fn kept(expected: &Value) -> Kept {
    let layers = expected["kept"].as_object().expect("is a table").iter();
    let of_layer = |(layer, kept): (&String, &Value)| {
        let kept = serde_json::from_value(kept.clone()).expect("is a list");
        (layer.parse().expect("is a number"), kept)
    };
    layers.map(of_layer).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same config: lists of names in any order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let mut items: Vec<String> = items.iter().map(Value::to_string).collect();
            items.sort();
            Value::from(items)
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.iter().map(|(k, v)| (k, sorted(v))).collect();
            serde_json::to_value(members).expect("is JSON")
        }
        value => value.clone(),
    }
}

fn check_tensors(name: &str, out: &Path, expected: &Value) {
    let pruned = Checkpoint::open(out).expect("opens");
    let expected = expected["pruned_tensors"].as_object().expect("is a table");
    assert_eq!(pruned.tensors().count(), expected.len(), "{name}");
    for (tensor, expected) in expected {
        let got = pruned.tensor_by_name(tensor).expect("is there");
        let [_, hash, dtype, shape] = &expected.as_array().expect("is a list")[..] else {
            panic!("four things of {tensor}");
        };
        assert_eq!(sha256(got.bytes()), hash.as_str().expect("is a hash"), "{name}: {tensor}");
        assert_eq!(got.dtype().to_string(), dtype.as_str().expect("is a type"), "{name}: {tensor}");
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).expect("is a shape");
        assert_eq!(got.shape(), shape, "{name}: {tensor}");
    }
    let index = out.join("model.safetensors.index.json");
    if index.exists() {
        let index = read_json(&index);
        let bytes: u64 = pruned.tensors().map(|tensor| tensor.bytes).sum();
        assert_eq!(index["metadata"]["total_size"].as_u64(), Some(bytes), "{name}");
        let map = index["weight_map"].as_object().expect("is a table");
        let files: BTreeMap<&str, &str> =
            map.iter().map(|(name, file)| (&**name, file.as_str().expect("is a name"))).collect();
        let held: BTreeMap<&str, &str> =
            pruned.tensors().map(|tensor| (&*tensor.name, &*tensor.file)).collect();
        assert_eq!(files, held, "{name}");
        assert!(files.keys().all(|tensor| expected.contains_key(*tensor)), "{name}");
        for (file, tensors) in by_file(&files) {
            let header = header_of(&out.join(file));
            let got: BTreeSet<&str> =
                header.keys().map(|key| &**key).filter(|key| *key != "__metadata__").collect();
            assert_eq!(got, tensors, "{name}: {file}");
        }
    }
}

fn by_file<'a>(files: &BTreeMap<&'a str, &'a str>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut tensors: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (tensor, file) in files {
        tensors.entry(file).or_default().insert(tensor);
    }
    tensors
}

/// What a weight file says of its tensors.
fn header_of(path: &Path) -> serde_json::Map<String, Value> {
    let bytes = fs::read(path).expect("reads");
    let (size, rest) = bytes.split_at(8);
    let size = u64::from_le_bytes(size.try_into().expect("eight bytes")) as usize;
    serde_json::from_slice(&rest[..size]).expect("is JSON")
}

#[test]
fn every_tensor_and_config_is_as_expected() {
    for name in names() {
        let name = name.as_str();
        let model = Model::copy_of(name);
        let source = model.open().unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected = expected(name);
        let out = model.root.path().join("out");
        cut(&source, &kept(&expected), &out);
        check_tensors(name, &out, &expected);
        let config = read_json(&out.join("config.json"));
        assert_eq!(sorted(&config), sorted(&expected["pruned_config"]), "{name}");
        let quantize = out.join("quantize_config.json");
        if quantize.exists() {
            let own = read_json(&quantize);
            let mut of_model = expected["pruned_config"]["quantization_config"].clone();
            for key in ["dynamic", "modules_in_block_to_quantize"] {
                assert_eq!(
                    own.get(key),
                    of_model.as_object_mut().and_then(|o| o.get_mut(key)).as_deref(),
                    "{name}"
                );
            }
        }
        let report = verify(&out, &source, None).expect("reads");
        assert!(report.passed(), "{name}: {:?}", report.failures().collect::<Vec<_>>());
        let counted = report.sparsity.expect("is counted").experts;
        let (before, after): (usize, usize) =
            kept(&expected).iter().fold((0, 0), |(a, b), (l, k)| {
                let decoder = *l < source.spec().layers.len();
                let all = source.spec().moe_of(*l).map_or(0, |moe| moe.experts);
                if decoder { (a + all, b + k.len()) } else { (a, b) }
            });
        // Codes that were zero before count as zeros.
        assert!(counted > 1.0 - after as f64 / before as f64 - 1e-9, "{name}: {counted}");
    }
}

#[test]
fn a_changed_byte_is_found() {
    let check = |name: &str, tensor: &str, check: &str| {
        let model = Model::copy_of(name);
        let source = model.open().expect("opens");
        let out = model.root.path().join("out");
        let expected = expected(name);
        cut(&source, &kept(&expected), &out);
        let damaged = Model { root: tempfile::tempdir().expect("makes"), dir: out.clone() };
        damaged.edit_tensors(|tensors| {
            let (.., data) = tensors.get_mut(tensor).expect("is there");
            data[0] ^= 1;
        });
        let report = verify(&out, &source, None).expect("reads");
        let failed: Vec<_> = report.failures().collect();
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(failed[0].name == check && failed[0].detail.contains(tensor), "{failed:?}");
    };
    let expert = "model.layers.1.mlp.experts.1.up_proj";
    let fp8 = "fp8_block_e8m0_qwen3_moe";
    check(fp8, &format!("{expert}.weight"), "experts");
    check(fp8, &format!("{expert}.weight_scale_inv"), "experts");
    check("gptq_act_qwen3_moe", &format!("{expert}.g_idx"), "experts");
    let attention = "model.layers.0.self_attn.q_proj.qzeros";
    check("awq_qwen3_moe", attention, "attention and dense MLPs");
    check("fp8_block_deepseek_v3", "model.layers.2.mlp.experts.0.up_proj.weight", "experts");
}

#[test]
fn a_config_that_was_not_rewritten_is_found() {
    let check = |name: &str, file: &str, from: &str| {
        let model = Model::copy_of(name);
        let source = model.open().expect("opens");
        let out = model.root.path().join("out");
        cut(&source, &kept(&expected(name)), &out);
        let text = fs::read_to_string(out.join(file)).expect("reads");
        assert!(text.contains(from), "{text}");
        fs::write(out.join(file), text.replacen(from, "x", 1)).expect("writes");
        let report = verify(&out, &source, None).expect("reads");
        let failed: Vec<_> = report.failures().map(|check| check.name.as_str()).collect();
        assert_eq!(failed, ["config.json"], "{name}");
    };
    check("fp8_channel_glm4_moe", "config.json", "model.layers.1.mlp.gate");
    check("nvfp4_modelopt_qwen3_moe", "hf_quant_config.json", "lm_head");
    check("gptq_mixtral", "quantize_config.json", "experts.4.w1");
}

#[test]
fn parts_know_their_tensors() {
    let check = |name: &str, part: &str, module: &str, form: &str, expected: &[&str]| {
        let source = Model::copy_of(name).open().expect("opens");
        let id = moeprune_core::TensorId::linear(1, part.parse().expect("is a Linear"));
        let stored = source.stored_part(id).expect("is several tensors");
        assert_eq!((stored.module, stored.form.to_string().as_str()), (module, form));
        let names: Vec<&str> = stored.tensors.iter().map(|(suffix, _)| *suffix).collect();
        assert_eq!(names, expected);
        assert!(
            stored
                .tensors
                .iter()
                .all(|(suffix, tensor)| { tensor.name == format!("{module}.{suffix}") })
        );
        let bytes: u64 = stored.tensors.iter().map(|(_, tensor)| tensor.bytes).sum();
        assert_eq!(source.stored_bytes(id), bytes);
        assert!(matches!(id, moeprune_core::TensorId::Layer(1, LayerTensor::Linear(_))));
    };
    let up = |expert: usize| format!("model.layers.1.mlp.experts.{expert}.up_proj");
    let fp8 = ["weight", "weight_scale_inv"];
    check("fp8_block_qwen3_moe", "expert.3.up", &up(3), "FP8 in blocks", &fp8);
    let packed = ["weight_packed", "weight_scale", "weight_shape"];
    check("int4_pack_deepseek_v3", "expert.7.up", &up(7), "INT4 packed", &packed);
    let nvfp4 = ["input_scale", "weight", "weight_scale", "weight_scale_2"];
    check("nvfp4_modelopt_qwen3_moe", "expert.0.up", &up(0), "NVFP4", &nvfp4);
    let gptq = ["g_idx", "qweight", "qzeros", "scales"];
    check("gptq_v2_qwen3_moe", "expert.0.up", &up(0), "GPTQ INT4", &gptq);
    let query = "model.layers.1.self_attn.q_proj";
    check("awq_qwen3_moe", "attention.query", query, "AWQ INT4", &["qweight", "qzeros", "scales"]);
}

#[test]
fn a_summary_says_how_weights_are_stored() {
    let check = |name: &str, expected: &str, experts: f64| {
        let storage = Model::copy_of(name).open().expect("opens").summary().storage;
        let storage = storage.expect("is quantised");
        let roles = storage.roles.iter();
        let shown: Vec<String> =
            roles.map(|role| format!("{} {}", role.role, role.forms.join(" and "))).collect();
        assert_eq!(shown.join(", "), expected, "{name}");
        let of_experts = storage.roles.iter().find(|role| role.role == "experts");
        let bits = of_experts.expect("has experts").bits_per_weight;
        assert!((bits - experts).abs() < 0.005, "{name}: {bits}");
    };
    let fp8 = "attention BF16, experts FP8 32x32, head BF16";
    check("fp8_block_e8m0_qwen3_moe", fp8, 8.0 + 8.0 * 4.0 / (48.0 * 64.0));
    let int4 = "attention BF16, experts INT4 packed, shared BF16, dense BF16, head BF16";
    check("int4_pack_deepseek_v3", int4, 4.5 + 64.0 / 2048.0);
    let mixed = "attention FP8 per channel, experts BF16 and FP8 per channel, \
                 shared FP8 per channel, dense FP8 per channel, head BF16";
    check("fp8_channel_glm4_moe", mixed, 9.137);
    check("mxfp4_gpt_oss", "attention BF16, experts MXFP4, head BF16", 4.411);
    let plain = Checkpoint::open(&folder("../parity/mixtral")).expect("opens");
    assert_eq!(plain.summary().storage, None);
}
