//! What rules of routers and of attention say.

use moeprune_core::{
    AttentionSpec, GateSide, GroupedAttention, QueryKeyNorm, QueryTemperature, RouterInput,
    RouterSpec, ScoredRouter, ValueSource,
};

/// What is as in most families is not said, so that hashes of rules stay what they were.
#[test]
fn rules_say_only_what_is_unusual() {
    let rule = |router: ScoredRouter| {
        serde_json::to_value(router)
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let usual = rule(ScoredRouter::softmax(true));
    assert!(!usual.iter().any(|key| ["input", "gates", "selects_logits"].contains(&&**key)));
    let unusual = ScoredRouter {
        input: RouterInput::ScaledStream,
        gates: GateSide::Input,
        selects_logits: true,
        ..ScoredRouter::softmax(true)
    };
    assert_eq!(rule(unusual).len(), usual.len() + 3);
    let parts = RouterSpec::Scored(unusual).parts(5, 8, 4);
    let shapes: Vec<_> = parts.iter().map(|part| (part.id.to_string(), &part.shape[..])).collect();
    let scale = "layer 5 router.input_scale".to_owned();
    assert_eq!(shapes, [("layer 5 router".to_owned(), &[4, 8][..]), (scale, &[8][..])]);
}

#[test]
fn queries_grow_with_the_position() {
    let temperature = QueryTemperature { scale: 0.5, floor: 4.0 };
    let at = |position: usize| temperature.at(position);
    assert_eq!([at(0), at(2)], [1.0, 1.0]);
    assert_eq!([at(3), at(6)], [1.0 + 0.5 * 2.0_f64.ln(); 2]);
    assert!((at(11) - (1.0 + 0.5 * 4.0_f64.ln())).abs() < 1e-12);
}

#[test]
fn what_needs_no_tensor() {
    let from_keys = AttentionSpec::Grouped(GroupedAttention {
        norm: Some(QueryKeyNorm::UnweightedAfterRotary),
        values: ValueSource::Keys,
        value_norm: true,
        ..GroupedAttention::new(4, 2, 3, 1e4)
    });
    let parts: Vec<_> = from_keys.parts(5, 8).iter().map(|part| part.id.to_string()).collect();
    let names = ["query", "key", "output"].map(|name| format!("layer 5 attention.{name}"));
    assert_eq!(parts, names);
}
