//! Families whose kinds nothing runs.

use moeprune_checkpoint::{Checkpoint, Error, Family};
use moeprune_core::{
    AttentionSpec, CorrectionBias, LayerTensor, LinearId, ParameterCounts, RouterSpec, Score,
    ScoredRouter, TensorId,
};

use crate::fixture::{Model, RawTensor, check_refused, parity};

const OPAQUE: &str = include_str!("../families/opaque.toml");

fn vector(name: String, len: usize, value: u8) -> RawTensor {
    RawTensor { name, dtype: "F32".into(), shape: vec![len], bytes: vec![value; 4 * len] }
}

/// Mixtral with the tensors that the family adds.
fn model() -> Model {
    let model = Model::copy_of("mixtral");
    model.edit_tensors("model.safetensors", |tensors| {
        for layer in 0..3 {
            let name = |rest: &str| format!("model.layers.{layer}.{rest}");
            tensors.push(vector(name("self_attn.q_norm.weight"), 16, 1));
            tensors.push(vector(name("block_sparse_moe.e_score_correction_bias"), 8, 2));
        }
        tensors.push(vector("model.layers.1.self_attn.q_proj.bias".into(), 64, 3));
        tensors.push(vector("model.layers.3.anything".into(), 5, 4));
    });
    model.edit_text("config.json", |t| t.replacen('{', "{\n  \"num_nextn_predict_layers\": 1,", 1));
    model
}

fn open(model: &Model, descriptor: &str) -> Result<Checkpoint, Error> {
    Checkpoint::open_with(&model.dir, Some(Family::from_toml(descriptor)?))
}

#[test]
fn it_opens_and_counts_what_is_there() {
    let checkpoint = open(&model(), OPAQUE).expect("opens");
    let spec = checkpoint.spec();
    let extra = spec.extra.as_ref().map(|extra| extra.layers.len());
    assert_eq!((spec.layers.len(), extra), (3, Some(0)), "nothing in layer 3 is known");
    let tensors = |layer: usize| match &spec.layers[layer].attention {
        AttentionSpec::Opaque(tensors) => tensors.len(),
        _ => 0,
    };
    assert_eq!([tensors(0), tensors(1), tensors(2)], [5, 6, 5]);
    let router = &spec.layers[0].moe().expect("has experts").router;
    let expected = ScoredRouter {
        score: Score::Sigmoid,
        correction_bias: CorrectionBias::Vector,
        ..ScoredRouter::softmax(true)
    };
    assert_eq!(*router, RouterSpec::Scored(expected));
    let bias = spec.part(TensorId::Layer(2, LayerTensor::CorrectionBias)).expect("is there");
    assert_eq!((bias.shape, bias.expert_axis, bias.prunable), (vec![8], Some(0), false));

    let plain = Checkpoint::open(&parity("mixtral")).expect("opens");
    let (counts, without) = (ParameterCounts::of(spec), ParameterCounts::of(plain.spec()));
    assert_eq!((counts.linears, counts.experts), (without.linears, without.experts));
    assert_eq!(counts.all, without.all + 3 * (16 + 8) + 64);
    let summary = checkpoint.summary();
    let elements = |role: &str| {
        summary.roles.iter().find(|r| r.role == role).map_or(0, |found| found.elements)
    };
    assert_eq!((elements("other"), elements("extra")), (0, 5));
    assert_eq!(elements("attention"), 3 * (64 * 64 * 2 + 32 * 64 * 2 + 16) + 64);
    assert_eq!(elements("router"), 3 * (8 * 64 + 8));
}

#[test]
fn a_config_says_whether_extra_layers_are_there() {
    let checkpoint = open(&model(), OPAQUE).expect("opens");
    let extra: Vec<&str> = (checkpoint.tensors().filter(|tensor| checkpoint.is_extra(tensor)))
        .map(|tensor| tensor.name.as_str())
        .collect();
    assert_eq!(extra, ["model.layers.3.anything"]);
    let check = |pruned: &moeprune_core::ModelSpec, count: usize| {
        let config = checkpoint.config_of(pruned, &|_, expert| Some(expert)).expect("rewrites");
        assert!(config.contains(&format!("\"num_nextn_predict_layers\": {count},")), "{config}");
    };
    check(checkpoint.spec(), 1);
    check(&moeprune_core::ModelSpec { extra: None, ..checkpoint.spec().clone() }, 0);
}

#[test]
fn names_of_opaque_matrices() {
    let checkpoint = open(&model(), OPAQUE).expect("opens");
    let name = |linear: &str| {
        let id: LinearId = linear.parse().expect("is a name");
        checkpoint.name_of(TensorId::linear(1, id)).expect("has one")
    };
    assert_eq!(name("attention.query"), "model.layers.1.self_attn.q_proj.weight");
    assert_eq!(name("attention.o_proj"), "model.layers.1.self_attn.o_proj.weight");
}

#[track_caller]
fn check(from: &str, to: &str, expected: &[&str]) {
    assert!(OPAQUE.contains(from), "{from}");
    check_refused(open(&model(), &OPAQUE.replacen(from, to, 1)), expected);
}

#[test]
fn what_does_not_fit_is_refused() {
    check(", optional = true", "", &["model.layers.0.self_attn.q_proj.bias", "is missing"]);
    check("optional = true", "optoinal = true", &["unknown field `optoinal`"]);
    check("query_norm = ", "Query-Norm = ", &["`Query-Norm` cannot name a tensor"]);
    check("q_norm.weight", "k_norm.weight", &["q_norm.weight", "knows no such part"]);
    let matrix = "query = \"self_attn.q_norm.weight\"\nqn = ";
    check("query = ", matrix, &["given twice"]);
    check("[attention.tensors]\nquery_norm = ", "query_norm = ", &["`matrices` lists", "[16]"]);
    check("kind = \"sigmoid\"", "kind = \"opaque\"", &["unknown field `renormalize`"]);
    check("policy = \"keep\"", "policy = \"halve\"", &["halve", "`keep`", "`drop`"]);
    let last = OPAQUE.find("[extra]").expect("has one");
    check(&OPAQUE[last..], "", &["model.layers.3.anything", "knows no such part"]);
}

#[test]
fn an_opaque_router_is_cut_where_its_tensors_say() {
    let descriptor =
        OPAQUE.replace("kind = \"sigmoid\"\nrenormalize = \"always\"", "kind = \"opaque\"");
    let descriptor = descriptor.replace(
        "correction_bias = \"block_sparse_moe.e_score_correction_bias\"",
        "bias = { name = \"block_sparse_moe.e_score_correction_bias\", expert_axis = 0 }",
    );
    let checkpoint = open(&model(), &descriptor).expect("opens");
    let parts = checkpoint.spec().layer_parts(0);
    let cut: Vec<String> = parts
        .iter()
        .filter(|part| part.expert_axis.is_some())
        .map(|part| format!("{} {:?}", part.id, part.shape_with(6)))
        .collect();
    assert_eq!(cut, ["layer 0 router [6, 64]", "layer 0 router.bias [6]"]);
}
