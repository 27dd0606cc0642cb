//! Rotary positions in the spellings that configs have.

use std::path::Path;

use super::*;

fn read(text: &str) -> Result<RotarySpec, String> {
    let form = RotaryForm {
        theta: Some(1e4),
        partial: Some(1.0),
        ignored: vec!["mrope_interleaved".to_owned()],
        ..RotaryForm::default()
    };
    let config = Config::of_text(Path::new("config.json"), text).expect("is an object");
    form.read(&config, 64, 4096).map_err(|error| error.to_string())
}

#[track_caller]
fn check(text: &str, expected: RotarySpec) {
    assert_eq!(read(text), Ok(expected), "{text}");
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    let message = read(text).expect_err(text);
    assert!(message.contains(expected), "{message}");
}

fn plain(theta: f64, dims: usize) -> RotarySpec {
    RotarySpec::plain(theta, dims)
}

fn with(scaling: RotaryScaling) -> RotarySpec {
    RotarySpec { scaling, ..plain(1e4, 64) }
}

#[test]
fn spellings_of_no_scaling() {
    for text in [
        r#"{}"#,
        r#"{"rope_scaling": null}"#,
        r#"{"rope_scaling": {}}"#,
        r#"{"rope_scaling": {"type": "default"}}"#,
        r#"{"rope_scaling": {"rope_type": "default", "factor": 1.0}}"#,
        r#"{"rope_scaling": {"factor": 1}}"#,
        r#"{"rope_scaling": {"mrope_interleaved": true}}"#,
        r#"{"rope_scaling": {"type": "linear", "factor": 1.0}}"#,
        r#"{"rope_scaling": {"type": "linear", "factor": "1.0"}}"#,
        r#"{"rope_scaling": {"type": null, "factor": null}}"#,
        r#"{"rope_scaling": {"type": ""}}"#,
        r#"{"rope_scaling": {"type": "default", "rope_type": "default"}}"#,
        r#"{"rope_scaling": null, "rope_parameters": {"rope_type": "default", "rope_theta": "10000"}}"#,
        r#"{"rope_scaling": {"type": "dynamic", "factor": 9}}"#,
        r#"{"rope_parameters": {"rope_type": "dynamic", "factor": "2.0", "rope_theta": 10000}}"#,
        r#"{"rope_parameters": {"rope_theta": 10000, "rope_type": "default"}}"#,
        r#"{"rope_theta": 10000, "rope_parameters": {"rope_theta": 10000.0}}"#,
    ] {
        check(text, plain(1e4, 64));
    }
    check(r#"{"rope_theta": 5e5}"#, plain(5e5, 64));
    check(r#"{"rope_parameters": {"rope_theta": 7, "type": "default"}}"#, plain(7.0, 64));
}

#[test]
fn shares_of_a_head() {
    check(r#"{"partial_rotary_factor": 0.5}"#, plain(1e4, 32));
    check(r#"{"rope_parameters": {"partial_rotary_factor": 0.25}}"#, plain(1e4, 16));
    check_refused(r#"{"partial_rotary_factor": 0.4}"#, "25 of 64 dimensions");
    check_refused(r#"{"partial_rotary_factor": 1.5}"#, "96 of 64 dimensions");
    let config = Config::of_text(Path::new("config.json"), "{}").expect("is an object");
    let odd = RotaryForm { partial: Some(1.0), theta: Some(1e4), ..RotaryForm::default() };
    let message = odd.read(&config, 7, 4096).expect_err("is odd").to_string();
    assert!(message.contains("7 of 7 dimensions of a head would turn, in pairs"), "{message}");
    assert!(message.contains("expected an even number from 2 to 6"), "{message}");
}

#[test]
fn scalings() {
    check(
        r#"{"rope_scaling": {"type": "linear", "factor": 4}}"#,
        with(RotaryScaling::Linear { factor: 4.0 }),
    );
    let llama = Llama3Scaling { factor: 8.0, low: 1.0, high: 4.0, original: 4096.0 };
    check(
        r#"{"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
            "high_freq_factor": 4}}"#,
        with(RotaryScaling::Llama3(llama)),
    );
    check(
        r#"{"rope_scaling": {"type": "dynamic", "alpha": 9, "factor": 1.0, "mscale": 1.0}}"#,
        with(RotaryScaling::NtkAlpha { alpha: 9.0 }),
    );
    let yarn = YarnScaling {
        factor: 4.0,
        original: 1024.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor: None,
        mscale: None,
        mscale_all_dim: None,
    };
    for text in [
        r#"{"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 1024}}"#,
        r#"{"rope_parameters": {"rope_type": "yarn", "factor": 4,
            "original_max_position_embeddings": 1024, "rope_theta": 1e4}}"#,
    ] {
        check(text, with(RotaryScaling::Yarn(yarn)));
    }
    check(
        r#"{"rope_scaling": {"type": "yarn", "factor": 4, "mscale": 0, "mscale_all_dim": 0.7,
            "original_max_position_embeddings": 1024, "truncate": false, "beta_fast": 1}}"#,
        with(RotaryScaling::Yarn(YarnScaling {
            mscale: Some(0.0),
            mscale_all_dim: Some(0.7),
            truncate: false,
            beta_fast: 1.0,
            ..yarn
        })),
    );
}

