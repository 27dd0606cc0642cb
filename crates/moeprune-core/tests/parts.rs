//! What each kind of part lists.

use moeprune_core::{
    Activation, AttentionBiases, AttentionSpec, CorrectionBias, DeltaProjections, FeedForward,
    GatedDeltaNet, GroupedAttention, KimiDeltaAttention, LatentAttention, LayerNorms, LayerSpec,
    LayerTensor, LinearId, Mamba2, MlpProjection, MlpSpec, ModelSpec, MoeInput, MoeSpec,
    Multipliers, NormWeights, OpaqueRouter, OpaqueTensor, ParameterCounts, Part, PartName,
    QueryKeyNorm, RouterSpec, SandwichNorms, Score, ScoredRouter, SharedSpec, ShortConvolution,
    SparseMixer,
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
    let tensor = |id, shape: &[usize]| OpaqueTensor {
        id,
        shape: shape.to_vec(),
        expert_axis: None,
        form: None,
    };
    check(
        AttentionSpec::Opaque(vec![tensor(matrix, &[7, 8]), tensor(norm, &[7])]).parts(5, HIDDEN),
        &["attention.kv_a [7, 8] *", "attention.kv_norm [7]"],
    );
}

#[test]
fn attention_with_more() {
    let more = GroupedAttention {
        biases: AttentionBiases { query_key_value: true, output: true },
        norm: Some(QueryKeyNorm::PerHead),
        ..grouped()
    };
    let expected = |query_norm, key_norm| {
        [
            "attention.query [12, 8] *",
            "attention.key [6, 8] *",
            "attention.value [6, 8] *",
            "attention.output [8, 12] *",
            "attention.query bias [12]",
            "attention.key bias [6]",
            "attention.value bias [6]",
            "attention.output bias [8]",
            query_norm,
            key_norm,
        ]
    };
    let names = expected("attention.query_norm [3]", "attention.key_norm [3]");
    check(AttentionSpec::Grouped(more.clone()).parts(5, HIDDEN), &names);
    let wide = GroupedAttention { norm: Some(QueryKeyNorm::FullWidth), ..more };
    let names = expected("attention.query_norm [12]", "attention.key_norm [6]");
    check(AttentionSpec::Grouped(wide).parts(5, HIDDEN), &names);
    let sinks = AttentionSpec::Grouped(GroupedAttention { sinks: true, ..grouped() });
    check(sinks.parts(5, HIDDEN)[4..].to_vec(), &["attention.sinks [4]"]);
}

#[test]
fn norms_and_heads_with_biases() {
    let model = ModelSpec {
        norm_weights: NormWeights::WithBias,
        head_bias: true,
        ..model(2, 0, false, true)
    };
    let biases: Vec<String> =
        model.parts().iter().map(shown).filter(|name| name.contains("bias")).collect();
    let of_layers = |layer| {
        ["input", "post-attention"].map(|norm| format!("layer {layer} {norm} norm bias [8]"))
    };
    let mut expected = vec!["final norm bias [8]".to_owned(), "head bias [11]".to_owned()];
    expected.extend((0..model.layers.len()).flat_map(of_layers));
    assert_eq!(biases, expected);
    for part in model.parts() {
        assert_eq!(model.part(part.id), Some(part));
    }
}

#[test]
fn attention_with_a_gate() {
    let gated = GroupedAttention { output_gate: true, ..grouped() };
    let biases = AttentionBiases { query_key_value: true, output: false };
    let parts = AttentionSpec::Grouped(GroupedAttention { biases, ..gated }).parts(5, HIDDEN);
    check(parts[..1].to_vec(), &["attention.query [24, 8] *"]);
    check(parts[4..5].to_vec(), &["attention.query bias [24]"]);
}

#[test]
fn gated_delta_nets() {
    let net = |projections| {
        AttentionSpec::GatedDelta(GatedDeltaNet {
            key_heads: 2,
            value_heads: 4,
            key_dim: 3,
            value_dim: 5,
            kernel: 4,
            projections,
        })
    };
    let rest = [
        "attention.delta_output [8, 20] *",
        "attention.convolution [32, 1, 4]",
        "attention.log_decay [4]",
        "attention.decay_bias [4]",
        "attention.output_norm [5]",
    ];
    let parts = net(DeltaProjections::ByKeyHead).parts(5, HIDDEN);
    assert_eq!(parts[1].reads, Some(GatedDeltaNet::QKVZ));
    let first = ["attention.qkvz [52, 8] *", "attention.ba [8, 8] *"];
    check(parts, &[&first[..], &rest[..]].concat());
    let parts = net(DeltaProjections::Apart).parts(5, HIDDEN);
    assert_eq!(parts[3].reads, Some(GatedDeltaNet::QKV));
    let first = [
        "attention.qkv [32, 8] *",
        "attention.z [20, 8] *",
        "attention.b [4, 8] *",
        "attention.a [4, 8] *",
    ];
    check(parts, &[&first[..], &rest[..]].concat());
}

