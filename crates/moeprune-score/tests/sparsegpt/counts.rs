//! How many weights go.

use moeprune_core::{InputHessian, Sparsity, WeightReconstructor as _};
use moeprune_score::{MaskPattern as _, NOfM, PerRow, Rounding, SparseGpt};
use proptest::prelude::*;

use crate::matrices::{REFERENCE, VECTOR_WEIGHTS, hessian, inputs, numbers, ratio, view, zeros};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// All dead weights go, and as many others as make it what `Rounding::Exact` says.
    #[test]
    fn counts_are_exact(
        rows in 1usize..200,
        cols in 1usize..40,
        block in 1usize..50,
        share in 0.0f64..1.0,
        dead in prop::collection::vec(prop::bool::weighted(0.2), 40),
        seed in 0u64..1000,
    ) {
        let mut inputs = inputs(2 * cols, cols, seed);
        for x in inputs.chunks_exact_mut(cols) {
            x.iter_mut().zip(&dead).for_each(|(x, &dead)| *x = if dead { 0.0 } else { *x });
        }
        let hessian = hessian(&inputs, cols, 2);
        let dead = dead[..cols].iter().filter(|&&dead| dead).count() as u64 * rows as u64;
        let mut weights = numbers(rows * cols, seed + 1);
        weights.iter_mut().filter(|w| **w == 0.0).for_each(|w| *w = 0.5);
        let sparsegpt = SparseGpt { block, ..SparseGpt::default() };
        let zeroed = sparsegpt.reconstruct(&mut weights, &view(rows, cols), &hessian, ratio(share), &PerRow);
        if dead == (rows * cols) as u64 {
            prop_assert!(zeroed.unwrap_err().to_string().contains("never zeroed entirely"));
            return Ok(());
        }
        let expected = Rounding::Exact.total(rows, cols, ratio(share)).max(dead);
        prop_assert_eq!(zeroed.unwrap(), expected);
        prop_assert_eq!(zeros(&weights), expected);
        prop_assert!(weights.iter().all(|w| w.to_bits() != (-0.0f32).to_bits()));
    }

    /// Each group of each row loses what it should, wherever blocks end.
    #[test]
    fn groups_lose_the_same(
        rows in 1usize..70,
        cols in 1usize..60,
        block in 1usize..70,
        m in 1usize..20,
        n in 0usize..20,
        seed in 0u64..1000,
    ) {
        let pattern = NOfM::new(n % m, m).unwrap();
        let hessian = hessian(&inputs(2 * cols, cols, seed), cols, 2);
        let mut weights = numbers(rows * cols, seed + 1);
        weights.iter_mut().filter(|w| **w == 0.0).for_each(|w| *w = 0.5);
        let sparsegpt = SparseGpt { block, ..SparseGpt::default() };
        let zeroed = sparsegpt.reconstruct(&mut weights, &view(rows, cols), &hessian, ratio(0.1), &pattern);
        prop_assert_eq!(zeroed.unwrap(), zeros(&weights));
        for row in weights.chunks_exact(cols) {
            for group in row.chunks(m) {
                let mut mask = vec![false; group.len()];
                pattern.mask_row(&vec![1.0; group.len()], 0, &mut mask);
                prop_assert_eq!(zeros(group), mask.iter().filter(|&&gone| gone).count() as u64);
            }
        }
    }
}

/// Of each group, those of inputs that were always zero, and then as many as are left to choose.
#[test]
fn groups_with_dead_columns() {
    let (rows, cols) = (40, 12);
    let dead = [true, true, true, false, true, false, false, false, false, false, false, false];
    let mut inputs = inputs(50, cols, 1);
    for x in inputs.chunks_exact_mut(cols) {
        x.iter_mut().zip(dead).for_each(|(x, dead)| *x = if dead { 0.0 } else { *x });
    }
    let sparsegpt = SparseGpt { block: 8, ..SparseGpt::default() };
    let pattern = NOfM::new(2, 4).unwrap();
    let mut weights = numbers(rows * cols, 2);
    let hessian = hessian(&inputs, cols, 1);
    let zeroed =
        sparsegpt.reconstruct(&mut weights, &view(rows, cols), &hessian, ratio(0.5), &pattern);
    assert_eq!((zeroed.unwrap(), zeros(&weights)), (280, 280));
    for row in weights.chunks_exact(cols) {
        assert_eq!((zeros(&row[..4]), zeros(&row[4..8]), zeros(&row[8..])), (3, 2, 2));
        assert!(row.iter().zip(dead).all(|(&w, dead)| !dead || w == 0.0));
    }
}

#[test]
fn ratios_at_the_ends() {
    let almost = ratio(1.0 - f64::EPSILON / 2.0);
    let check = |rows: usize, cols: usize, share: Sparsity, expected: u64| {
        let hessian = hessian(&inputs(2 * cols, cols, 1), cols, 1);
        let mut weights = vec![1.0; rows * cols];
        let zeroed = SparseGpt::default().reconstruct(
            &mut weights,
            &view(rows, cols),
            &hessian,
            share,
            &PerRow,
        );
        assert_eq!((zeroed.unwrap(), zeros(&weights)), (expected, expected));
    };
    check(0, 0, ratio(0.5), 0);
    check(0, 5, ratio(0.5), 0);
    check(5, 0, ratio(0.5), 0);
    check(1, 1, almost, 0);
    check(4, 1, ratio(0.5), 2);
    check(3, 3, almost, 8);
    check(3, 3, Sparsity::ZERO, 0);
    check(1, 300, almost, 299);

    let refused = |cols: usize, share: Sparsity| {
        let hessian = hessian(&inputs(2 * cols, cols, 1), cols, 1);
        let error =
            REFERENCE.reconstruct(&mut vec![1.0; cols], &view(1, cols), &hessian, share, &PerRow);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("never zeroed entirely"), "{error}");
    };
    refused(3, almost);
    refused(3, ratio(0.9));
    refused(1, ratio(0.5));
    // The reference's comparison takes one of each block at least.
    let (mut weights, hessian) = (VECTOR_WEIGHTS, hessian(&inputs(8, 4, 1), 4, 1));
    let zeroed =
        REFERENCE.reconstruct(&mut weights, &view(2, 4), &hessian, Sparsity::ZERO, &PerRow);
    assert_eq!(zeroed.unwrap(), 1);
}

/// A damping of zero, and inputs that are all alike: it is raised until it does.
#[test]
fn damping_is_raised() {
    let same = InputHessian::new(50, 1, 6, vec![50.0; 36]).unwrap();
    let mut weights = numbers(60, 1);
    let sparsegpt = SparseGpt { damping: 0.0, ..SparseGpt::default() };
    let zeroed =
        sparsegpt.reconstruct(&mut weights, &view(10, 6), &same, ratio(0.5), &PerRow).unwrap();
    assert_eq!((zeroed, zeros(&weights)), (30, 30));
}