#[test]
fn longrope_by_both_names() {
    let factors = |count: usize| format!("[{}]", vec!["1.5"; count].join(", "));
    let (short, long) = (factors(32), factors(32));
    let expected = |magnitude: f64, original: usize| {
        let factors = vec![1.5; 32];
        with(RotaryScaling::LongRope(LongRopeScaling { factors, magnitude, original }))
    };
    let text = |kind: &str, more: &str| {
        format!(
            r#"{{"rope_scaling": {{"type": "{kind}", "short_factor": {short}, "long_factor": {long}{more}}},
                "original_max_position_embeddings": 1024}}"#
        )
    };
    let grown = (1.0 + 4.0_f64.ln() / 1024.0_f64.ln()).sqrt();
    for kind in ["longrope", "su"] {
        check(&text(kind, ""), expected(grown, 1024));
        check(&text(kind, r#", "factor": 4"#), expected(grown, 1024));
        check(&text(kind, r#", "factor": 1"#), expected(1.0, 1024));
        check(&text(kind, r#", "attention_factor": "1.25""#), expected(1.25, 1024));
        check(&text(kind, r#", "short_mscale": 1.1, "long_mscale": 1.3"#), expected(1.1, 1024));
    }
}

#[test]
fn the_first_length_stands_in_either_place() {
    let yarn = |text: &str| match read(text).expect(text).scaling {
        RotaryScaling::Yarn(yarn) => (yarn.factor, yarn.original),
        other => panic!("{other:?}"),
    };
    let beside = r#"{"original_max_position_embeddings": 1024, "rope_scaling": {"type": "yarn", "factor": 2}}"#;
    assert_eq!(yarn(beside), (2.0, 1024.0));
    let within =
        r#"{"rope_scaling": {"type": "yarn", "original_max_position_embeddings": "1024"}}"#;
    assert_eq!(yarn(within), (4.0, 1024.0));
    assert_eq!(yarn(r#"{"rope_scaling": {"type": "yarn", "factor": 2}}"#), (2.0, 4096.0));
}

#[test]
fn what_is_not_known_is_refused() {
    check_refused(r#"{"rope_scaling": {"type": "dynamic"}}"#, "lacks `rope_scaling.factor`");
    check_refused(
        r#"{"rope_scaling": {"type": "dynamic", "factor": 9, "original_max_position_embeddings": 8}}"#,
        "`rope_scaling.original_max_position_embeddings` is 8, not the 4096 positions",
    );
    check_refused(
        r#"{"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e4}}"#,
        "`rope_theta` is 1e4 but `rope_parameters.rope_theta` is 5e4",
    );
    check_refused(
        r#"{"rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2}}"#,
        "they mean the same",
    );
    check_refused(
        r#"{"original_max_position_embeddings": 512, "rope_scaling": {"type": "yarn", "factor": 2,
            "original_max_position_embeddings": 1024}}"#,
        "they mean the same",
    );
    check_refused(
        r#"{"rope_scaling": {"type": "linear", "factor": NaN}}"#,
        "`rope_scaling.factor` must be a positive number, got NaN",
    );
    check_refused(
        r#"{"rope_scaling": {"type": "linear", "factor": "two"}}"#,
        "must be a positive number, got \"two\"",
    );
    check_refused(r#"{"rope_theta": Infinity}"#, "must be a positive number, got Infinity");
    check_refused(r#"{"rope_parameters": {"rope_type": "axial"}}"#, "`axial`");
    check_refused(
        r#"{"rope_scaling": {"type": "longrope", "short_factor": [1, 2], "short_mscale": 1}}"#,
        "`short_factor` has 2 numbers, expected one for each of the 32 pairs",
    );
    check_refused(r#"{"rope_scaling": {"factor": 2}}"#, "there is no `rope_type`");
    check_refused(r#"{"rope_scaling": {"type": "default", "factor": 2}}"#, "which is meant");
    check_refused(r#"{"rope_scaling": {"type": "linear"}}"#, "lacks `rope_scaling.factor`");
    check_refused(
        r#"{"rope_scaling": {"type": "yarn", "factor": 2, "alpha": 9}}"#,
        "`rope_scaling.alpha` is not known where `rope_type` is `yarn`",
    );
    check_refused(r#"{"rope_scaling": {"mrope_section": [1]}}"#, "`rope_scaling.mrope_section`");
    check_refused(
        r#"{"rope_parameters": {"full_attention": {"rope_theta": 1}}}"#,
        "`rope_parameters.full_attention`",
    );
    check_refused(r#"{"rope_scaling": "yarn"}"#, "`rope_scaling` must be an object");
    check_refused(
        r#"{"rope_scaling": {"type": "yarn"}, "rope_parameters": {"rope_type": "default"}}"#,
        "they mean the same",
    );
    check_refused(
        r#"{"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
            "high_freq_factor": 3}}"#,
        "`low_freq_factor` is 4, above",
    );
}