#[test]
fn kimi_delta_attention() {
    let delta = KimiDeltaAttention { heads: 2, head_dim: 3, kernel: 4 };
    let parts = AttentionSpec::KimiDelta(delta).parts(5, HIDDEN);
    assert_eq!(parts[5].reads, Some(KimiDeltaAttention::QUERY));
    assert_eq!(parts[6].reads, Some(KimiDeltaAttention::DECAY_B));
    check(
        parts,
        &[
            "attention.query [6, 8] *",
            "attention.key [6, 8] *",
            "attention.value [6, 8] *",
            "attention.decay_a [3, 8] *",
            "attention.gate_a [3, 8] *",
            "attention.beta [2, 8] *",
            "attention.decay_b [6, 3] *",
            "attention.gate_b [6, 3] *",
            "attention.output [8, 6] *",
            "attention.log_decay [1, 1, 2, 1]",
            "attention.decay_bias [6]",
            "attention.output_norm [3]",
            "attention.query_convolution [6, 1, 4]",
            "attention.key_convolution [6, 1, 4]",
            "attention.value_convolution [6, 1, 4]",
        ],
    );
}

#[test]
fn short_convolutions() {
    let convolution = ShortConvolution { kernel: 3, biases: true };
    check(
        AttentionSpec::ShortConvolution(convolution).parts(5, HIDDEN),
        &[
            "attention.convolution_input [24, 8] *",
            "attention.convolution_output [8, 8] *",
            "attention.convolution [8, 1, 3]",
            "attention.convolution_input bias [24]",
            "attention.convolution_output bias [8]",
            "attention.convolution_bias [8]",
        ],
    );
}

#[test]
fn mamba() {
    let mamba = Mamba2 {
        heads: 6,
        head_dim: 2,
        groups: 3,
        state: 5,
        kernel: 4,
        least_step: 0.0,
        convolution_bias: true,
        biases: true,
    };
    check(
        AttentionSpec::Mamba2(mamba).parts(5, HIDDEN),
        &[
            "attention.mamba_input [60, 8] *",
            "attention.mamba_output [8, 12] *",
            "attention.convolution [42, 1, 4]",
            "attention.log_decay [6]",
            "attention.step_bias [6]",
            "attention.skip [6]",
            "attention.output_norm [12]",
            "attention.convolution_bias [42]",
            "attention.mamba_input bias [60]",
            "attention.mamba_output bias [8]",
        ],
    );
}

/// A layer with one block has one norm.
#[test]
fn layers_with_one_block() {
    let check_layer = |change: &dyn Fn(&mut LayerSpec), bias: bool, expected: &[&str]| {
        let mut model = model(1, 0, false, true);
        change(&mut model.layers[1]);
        if bias {
            model.norm_weights = NormWeights::WithBias;
        }
        let parts: Vec<String> = model.layer_parts(1).iter().map(shown).collect();
        let parts: Vec<&str> = parts.iter().map(|part| &part["layer 1 ".len()..]).collect();
        assert_eq!(parts, expected);
    };
    check_layer(
        &|layer| layer.attention = AttentionSpec::None,
        true,
        &[
            "input norm [8]",
            "input norm bias [8]",
            "dense.gate [9, 8] *",
            "dense.up [9, 8] *",
            "dense.down [8, 9] *",
        ],
    );
    check_layer(
        &|layer| layer.feed_forward = FeedForward::None,
        false,
        &[
            "input norm [8]",
            "attention.query [12, 8] *",
            "attention.key [6, 8] *",
            "attention.value [6, 8] *",
            "attention.output [8, 12] *",
        ],
    );
}

#[test]
fn experts_of_a_latent_width() {
    let mut model = model(2, 0, false, false);
    let FeedForward::Moe(moe) = &mut model.layers[0].feed_forward else { panic!("has experts") };
    (moe.latent, moe.expert.gated) = (Some(3), false);
    check(
        moe.trunk_parts(5, HIDDEN),
        &["router [2, 8] by 0", "experts.to_latent [3, 8] *", "experts.from_latent [8, 3] *"],
    );
    check(moe.expert_parts(5, HIDDEN, 1), &["expert.1.up [6, 3] *", "expert.1.down [3, 6] *"]);
    for linear in [MoeSpec::TO_LATENT, MoeSpec::FROM_LATENT] {
        assert_eq!(linear.to_string().parse::<LinearId>().unwrap(), linear);
    }
}

