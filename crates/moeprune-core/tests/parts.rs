//! What each kind of part lists.

use moeprune_core::{
    Activation, AttentionSpec, FeedForward, GroupedAttention, LayerSpec, LayerTensor, LinearId,
    MlpProjection, MlpSpec, ModelSpec, MoeInput, MoeSpec, NormWeights, OpaqueRouter, OpaqueTensor,
    ParameterCounts, Part, PartName, RouterSpec, Score, ScoredRouter, SharedSpec,
};
use proptest::prelude::*;

const HIDDEN: usize = 8;

/// `name [shape] axis`, and `*` where the unstructured stage may zero.
fn shown(part: &Part) -> String {
    let axis = part.expert_axis.map_or(String::new(), |axis| format!(" by {axis}"));
    let id = part.id.to_string();
    let name = id.strip_prefix("layer 5 ").unwrap_or(&id);
    format!("{name} {:?}{axis}{}", part.shape, if part.prunable { " *" } else { "" })
}

#[track_caller]
fn check(parts: Vec<Part>, expected: &[&str]) {
    assert_eq!(parts.iter().map(shown).collect::<Vec<_>>(), expected);
}

fn grouped() -> GroupedAttention {
    GroupedAttention::new(4, 2, 3, 1e4)
}

fn named(text: &str) -> PartName {
    PartName::parse(text).unwrap()
}

#[test]
fn attention() {
    check(
        AttentionSpec::Grouped(grouped()).parts(5, HIDDEN),
        &[
            "attention.query [12, 8] *",
            "attention.key [6, 8] *",
            "attention.value [6, 8] *",
            "attention.output [8, 12] *",
        ],
    );
    let matrix = LayerTensor::Linear(LinearId::Named(named("attention.kv_a")));
    let norm = LayerTensor::Named(named("attention.kv_norm"));
    let tensor =
        |id, shape: &[usize]| OpaqueTensor { id, shape: shape.to_vec(), expert_axis: None };
    check(
        AttentionSpec::Opaque(vec![tensor(matrix, &[7, 8]), tensor(norm, &[7])]).parts(5, HIDDEN),
        &["attention.kv_a [7, 8] *", "attention.kv_norm [7]"],
    );
}

#[test]
fn routers() {
    check(RouterSpec::softmax(true).parts(5, HIDDEN, 4), &["router [4, 8] by 0"]);
    let scored = ScoredRouter {
        score: Score::Sigmoid,
        bias: true,
        correction_bias: true,
        expert_scale: true,
        ..ScoredRouter::softmax(true)
    };
    check(
        RouterSpec::Scored(scored).parts(5, HIDDEN, 4),
        &[
            "router [4, 8] by 0",
            "router bias [4] by 0",
            "router correction bias [4] by 0",
            "scale of the experts [4] by 0",
        ],
    );
    let id = LayerTensor::Named(named("router.bias"));
    let opaque = OpaqueTensor { id, shape: vec![1, 0], expert_axis: Some(1) };
    check(
        RouterSpec::Opaque(OpaqueRouter { tensors: vec![opaque] }).parts(5, HIDDEN, 4),
        &["router [4, 8] by 0", "router.bias [1, 4] by 1"],
    );
}

#[test]
fn mlps() {
    check(
        MlpSpec::gated(6).parts(5, HIDDEN, |p| LinearId::Expert(2, p)),
        &["expert.2.gate [6, 8] *", "expert.2.up [6, 8] *", "expert.2.down [8, 6] *"],
    );
    let plain = MlpSpec { gated: false, biases: true, activation: Activation::Opaque, inner: 6 };
    check(
        plain.parts(5, HIDDEN, LinearId::Dense),
        &["dense.up [6, 8] *", "dense.up bias [6]", "dense.down [8, 6] *", "dense.down bias [8]"],
    );
}

