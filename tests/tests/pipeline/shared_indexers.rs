//! Layers that see the keys which a layer before them selected.

use std::{fs, path::Path};

use moeprune::{
    Calibration,
    checkpoint::{Checkpoint, verify},
    engine::warnings_of_text,
};
use moeprune_model::{
    Compute, Embedding, GenerationOptions, LanguageModel, Layer, LayerCache, NoSink,
};
use safetensors::{SafeTensors, tensor::TensorView};

use crate::scratch::{copy, recipe, run, tokens};

const SOURCE: &str = "model.layers.0.self_attn.";
const TARGET: &str = "model.layers.1.self_attn.";

/// GLM-5 whose layer 1 has layer 0's indexer, or if `shared` none. Where layer 0 `adds` nothing, both read
/// the same and select the same keys.
fn model(directory: &Path, shared: bool, top_k: usize, adds: bool) -> Checkpoint {
    let model = copy("parity/glm_moe_dsa", directory);
    let path = model.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let of_indexer = |name: &str| {
        ["q_a_proj.", "q_a_layernorm.", "indexer."].iter().any(|part| name.starts_with(part))
    };
    let mut tensors: Vec<(String, TensorView<'_>)> = Vec::new();
    let zeros = vec![0_u8; 64 * 64 * 2];
    for (name, view) in stored.tensors() {
        let source = match name.strip_prefix(TARGET).filter(|rest| of_indexer(rest)) {
            Some(rest) if shared && rest.starts_with("indexer.") => continue,
            Some(rest) => format!("{SOURCE}{rest}"),
            None => name.replace("layers.1.input_layernorm", "layers.0.input_layernorm"),
        };
        let ends = ["layers.0.self_attn.o_proj.weight", "layers.0.mlp.down_proj.weight"];
        let view = match !adds && ends.iter().any(|end| name.ends_with(end)) {
            true => {
                let (shape, len) = (view.shape().to_vec(), view.data().len());
                TensorView::new(view.dtype(), shape, &zeros[..len]).unwrap()
            }
            false => stored.tensor(&source).unwrap(),
        };
        tensors.push((name, view));
    }
    fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let config = model.join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["index_topk"] = top_k.into();
    json["num_nextn_predict_layers"] = 1.into();
    if shared {
        json["indexer_types"] = serde_json::json!(["full", "shared", "full"]);
    }
    fs::write(&config, serde_json::to_string_pretty(&json).unwrap()).unwrap();
    Checkpoint::open(&model).unwrap()
}

fn sequences() -> Vec<Vec<u32>> {
    [24, 9, 5].map(|len| (0..len).map(|t| (t * t + 7 * t + len) % 128).collect()).to_vec()
}

/// Logits of the sequences, and what follows the first.
fn outcome(source: &Checkpoint) -> (Vec<Vec<f32>>, Vec<u32>) {
    let model = LanguageModel::load(source, source.spec(), &Compute::cpu()).unwrap();
    let logits = model.logits(&sequences()).unwrap();
    let logits = logits.iter().map(|l| l.flatten_all().unwrap().to_vec1().unwrap()).collect();
    let options = GenerationOptions { max_new_tokens: 6, ..GenerationOptions::default() };
    let prompt = sequences().remove(2);
    let next = model.generate(std::slice::from_ref(&prompt), &options, &mut |_, _| false).unwrap();
    // A token at a time is the whole sequence again.
    let mut whole = prompt.clone();
    for token in &next[0] {
        let logits = model.logits(std::slice::from_ref(&whole)).unwrap().remove(0);
        let last: Vec<f32> = logits.get(whole.len() - 1).unwrap().to_vec1().unwrap();
        let best = (0..last.len()).rev().max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
        assert_eq!(best as u32, *token);
        whole.push(*token);
    }
    (logits, next.into_iter().next().unwrap())
}

#[test]
fn what_is_taken_over_is_what_would_be_selected() {
    let places = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let own = outcome(&model(places[0].path(), false, 6, false));
    let shared = outcome(&model(places[1].path(), true, 6, false));
    assert!(own == shared, "another choice");
    let all = outcome(&model(places[2].path(), true, 64, false));
    assert_ne!(all.0[0], shared.0[0], "the choice does not matter");
    assert_eq!(all.0[2], shared.0[2], "five keys are all selected");
}

#[test]
fn layer_by_layer_it_is_handed_on_or_missed() {
    let scratch = tempfile::tempdir().unwrap();
    let source = model(scratch.path(), true, 6, true);
    let (spec, compute) = (source.spec(), Compute::cpu());
    assert_eq!(spec.longest_streamed(), 6);
    let embedding = Embedding::load(&source, spec, &compute).unwrap();
    let layers: Vec<Layer> =
        (0..2).map(|layer| Layer::load(&source, spec, layer, &compute).unwrap()).collect();
    assert_eq!([&layers[0], &layers[1]].map(Layer::takes_over_keys), [false, true]);
    let embed = |len: usize| {
        let ids: Vec<u32> = (0..len as u32).collect();
        embedding.embed(&ids).unwrap().reshape((1, len, spec.hidden)).unwrap()
    };
    assert!(layers[1].forward(&embed(6), 0, None, &mut NoSink).is_ok());
    let message = layers[1].forward(&embed(7), 0, None, &mut NoSink).unwrap_err().to_string();
    let expected =
        "layer 1 sees the keys that the layer before it selected (indexer kind `shared`)";
    assert!(message.starts_with(expected), "{message}");
    let mut caches = [LayerCache::new(1), LayerCache::new(1)];
    for (start, len) in [(0, 9), (9, 1)] {
        let [first, second] = &mut caches;
        let hidden = layers[0].forward(&embed(len), start, Some(first), &mut NoSink).unwrap();
        second.see_the_keys_of(first).unwrap();
        layers[1].forward(&hidden, start, Some(second), &mut NoSink).unwrap();
    }
    // What was handed on is of the call before.
    let stale = layers[1].forward(&embed(1), 10, Some(&mut caches[1]), &mut NoSink);
    assert!(stale.unwrap_err().to_string().starts_with(expected));
}

#[test]
fn blocks_are_as_long_as_needs_no_choice() {
    let scratch = tempfile::tempdir().unwrap();
    let source = model(scratch.path(), true, 6, true);
    let (text, recipe) = (tokens(scratch.path(), 8, 64, 128), recipe(0.4, 0.2));
    let calibration = Calibration::read(&text, &source, &recipe).unwrap();
    let notes = warnings_of_text(&calibration.tag, source.spec());
    let note = &notes[0];
    assert!(note.contains("blocks have 6 tokens, not the 64 that were asked for"), "{note}");
    assert_eq!(calibration.blocks.sequence_len(), 6);
    let out = scratch.path().join("out");
    run(source.dir(), &out, &text, &recipe).unwrap();
    let verified = verify(&out, &source, None).unwrap();
    assert!(verified.passed(), "{:?}", verified.failures().collect::<Vec<_>>());
}
