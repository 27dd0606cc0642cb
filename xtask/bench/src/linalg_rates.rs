//! How near Gram matrices and factorisations come to the rate of plain products of their types, in one run.
//!
//! Operations are those that the result needs: `rows · size · (size + 1)` of a Gram matrix, of which half is computed;
//! `2/3 · size³` of the inverse's factor, a third each for Cholesky and the triangular inverse.

use std::{hint::black_box, thread::available_parallelism, time::Instant};

use anyhow::{Context as _, Result};
use moeprune_linalg::{Gram, Inverse, Matrix, Real, Update, multiply_in_parallel};
use rayon::ThreadPoolBuilder;

/// Rows and columns of the product that rates are shares of.
const PRODUCT: usize = 2048;
/// Tokens of a Gram matrix.
const ROWS: usize = 8192;
/// Seconds of each measurement, and how often all are repeated. The best counts.
const SECONDS: f64 = 0.3;
const ROUNDS: usize = 3;

/// Prints the rates for matrices of these sizes, on one thread and on all.
pub(crate) fn print(sizes: &[usize]) -> Result<()> {
    let mut counts = vec![1, available_parallelism().map_or(1, usize::from)];
    counts.dedup();
    for threads in counts {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
        let (gram, factor) = pool.install(|| {
            let gram = Work { name: "Gram", type_name: "f32", prepare: gram };
            let factor = Work { name: "factor", type_name: "f64", prepare: factor };
            anyhow::Ok((shares::<f32>(&gram, sizes)?, shares::<f64>(&factor, sizes)?))
        })?;
        let plural = if threads == 1 { "" } else { "s" };
        line!("{threads} thread{plural}: {gram}")?;
        line!("{threads} thread{plural}: {factor}")?;
    }
    Ok(())
}

/// What is measured beside products.
struct Work<T> {
    name: &'static str,
    type_name: &'static str,
    prepare: fn(usize) -> Result<Measured<T>>,
}

/// Work on a matrix of some size, ready to run.
struct Measured<T> {
    operations: f64,
    values: Vec<T>,
    run: fn(&[T], usize) -> Result<()>,
}

/// The rate of products and, for each size, that of the work as a share of it.
fn shares<T: Real>(work: &Work<T>, sizes: &[usize]) -> Result<String> {
    let (a, b) = (uniform::<T>(PRODUCT * PRODUCT), uniform::<T>(PRODUCT * PRODUCT));
    let mut out = vec![T::ZERO; PRODUCT * PRODUCT];
    let mut product = || {
        let (a, b) = (Matrix::dense(&a, PRODUCT), Matrix::dense(&b, PRODUCT));
        multiply_in_parallel(&mut out, Update::Set, a, b);
        Ok(())
    };
    let operations = 2.0 * (PRODUCT as f64).powi(3);
    let prepared =
        sizes.iter().map(|&size| (work.prepare)(size)).collect::<Result<Vec<Measured<T>>>>()?;
    let mut product_rate = 0.0_f64;
    let mut rates = vec![0.0_f64; sizes.len()];
    for _ in 0..ROUNDS {
        for ((best, measured), &size) in rates.iter_mut().zip(&prepared).zip(sizes) {
            product_rate = product_rate.max(rate(operations, &mut product)?);
            let mut run = || (measured.run)(&measured.values, size);
            *best = best.max(rate(measured.operations, &mut run)?);
        }
    }
    let Work { name, type_name, .. } = work;
    let shares = sizes.iter().zip(rates).map(|(size, rate)| {
        let percent = 100.0 * rate / product_rate;
        format!("{name} of {size} columns {rate:.1} ({percent:.0} %)")
    });
    let shares = shares.collect::<Vec<_>>().join(", ");
    Ok(format!("products in {type_name} {product_rate:.1} GFLOP/s, {shares}"))
}

/// The Gram matrix of rows of `size` numbers.
fn gram(size: usize) -> Result<Measured<f32>> {
    let columns = size as f64;
    let operations = ROWS as f64 * columns * (columns + 1.0);
    let run = |rows: &[f32], size: usize| {
        Gram::new(size).add(black_box(rows));
        Ok(())
    };
    Ok(Measured { operations, values: uniform(ROWS * size), run })
}

/// The factor of the inverse of a Gram matrix with its mean diagonal added.
fn factor(size: usize) -> Result<Measured<f64>> {
    let mut gram = Gram::new(size);
    gram.add(&uniform::<f32>(ROWS * size));
    let (mut values, ridge) = (gram.matrix(), gram.trace() / size as f64);
    values.iter_mut().step_by(size + 1).for_each(|x| *x += ridge);
    let run = |values: &[f64], size: usize| {
        let inverse = Inverse::new(values.to_vec(), size);
        black_box(inverse.context("the matrix is positive definite")?);
        Ok(())
    };
    Ok(Measured { operations: 2.0 / 3.0 * (size as f64).powi(3), values, run })
}

/// Operations per nanosecond, of the fastest of as many calls as fit in [`SECONDS`].
fn rate(operations: f64, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while best == f64::INFINITY || begin.elapsed().as_secs_f64() < SECONDS {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(operations / best / 1e9)
}

/// Numbers from −1 to 1.
fn uniform<T: Real>(count: usize) -> Vec<T> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        T::from_f64((state >> 40) as f64 / (1u64 << 23) as f64 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}
