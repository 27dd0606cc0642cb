//! Products, Gram matrices and inverses, against slow ones and nalgebra.

use moeprune_linalg::{
    Error, Gram, Inverse, Matrix, Real, Update, add_cross_products, inverse_factor,
    multiply_in_parallel,
};
use nalgebra::DMatrix;
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

/// Numbers from −1 to 1.
fn uniform<T: Real>(count: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        T::from_f64((state >> 40) as f64 / f64::from(1u32 << 23) - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

fn f64s<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|x| x.to_f64()).collect()
}

/// Of random rows, and something on the diagonal.
fn positive<T: Real>(size: usize) -> Vec<T> {
    let mut gram = Gram::new(size);
    gram.add(&uniform::<f64>(2 * size * size, 1));
    let mut matrix: Vec<T> = gram.matrix().into_iter().map(T::from_f64).collect();
    matrix.iter_mut().step_by(size + 1).for_each(|x| *x += T::from_f64(0.1 * size as f64));
    matrix
}

fn on<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn products<T: Real>(tolerance: f64) {
    for (rows, size) in [(1, 1), (3, 2), (0, 4), (5, 0), (70, 65), (300, 130), (9000, 17)] {
        let (x, y) = (uniform::<T>(rows * size, 3), uniform::<T>(rows * 3, 4));
        let dense = DMatrix::from_row_slice(rows, size, &f64s(&x));
        let mut gram = Gram::new(size);
        let half = rows / 2 * size;
        gram.add(&x[..half]);
        gram.add(&x[half..]);
        let matrix = gram.matrix();
        let expected = dense.transpose() * &dense;
        for (at, sum) in matrix.iter().enumerate() {
            let expected = expected[(at / size, at % size)];
            assert!(
                (sum - expected).abs() <= tolerance * rows as f64,
                "{rows}x{size}: {sum} {expected}"
            );
            assert_eq!(sum.to_bits(), matrix[at % size * size + at / size].to_bits());
        }
        assert!((gram.trace() - expected.trace()).abs() <= tolerance * rows as f64 * size as f64);
        let mut sums = vec![1.0; 3 * size];
        add_cross_products(&mut sums, &y, &x, [3, size]);
        let expected = DMatrix::from_row_slice(rows, 3, &f64s(&y)).transpose() * &dense;
        for (at, sum) in sums.iter().enumerate() {
            let expected = 1.0 + expected[(at / size, at % size)];
            assert!(
                (sum - expected).abs() <= tolerance * rows as f64,
                "{rows}x{size}: {sum} {expected}"
            );
        }
    }
}

#[test]
fn products_of_rows() {
    products::<f32>(1e-6);
    products::<f64>(1e-14);
}

fn inverses<T: Real>(tolerance: f64) {
    for size in [1, 2, 127, 128, 129, 300] {
        let matrix = positive::<T>(size);
        let upper = inverse_factor(matrix.clone(), size).unwrap();
        for i in 0..size {
            assert!(upper[i * size..][..i].iter().all(|&x| x == T::ZERO), "below the diagonal");
            assert!(upper[i * size + i] > T::ZERO);
        }
        let dense = DMatrix::from_row_slice(size, size, &f64s(&matrix));
        let factor = DMatrix::from_row_slice(size, size, &f64s(&upper));
        // U H Uᵀ is the identity, too.
        let identity = &factor * &dense * factor.transpose();
        let off = (identity - DMatrix::identity(size, size)).amax();
        assert!(off < tolerance, "{size}: {off}");

        let inverse = Inverse::new(matrix, size).unwrap();
        let expected = dense.try_inverse().unwrap();
        assert!((inverse.trace() / expected.trace() - 1.0).abs() < tolerance, "{size}");
        let rows = uniform::<T>(3 * size, 9);
        let mut applied = rows.clone();
        inverse.apply(&mut applied);
        let expected = DMatrix::from_row_slice(3, size, &f64s(&rows)) * expected;
        let off = (DMatrix::from_row_slice(3, size, &f64s(&applied)) - expected).amax();
        assert!(off < tolerance, "{size}: {off}");
        assert_eq!(Inverse::from_packed(&inverse.packed(), size).unwrap(), inverse);
    }
}