fn model(experts: usize, shared: usize, residual: bool, dense: bool) -> ModelSpec {
    let moe = MoeSpec {
        experts,
        top_k: 1,
        router: RouterSpec::softmax(true),
        expert: MlpSpec::gated(6),
        shared: vec![SharedSpec { mlp: MlpSpec::gated(5), gate: true }; shared],
        residual: residual.then(|| MlpSpec::gated(HIDDEN)),
        input: MoeInput::AfterAttention,
    };
    let layer = |feed_forward| LayerSpec {
        attention: AttentionSpec::Grouped(grouped()),
        feed_forward,
        other: Vec::new(),
    };
    let mut layers = vec![layer(FeedForward::Moe(moe))];
    if dense {
        layers.push(layer(FeedForward::Dense(MlpSpec::gated(9))));
    }
    ModelSpec {
        family: "test".into(),
        hidden: HIDDEN,
        vocab: 11,
        max_positions: 16,
        norm_eps: 1e-5,
        norm_weights: NormWeights::Factor,
        tied_embeddings: !residual,
        layers,
        extra: None,
    }
}

#[test]
fn a_layer_in_the_order_it_is_listed() {
    let parts = model(2, 1, true, false).layer_parts(0);
    let names: Vec<String> = parts.iter().map(|part| part.id.to_string()).collect();
    let linears = [
        "attention.query",
        "attention.key",
        "attention.value",
        "attention.output",
        "router",
        "residual.gate",
        "residual.up",
        "residual.down",
        "shared.0.gate",
        "shared.0.up",
        "shared.0.down",
        "expert.0.gate",
        "expert.0.up",
        "expert.0.down",
        "expert.1.gate",
        "expert.1.up",
        "expert.1.down",
    ];
    let expected = ["input norm", "post-attention norm", "residual norm"]
        .into_iter()
        .chain(linears)
        .chain(["gate of shared expert 0"])
        .map(|name| format!("layer 0 {name}"));
    assert_eq!(names, expected.collect::<Vec<_>>());
    let listed = model(2, 1, true, false).linears(0);
    assert_eq!(listed.iter().map(|l| l.id.to_string()).collect::<Vec<_>>(), linears);
    assert!(model(2, 1, true, false).layer_parts(1).is_empty());
}

proptest! {
    /// The counts, from shapes written out.
    #[test]
    fn counts_are_those_of_the_shapes(
        experts in 1usize..9,
        shared in 0usize..3,
        residual: bool,
        dense: bool,
    ) {
        let spec = model(experts, shared, residual, dense);
        let h = HIDDEN as u64;
        let layers = 1 + u64::from(dense);
        let attention = layers * 2 * (12 + 6) * h;
        let of_experts = experts as u64 * 3 * 6 * h;
        let mlps = shared as u64 * 3 * 5 * h + u64::from(residual) * 3 * h * h
            + u64::from(dense) * 3 * 9 * h;
        let linears = attention + of_experts + mlps;
        let norms = (2 * layers + u64::from(residual) + 1) * h;
        let tables = (1 + u64::from(residual)) * 11 * h;
        let all = linears + experts as u64 * h + shared as u64 * h + norms + tables;
        let expected = ParameterCounts { experts: of_experts, linears, all };
        prop_assert_eq!(ParameterCounts::of(&spec), expected);
    }

    #[test]
    fn every_part_is_found_by_its_id(experts in 1usize..9, shared in 0usize..3, dense: bool) {
        let spec = model(experts, shared, true, dense);
        for part in spec.parts() {
            prop_assert_eq!(spec.part(part.id), Some(part));
        }
        let beyond = moeprune_core::TensorId::linear(0, LinearId::Expert(experts, MlpProjection::Up));
        prop_assert_eq!(spec.part(beyond), None);
    }

    #[test]
    fn part_names_are_checked(text in "[a-c_.A\u{e9}]{0,50}") {
        let good = text.contains('.') && text.len() <= PartName::MAX
            && text.split('.').all(|word| {
                !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            });
        let parsed = PartName::parse(&text);
        prop_assert_eq!(parsed.is_ok(), good);
        if let Ok(name) = parsed {
            prop_assert_eq!(name.as_str(), text);
        }
    }
}