#[test]
fn latent_attention() {
    let latent = LatentAttention {
        heads: 2,
        query_rank: Some(7),
        kv_rank: 5,
        nope_dim: 3,
        rope_dim: 4,
        value_dim: 6,
        rotary: None,
        biases: true,
        indexer: None,
    };
    let parts = AttentionSpec::Latent(latent.clone()).parts(5, HIDDEN);
    let reads = parts.iter().find(|part| shown(part).starts_with("attention.kv_a ")).unwrap().reads;
    assert_eq!(reads, Some(LatentAttention::Q_A));
    check(
        parts,
        &[
            "attention.q_a [7, 8] *",
            "attention.query_norm [7]",
            "attention.q_b [14, 7] *",
            "attention.kv_a [9, 8] *",
            "attention.kv_norm [5]",
            "attention.kv_b [18, 5] *",
            "attention.output [8, 12] *",
            "attention.q_a bias [7]",
            "attention.kv_a bias [9]",
            "attention.output bias [8]",
        ],
    );
    let direct = LatentAttention { query_rank: None, biases: false, ..latent };
    let parts = AttentionSpec::Latent(direct).parts(5, HIDDEN);
    assert_eq!(parts[1].reads, Some(LatentAttention::QUERY));
    check(
        parts,
        &[
            "attention.query [14, 8] *",
            "attention.kv_a [9, 8] *",
            "attention.kv_norm [5]",
            "attention.kv_b [18, 5] *",
            "attention.output [8, 12] *",
        ],
    );
}

#[test]
fn routers() {
    check(RouterSpec::softmax(true).parts(5, HIDDEN, 4), &["router [4, 8] by 0"]);
    let scored = ScoredRouter {
        score: Score::Sigmoid,
        bias: true,
        correction_bias: CorrectionBias::Vector,
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
    let row = ScoredRouter { correction_bias: CorrectionBias::Row, ..ScoredRouter::softmax(true) };
    check(
        RouterSpec::Scored(row).parts(5, HIDDEN, 4),
        &["router [4, 8] by 0", "router correction bias [1, 4] by 1"],
    );
    let mixer = SparseMixer { jitter: 0.1 };
    check(RouterSpec::SparseMixer(mixer).parts(5, HIDDEN, 4), &["router [4, 8] by 0"]);
    let id = LayerTensor::Named(named("router.bias"));
    let opaque = OpaqueTensor { id, shape: vec![1, 0], expert_axis: Some(1), form: None };
    let opaque = RouterSpec::Opaque(OpaqueRouter { tensors: vec![opaque], groups: None });
    check(opaque.parts(5, HIDDEN, 4), &["router [4, 8] by 0", "router.bias [1, 4] by 1"]);
}

#[test]
fn norms_after_blocks() {
    let norms = |residual: bool, output_scale: bool| {
        let mut spec = model(2, 0, residual, false);
        spec.layers[0].norms = LayerNorms::Around(SandwichNorms { output_scale });
        let parts = spec.layer_parts(0).into_iter();
        let named = parts.filter(|part| part.id.to_string().contains("norm."));
        named.map(|part| shown(&part).replace("layer 0 norm.", "")).collect::<Vec<_>>()
    };
    assert_eq!(norms(false, false), ["attention_output [8]", "feed_forward_output [8]"]);
    let all = ["attention_output [8]", "experts_output [8]", "feed_forward_output [8]"];
    let more = ["output_scale [1]", "residual_output [8]"];
    assert_eq!(norms(true, true), [&all[..], &more].concat());
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
        opaque: Vec::new(),
        shared: vec![SharedSpec { mlp: MlpSpec::gated(5), gate: true }; shared],
        residual: residual.then(|| MlpSpec::gated(HIDDEN)),
        input: MoeInput::AfterAttention,
        latent: None,
    };
    let layer = |feed_forward| LayerSpec::new(AttentionSpec::Grouped(grouped()), feed_forward);
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
        head_bias: false,
        multipliers: Multipliers::default(),
        logit_cap: None,
        layers,
        extra: None,
        undecoded: None,
        undecoded_experts: false,
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
        prop_assert!(parsed.map_or(true, |name| name.as_str() == text));
    }
}
