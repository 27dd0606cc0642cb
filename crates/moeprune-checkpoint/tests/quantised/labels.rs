//! Configs that the tensors or other files contradict, and what is the same though it cannot be decoded.

use moeprune_checkpoint::verify;
use moeprune_core::{LinearId, TensorId};

use crate::{
    fixture::{Kept, Model, cut},
    quantised_models::names,
};

const BLOCKS: &str = "fp8_block_e8m0_qwen3_moe";

/// What is noted of a config that its tensors contradict.
#[test]
fn configs_that_tensors_contradict_are_noted() {
    let check = |name: &str, change: &dyn Fn(&mut serde_json::Value), expected: &[&str]| {
        let model = Model::copy_of(name);
        model.edit_config(|config| change(&mut config["quantization_config"]));
        let source = model.open().expect("opens");
        let notes = source.notes().filter(|note| note.starts_with("config.json says"));
        let notes: Vec<&str> = notes.collect();
        assert_eq!(notes.len(), usize::from(!expected.is_empty()), "{name}: {notes:?}");
        expected.iter().for_each(|part| assert!(notes[0].contains(part), "`{part}`: {notes:?}"));
    };
    for name in names() {
        check(&name, &|_| {}, &[]);
    }
    let gptq = "gptq_act_qwen3_moe";
    check(gptq, &|said| said["group_size"] = 16.into(), &["group_size", "16", "32"]);
    check(gptq, &|said| said["bits"] = 8.into(), &["8 bits", "they have 4"]);
    check("gptq_mixtral", &|said| said["checkpoint_format"] = "gptq_v2".into(), &["version 2"]);
    check(BLOCKS, &|said| said["quant_method"] = "gptq".into(), &["`quant_method` is gptq", "FP8"]);
    let weights = |said: &mut serde_json::Value, key: &str, value: serde_json::Value| {
        said["config_groups"]["group_0"]["weights"][key] = value;
    };
    let int4 = "int4_pack_asym_qwen3_moe";
    check(int4, &|said| weights(said, "num_bits", 8.into()), &["8 bits", "they have 4"]);
    check(int4, &|said| weights(said, "symmetric", true.into()), &["symmetric"]);
}

/// The label of zero points that a file beside the config has alone counts; one that differs is noted.
#[test]
fn files_beside_the_config() {
    let down = TensorId::linear(1, "expert.4.down".parse::<LinearId>().expect("is one"));
    let values = |in_config: &str, beside: &str| {
        let model = Model::copy_of("gptq_act_qwen3_moe");
        model.edit_config(|config| {
            let said = config["quantization_config"].as_object_mut().expect("is one");
            match in_config {
                "" => drop(said.remove("checkpoint_format")),
                label => drop(said.insert("checkpoint_format".to_owned(), label.into())),
            }
        });
        let file = model.dir.join("quantize_config.json");
        std::fs::remove_file(&file).expect("is there");
        if !beside.is_empty() {
            let text = format!("{{\"bits\": 4, \"checkpoint_format\": \"{beside}\"}}");
            std::fs::write(file, text).expect("writes");
        }
        let source = model.open().expect("opens");
        let weight = moeprune_core::TensorSource::weight(&source, down).expect("reads");
        (weight.to_f32(), source.notes().filter(|note| note.contains("quantize_config")).count())
    };
    let (first, second) = (values("gptq", ""), values("gptq_v2", ""));
    assert!(first != second);
    assert!(values("", "gptq_v2") == second);
    assert!(values("gptq", "gptq_v2") == (first.0, 1));
}

#[test]
fn what_cannot_be_decoded_and_is_the_same_passes() {
    let model = Model::copy_of(BLOCKS);
    model.edit_tensors(|tensors| {
        let scale = tensors.get_mut("model.layers.1.mlp.experts.2.up_proj.weight_scale_inv");
        scale.expect("is there").2[0] = 0xff;
    });
    let source = model.open().expect("opens");
    let out = model.root.path().join("out");
    cut(&source, &Kept::from([(0, vec![0, 1, 2]), (1, vec![0, 2, 3])]), &out);
    let report = verify(&out, &source, None).expect("reads");
    assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
}
