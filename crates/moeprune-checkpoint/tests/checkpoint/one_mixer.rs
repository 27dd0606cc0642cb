//! Layers that have one mixer, as configs of Nemotron-H say.

use moeprune_core::{AttentionSpec, FeedForward, Mamba2};

use crate::fixture::{Model, check_refused, parity};

/// A copy with the config that its publisher wrote, in which one text stands in place of another.
#[track_caller]
fn edited(from: &str, to: &str) -> Model {
    let model = Model::copy_of("nemotron_h");
    let hub =
        std::fs::read_to_string(parity("nemotron_h").join("config.hub.json")).expect("is there");
    assert!(hub.contains(from), "{from}");
    model.edit_text("config.json", |_| hub.replacen(from, to, 1));
    model
}

#[track_caller]
fn check(from: &str, to: &str, expected: &str) {
    check_refused(edited(from, to).open(), &[expected]);
}

#[track_caller]
fn mamba(from: &str, to: &str) -> Mamba2 {
    let model = edited(from, to).open().unwrap_or_else(|error| panic!("{error}"));
    match &model.spec().layers[0].attention {
        AttentionSpec::Mamba2(mamba) => mamba.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_layer_has_one() {
    let model = edited("", "").open().unwrap_or_else(|error| panic!("{error}"));
    let shown: String = (model.spec().layers.iter())
        .map(|layer| match (&layer.attention, &layer.feed_forward) {
            (AttentionSpec::Mamba2(_), FeedForward::None) => 'M',
            (AttentionSpec::Grouped(_), FeedForward::None) => '*',
            (AttentionSpec::None, FeedForward::Moe(_)) => 'E',
            (AttentionSpec::None, FeedForward::Dense(_)) => '-',
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shown, "MEM*E-");
}

#[test]
fn lists_and_patterns() {
    check("\"MEM*E-\"", "\"MEM*E\"", "`num_hidden_layers` is 6, but mixers of 5 layers are listed");
    check("\"MEM*E-\"", "\"MEM*EE\"", "layer 5");
    check("\"MEM*E-\"", "\"MEM*EX\"", "layer 5 is `X`");
    check(
        "\"num_hidden_layers\": 6",
        "\"layers_block_type\": [\"mamba\", \"moe\", \"mamba\", \"attention\", \"moe\", \"moe\"]",
        "`hybrid_override_pattern` say different things",
    );
}

#[test]
fn what_changes_the_arithmetic() {
    check("\"mlp_hidden_act\": \"relu2\"", "\"mlp_hidden_act\": \"gelu\"", "only silu and relu2");
    check("\"mamba_hidden_act\": \"silu\"", "\"mamba_hidden_act\": \"relu\"", "Mamba-2");
    check("\"mamba_proj_bias\": false", "\"mamba_proj_bias\": true", "`mamba_proj_bias` is true");
    check("\"mlp_bias\": false", "\"mlp_bias\": true", "biases of MLPs");
    check("\"attention_bias\": false", "\"attention_bias\": true", "biases of attention");
    check("\"residual_in_fp32\": false", "\"residual_in_fp32\": true", "residual");
    check("\"sliding_window\": null", "\"sliding_window\": 8", "sliding windows");
    check(
        "\"use_bias\": false",
        "\"use_bias\": true",
        "there is no `mixer.in_proj.bias` in layer 0",
    );
    check("\"use_conv_bias\": true", "\"use_conv_bias\": false", "there is a `mixer.conv1d.bias`");
    check("\"Infinity\"", "\"-Infinity\"", "`time_step_limit`");
    check("\"time_step_min\": 0.001", "\"time_step_min\": -1.0", "a number that is not negative");
    check("\"n_groups\": 2", "\"n_groups\": 4", "not a multiple of `n_groups`");
    check(
        "\"moe_latent_size\": null",
        "\"moe_latent_size\": 16",
        "`backbone.layers.1.mixer.fc2_latent_proj.weight`: is missing",
    );
}

/// As Python writes it, and as newer libraries do.
#[test]
fn infinite_limits() {
    let said = mamba("{\n      \"__float__\": \"Infinity\"\n    }", "Infinity");
    assert_eq!(said.least_step, 0.001);
    check("{\n      \"__float__\": \"Infinity\"\n    }", "0.1", "limited from above");
    assert_eq!(mamba("\"time_step_min\": 0.001", "\"time_step_min\": 0.0").least_step, 0.0);
}
