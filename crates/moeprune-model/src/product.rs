//! Matrix products on the CPU.
//!
//! candle's own product asks the operating system for the number of cores at every call: it reads
//! `/proc/cpuinfo` unless `RAYON_NUM_THREADS` is set, some 50 µs before a product of 2 µs. And it
//! hands 0.6 million multiply-adds to other threads, which takes longer than doing them. Here the
//! same `gemm` kernels are called directly.
//!
//! A row of the result has the same bits however many other rows there are: `gemm` is only given
//! shapes for which every element is one chain of multiply-adds along `k`, cut every [`DEPTH`].
//! That makes batched generation equal to one sequence at a time.
#![expect(unsafe_code, reason = "gemm takes raw pointers")]

use gemm::Parallelism;

/// gemm sums along at most this many products before it adds to the destination, for any shape;
/// cutting there ourselves makes the cuts independent of the number of rows.
const DEPTH: usize = 512;

/// Multiply-adds below which one thread is faster than waking others (about 0.2 ms).
const PARALLEL_WORK: usize = 1 << 23;

/// A matrix inside a slice: element `(i, j)` is at `i · stride + j`.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) stride: usize,
}

impl<'a> Rows<'a> {
    /// A matrix whose rows follow each other without gaps.
    pub(crate) fn dense(values: &'a [f32], cols: usize) -> Self {
        Self { values, stride: cols }
    }

    fn holds(self, rows: usize, cols: usize) -> bool {
        let last = rows.checked_sub(1).and_then(|r| r.checked_mul(self.stride));
        rows == 0
            || cols == 0
            || last.and_then(|l| l.checked_add(cols)).is_some_and(|end| end <= self.values.len())
    }
}

/// Whether work of this many multiply-adds is worth several threads, and there are several.
pub(crate) fn is_parallel(multiply_adds: usize) -> bool {
    multiply_adds >= PARALLEL_WORK && rayon::current_num_threads() > 1
}

/// `lhs [m, k] · rhs [k, n]`, row-major, on several threads when it is worth it.
pub(crate) fn product(m: usize, n: usize, k: usize, lhs: Rows<'_>, rhs: Rows<'_>) -> Vec<f32> {
    let parallel = is_parallel(m.saturating_mul(n).saturating_mul(k));
    product_on(if parallel { Parallelism::Rayon(0) } else { Parallelism::None }, m, n, k, lhs, rhs)
}

/// [`product`] on the calling thread.
pub(crate) fn product_here(m: usize, n: usize, k: usize, lhs: Rows<'_>, rhs: Rows<'_>) -> Vec<f32> {
    product_on(Parallelism::None, m, n, k, lhs, rhs)
}

fn product_on(
    parallelism: Parallelism,
    m: usize,
    n: usize,
    k: usize,
    lhs: Rows<'_>,
    rhs: Rows<'_>,
) -> Vec<f32> {
    assert!(lhs.holds(m, k) && rhs.holds(k, n), "a {m}×{k} by {k}×{n} product of too short slices");
    if m == 0 || n == 0 || k == 0 {
        return vec![0.0; m * n];
    }
    if n == 1 {
        // gemm would use kernels here that sum in an order of their own.
        let column = |i: usize| {
            let row = &lhs.values[i * lhs.stride..][..k];
            row.iter()
                .zip(rhs.values.iter().step_by(rhs.stride))
                .fold(0.0, |sum, (a, b)| sum + a * b)
        };
        return (0..m).map(column).collect();
    }
    // The same holds for a single row: it is computed twice instead.
    let (rows, lhs_stride) = if m == 1 { (2, 0) } else { (m, lhs.stride) };
    let mut dst = vec![0.0_f32; rows * n];
    for start in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - start);
        // SAFETY: `dst` has `rows · n` elements. `holds` was checked: the largest element read of
        // lhs is `(m - 1) · stride + k - 1` (with a stride of 0 when the only row is read twice),
        // of rhs `(k - 1) · stride + n - 1`. Strides of borrowed slices fit an isize.
        unsafe {
            gemm::gemm(
                rows,
                n,
                depth,
                dst.as_mut_ptr(),
                1,
                n as isize,
                start > 0,
                lhs.values.as_ptr().add(start),
                1,
                lhs_stride as isize,
                rhs.values.as_ptr().add(start * rhs.stride),
                1,
                rhs.stride as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    }
    dst.truncate(m * n);
    dst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn equals_the_definition() {
        for (m, n, k) in [(1, 1, 1), (1, 7, 3), (5, 1, 40), (3, 16, 64), (33, 20, 600), (2, 2, 0)] {
            let (a, b) = (noise(m * k, 1), noise(k * n, 2));
            let got = product(m, n, k, Rows::dense(&a, k), Rows::dense(&b, n));
            for i in 0..m {
                for j in 0..n {
                    let sum = |p: usize| f64::from(a[i * k + p]) * f64::from(b[p * n + j]);
                    let want: f64 = (0..k).map(sum).sum();
                    assert!((f64::from(got[i * n + j]) - want).abs() < 1e-4, "{m} {n} {k}");
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others() {
        for (n, k) in [(1, 64), (2, 128), (8, 64), (33, 513), (128, 130), (300, 1500), (640, 64)] {
            let most = 200;
            let (a, b) = (noise(most * k, 3), noise(k * n, 4));
            let all = product(most, n, k, Rows::dense(&a, k), Rows::dense(&b, n));
            for m in (1..20).chain([63, 64, 65, 127]) {
                let few = product(m, n, k, Rows::dense(&a, k), Rows::dense(&b, n));
                assert!(few == all[..m * n], "{m} rows of {k} by {n}");
            }
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let (m, n, k) = (700, 300, 640);
        let (a, b) = (noise(m * k, 5), noise(k * n, 6));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| product(m, n, k, Rows::dense(&a, k), Rows::dense(&b, n)))
        };
        assert!(run(1) == run(2) && run(1) == run(5));
    }

    #[test]
    fn reads_a_matrix_with_gaps() {
        let b = noise(4 * 10, 7);
        let a = noise(2 * 4, 8);
        let packed: Vec<f32> = b.chunks(10).flat_map(|r| r[3..8].to_vec()).collect();
        let gaps = Rows { values: &b[3..], stride: 10 };
        let got = product(2, 5, 4, Rows::dense(&a, 4), gaps);
        assert_eq!(got, product(2, 5, 4, Rows::dense(&a, 4), Rows::dense(&packed, 5)));
    }
}
