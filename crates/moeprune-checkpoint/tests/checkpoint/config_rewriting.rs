//! `config.json` with another expert count and not a byte else changed.

use std::fs;

use crate::fixture::{Model, check_refused};

/// Rewrites a Mixtral config (3 layers, 8 experts, top 2) whose expert count is spelled so.
#[track_caller]
fn check(spelled: &str, kept: &[usize], expected: &str) {
    let model = Model::copy_of("mixtral");
    let replace = |to: &str| {
        let text = fs::read_to_string(crate::fixture::parity("mixtral").join("config.json"));
        text.expect("reads").replace("\"num_local_experts\": 8", to)
    };
    fs::write(model.path("config.json"), replace(spelled)).expect("writes");
    let got = model.open().expect("opens").config_with_experts(kept).expect("rewrites");
    assert_eq!(got, replace(expected));
}

#[test]
fn one_number_when_all_keep_the_same() {
    check("\"num_local_experts\": 8", &[6, 6, 6], "\"num_local_experts\": 6");
    check("\"num_local_experts\": 8", &[8, 8, 8], "\"num_local_experts\": 8");
}

#[test]
fn a_list_when_they_differ() {
    check("\"num_local_experts\": 8", &[6, 5, 8], "\"num_local_experts\": [6, 5, 8]");
    check("\"num_local_experts\": [8, 8, 8]", &[6, 5, 8], "\"num_local_experts\": [6, 5, 8]");
    check("\"num_local_experts\": [8,8,\n8]", &[4, 4, 4], "\"num_local_experts\": 4");
}

#[test]
fn spelling_and_key_stay() {
    check("\"num_local_experts\":\t8 ", &[6, 6, 6], "\"num_local_experts\":\t6 ");
    check("\"num_experts\": 8", &[6, 6, 6], "\"num_experts\": 6");
    check("\"num_\\u006cocal_experts\": 8", &[6, 6, 6], "\"num_\\u006cocal_experts\": 6");
    check(
        "\"x\": {\"num_local_experts\": 8}, \"num_local_experts\": 8, \"y\": 1.50E+1, \"é\": \"😀\"",
        &[3, 3, 3],
        "\"x\": {\"num_local_experts\": 8}, \"num_local_experts\": 3, \"y\": 1.50E+1, \"é\": \"😀\"",
    );
}

#[test]
fn aliases_are_kept_in_step() {
    check(
        "\"num_experts\": 8, \"num_local_experts\": 8",
        &[6, 6, 6],
        "\"num_experts\": 6, \"num_local_experts\": 6",
    );
}

#[test]
fn layers_without_experts_do_not_count() {
    let model = Model::copy_of("arctic_freq2");
    let source = model.open().expect("opens");
    let rewritten = |kept: &[usize]| {
        let text = source.config_with_experts(kept).expect("rewrites");
        text.lines().find(|l| l.contains("num_local_experts")).expect("is there").to_owned()
    };
    assert_eq!(rewritten(&[0, 5, 0, 5]), "  \"num_local_experts\": 5,");
    assert_eq!(rewritten(&[8, 5, 8, 5]), "  \"num_local_experts\": 5,");
    assert_eq!(rewritten(&[0, 5, 0, 6]), "  \"num_local_experts\": [0, 5, 0, 6],");
}

#[test]
fn impossible_counts() {
    let source = Model::copy_of("mixtral").open().expect("opens");
    let rewrite = |kept: &[usize]| source.config_with_experts(kept);
    check_refused(rewrite(&[6, 6]), &["2 expert counts for 3 decoder layers"]);
    check_refused(rewrite(&[6, 1, 6]), &["layer 1 would keep 1 expert,", "routed to 2"]);
    check_refused(rewrite(&[6, 6, 0]), &["layer 2 would keep 0 experts"]);
    check_refused(rewrite(&[9, 8, 8]), &["layer 0 has 8 experts and cannot keep 9"]);
}
