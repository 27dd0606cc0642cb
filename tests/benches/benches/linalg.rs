//! Rates of Gram products and of the factorisation, beside those of plain products of the same type in the same run.
//!
//! ```text
//! cargo bench -p moeprune-benches --bench linalg
//! ```
//!
//! Operations are those that the result needs: `rows · size · (size + 1)` of a Gram matrix, of which half is computed;
//! `2/3 · size³` of the inverse's factor, a third each for Cholesky and the triangular inverse.

use std::{hint::black_box, time::Instant};

use moeprune_linalg::{
    Gram, Inverse, Matrix, Real, Update, add_cross_products, multiply_in_parallel,
};
use rayon::ThreadPoolBuilder;

/// Features of experts: of Qwen3-30B-A3B, DeepSeek-V3, an in-between and Arctic.
const SIZES: [usize; 4] = [768, 2048, 3072, 4864];
/// Rows and columns of the product that rates are shares of.
const PRODUCT: usize = 2048;
/// Tokens of a Gram matrix.
const ROWS: usize = 8192;
/// Seconds of each measurement, and how often all are repeated. The best counts.
const SECONDS: f64 = 0.3;
const ROUNDS: usize = 3;

fn main() {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1, all];
    counts.dedup();
    for threads in counts {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| {
            print::<f32>("f32", threads);
            print::<f64>("f64", threads);
        });
    }
}

/// Prints the rates of one type.
#[expect(clippy::print_stdout, reason = "what a benchmark is for")]
fn print<T: Real>(name: &str, threads: usize) {
    let (a, b) = (uniform::<T>(PRODUCT * PRODUCT), uniform::<T>(PRODUCT * PRODUCT));
    let mut out = vec![T::ZERO; PRODUCT * PRODUCT];
    let mut product = || {
        let (a, b) = (Matrix::dense(&a, PRODUCT), Matrix::dense(&b, PRODUCT));
        multiply_in_parallel(&mut out, Update::Set, a, b);
    };
    let product_operations = 2.0 * (PRODUCT as f64).powi(3);
    let mut product_rate = 0.0_f64;
    let mut rates = SIZES.map(|_| [0.0_f64; 3]);
    for _ in 0..ROUNDS {
        for (size, best) in SIZES.into_iter().zip(&mut rates) {
            product_rate = product_rate.max(rate(product_operations, &mut product));
            let now = rates_of::<T>(size);
            *best = [0, 1, 2].map(|i| best[i].max(now[i]));
        }
    }
    println!("{name}, {threads} thread(s): product {product_rate:.1} GFLOP/s");
    println!("{:>8} {:>15} {:>15} {:>15}", "columns", "Gram", "cross products", "factor");
    for (size, rates) in SIZES.into_iter().zip(rates) {
        let cells = rates.map(|rate| format!("{rate:.1} ({:.0} %)", 100.0 * rate / product_rate));
        println!("{size:>8} {:>15} {:>15} {:>15}", cells[0], cells[1], cells[2]);
    }
}

/// Rates of a Gram matrix, of products with as many other columns, and of the factor.
fn rates_of<T: Real>(size: usize) -> [f64; 3] {
    let rows = uniform::<T>(ROWS * size);
    let columns = size as f64;
    let mut gram = Gram::new(size);
    let gram_rate = rate(ROWS as f64 * columns * (columns + 1.0), &mut || gram.add(&rows));
    let mut sums = vec![0.0; size * size];
    let cross_rate = rate(2.0 * ROWS as f64 * columns * columns, &mut || {
        add_cross_products(&mut sums, &rows, &rows, [size, size]);
    });
    let mut matrix: Vec<T> = gram.matrix().into_iter().map(T::from_f64).collect();
    let ridge = T::from_f64(gram.trace() / columns);
    matrix.iter_mut().step_by(size + 1).for_each(|x| *x += ridge);
    let factor_rate = rate(2.0 / 3.0 * columns.powi(3), &mut || {
        black_box(Inverse::new(matrix.clone(), size).expect("positive definite"));
    });
    [gram_rate, cross_rate, factor_rate]
}

/// Operations per nanosecond, of the fastest of as many calls as fit in [`SECONDS`].
fn rate(operations: f64, work: &mut dyn FnMut()) -> f64 {
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while best == f64::INFINITY || begin.elapsed().as_secs_f64() < SECONDS {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
    }
    operations / best / 1e9
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
