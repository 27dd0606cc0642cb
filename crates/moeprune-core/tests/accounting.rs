//! Ratios that reach a total, against figures worked out for the two models of the paper.

use moeprune_core::{Error, Sparsity, unstructured_ratio};

/// Arctic: decoder Linears with the routers among them (as the published figures count), routed
/// experts, everything, and one expert.
const LINEARS: u64 = 478_125_096_960;
const ALL: u64 = 478_584_608_768;
const EXPERT: u64 = 104_595_456;
const EXPERTS: u64 = 35 * 128 * EXPERT;
const REMOVED: u64 = 910 * EXPERT;

fn check(target: f64, denominator: u64, removed: u64, prunable: u64, expected: f64) {
    let target = Sparsity::new(target).unwrap();
    let s = unstructured_ratio(target, denominator, removed, prunable).unwrap().value();
    assert!((s - expected).abs() < 5e-5, "{target} of {denominator}: {s}, expected {expected}");
}

#[test]
fn arctic_without_910_experts() {
    // Embeddings, head, norms and routers count in the last, but are never pruned.
    let prunable = LINEARS - REMOVED;
    check(0.40, EXPERTS, REMOVED, EXPERTS - REMOVED, 0.2471);
    check(0.40, LINEARS, REMOVED, prunable, 0.2509);
    check(0.40, ALL, REMOVED, prunable, 0.2513);
    check(0.65, EXPERTS, REMOVED, EXPERTS - REMOVED, 0.5608);
    check(0.65, LINEARS, REMOVED, prunable, 0.5630);
    check(0.65, ALL, REMOVED, prunable, 0.5638);
}

#[test]
fn mixtral_8x7b() {
    let expert = 176_160_768;
    // Query and output, key and value, experts; no routers.
    let linears = 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 8 * expert);
    for (experts, expected) in [(1, 0.6016), (2, 0.5378)] {
        let removed = 32 * experts * expert;
        check(0.65, linears, removed, linears - removed, expected);
    }
}

/// The names of the reference's own runs, `{s}_star_20_total_{S}`: what their ratio really
/// reaches over the decoder Linears, solved back.
#[test]
fn the_ratios_in_the_references_directory_names() {
    let prunable = LINEARS - REMOVED;
    for (s, nominal, reached) in [
        (0.25, 0.40, 0.3993),
        (0.3125, 0.45, 0.4494),
        (0.20, 0.36, 0.3593),
        (0.125, 0.30, 0.2992),
        (0.0625, 0.25, 0.2491),
        (0.5625, 0.65, 0.6496),
    ] {
        let total: f64 = (REMOVED as f64 + s * prunable as f64) / LINEARS as f64;
        assert!((total - reached).abs() < 5e-5, "{total}, expected {reached}");
        assert!((1.0 - 0.8 * (1.0 - s) - nominal).abs() < 1e-12);
        let back = unstructured_ratio(Sparsity::new(total).unwrap(), LINEARS, REMOVED, prunable);
        assert!((back.unwrap().value() - s).abs() < 1e-12);
    }
}

#[test]
fn targets_already_met_and_out_of_reach() {
    let ratio =
        |target, prunable| unstructured_ratio(Sparsity::new(target).unwrap(), 100, 40, prunable);
    assert_eq!(ratio(0.4, 60).unwrap(), Sparsity::ZERO);
    assert_eq!(ratio(0.1, 0).unwrap(), Sparsity::ZERO);
    assert!(matches!(ratio(0.9, 50), Err(Error::UnreachableSparsity { .. })));
    assert!(matches!(ratio(0.9, 0), Err(Error::UnreachableSparsity { .. })));
}