#[test]
fn inverses_of_matrices() {
    inverses::<f32>(2e-5);
    inverses::<f64>(1e-12);
}

#[test]
fn matrices_that_have_none() {
    fn check<T: Real>(matrix: [f64; 4]) {
        let matrix = matrix.map(T::from_f64).to_vec();
        let error = inverse_factor(matrix, 2).unwrap_err();
        assert_eq!(error, Error::NotPositiveDefinite { size: 2 });
    }
    for bad in [[0.0, 0.0, 0.0, 1.0], [1.0, 2.0, 2.0, 1.0], [f64::NAN, 0.0, 0.0, 1.0]] {
        check::<f32>(bad);
        check::<f64>(bad);
    }
    let mut late = positive::<f32>(300);
    late[5 * 300 + 5] = -1.0;
    assert!(inverse_factor(late, 300).is_err());
    assert_eq!(inverse_factor(Vec::<f64>::new(), 0), Ok(Vec::new()));
    let shape = Error::Shape { expected: [2, 2], got: 3 };
    assert_eq!(inverse_factor(vec![1.0; 3], 2), Err(shape));
    let shape = Error::Shape { expected: [2, 2], got: 4 };
    assert_eq!(Inverse::from_packed(&[1.0; 4], 2), Err(shape));
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    fn bits<T: Real>(threads: usize) -> Vec<u64> {
        on(threads, || {
            let x = uniform::<T>(500 * 300, 2);
            let mut gram = Gram::new(300);
            gram.add(&x);
            let mut sums = vec![0.0; 300 * 300];
            add_cross_products(&mut sums, &x, &x, [300, 300]);
            let inverse = Inverse::new(positive::<T>(300), 300).unwrap();
            let mut rows = x[..300 * 300].to_vec();
            inverse.apply(&mut rows);
            let mut product = vec![T::ZERO; 500 * 300];
            let (a, b) = (Matrix::dense(&x, 300), Matrix::dense(&rows, 300));
            multiply_in_parallel(&mut product, Update::Set, a, b);
            let all = [gram.matrix(), sums, f64s(&rows), f64s(&product), vec![inverse.trace()]];
            all.concat().into_iter().map(f64::to_bits).collect()
        })
    }
    for threads in [2, 3, 8] {
        assert_eq!(bits::<f32>(threads), bits::<f32>(1), "{threads}");
        assert_eq!(bits::<f64>(threads), bits::<f64>(1), "{threads}");
    }
}

proptest! {
    #[test]
    fn a_product_is_written_over_what_was_there(
        rows in 0usize..5, inner in 0usize..5, cols in 0usize..5, seed in any::<u64>(),
    ) {
        let (a, b) = (uniform::<f64>(rows * inner, seed), uniform::<f64>(inner * cols, seed ^ 1));
        let old = uniform::<f64>(rows * cols, seed ^ 2);
        let dense = |x: &[f64], rows, cols| DMatrix::from_row_slice(rows, cols, x);
        let product = dense(&a, rows, inner) * dense(&b, inner, cols);
        for (update, kept, factor) in [
            (Update::Set, 0.0, 1.0),
            (Update::SetNegative, 0.0, -1.0),
            (Update::Add, 1.0, 1.0),
            (Update::Subtract, 1.0, -1.0),
        ] {
            let mut out = old.clone();
            let (a, b) = (Matrix::rows(&a, rows, inner, inner), Matrix::rows(&b, inner, cols, cols));
            multiply_in_parallel(&mut out, update, a, b);
            for (at, x) in out.iter().enumerate() {
                let expected = kept * old[at] + factor * product[(at / cols, at % cols)];
                prop_assert!((x - expected).abs() < 1e-14, "{update:?}: {x} {expected}");
            }
        }
    }
}
