//! Summaries of the parity models.

use moeprune_checkpoint::Checkpoint;

use crate::fixture::parity;

fn check(name: &str) {
    let summary = Checkpoint::open(&parity(name)).expect("opens").summary();
    insta::assert_json_snapshot!(name, summary);
}

#[test]
fn arctic() {
    check("arctic");
}

#[test]
fn arctic_freq2() {
    check("arctic_freq2");
}

#[test]
fn mixtral() {
    check("mixtral");
}

#[test]
fn mixtral_sharded() {
    check("mixtral_sharded");
}
