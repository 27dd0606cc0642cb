//! How fast matrices are pruned in place, beside how fast their bytes can be gone through at all.

mod matrices;

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use matrices::{Matrix, pools, ratio};
use moeprune_core::{Dtype, TensorBytes, WeightScorer};
use moeprune_score::{Magnitude, MaskPattern, NOfM, PerRow, Rounding, Wanda, prune_matrix};
use rayon::prelude::*;

fn masks(criterion: &mut Criterion) {
    let two_of_four = NOfM::new(2, 4).expect("2 is below 4");
    let wanda = Wanda::default();
    type Case<'a> = (&'a str, &'a dyn WeightScorer, &'a dyn MaskPattern, f64);
    let cases: [Case<'_>; 7] = [
        ("wanda 65%", &wanda, &PerRow, 0.65),
        ("wanda 50%", &wanda, &PerRow, 0.5),
        ("magnitude 65%", &Magnitude, &PerRow, 0.65),
        ("magnitude 50%", &Magnitude, &PerRow, 0.5),
        ("wanda 2:4", &wanda, &two_of_four, 0.5),
        ("magnitude 2:4", &Magnitude, &two_of_four, 0.5),
        ("all but the choice: wanda", &wanda, &Nothing, 0.0),
    ];
    // The main shape in every way, the others by Wanda at 65 %.
    let shapes = [
        (Dtype::BF16, 4864, 7168, cases.len()),
        (Dtype::BF16, 7168, 4864, 1),
        (Dtype::BF16, 14336, 4096, 1),
        (Dtype::BF16, 1408, 2048, 1),
        (Dtype::F32, 4864, 7168, 1),
        (Dtype::F16, 4864, 7168, 1),
    ];
    for (dtype, rows, cols, cases_here) in shapes {
        let matrix = Matrix::new(dtype, rows, cols);
        let mut group = criterion.benchmark_group(matrix.name());
        group.throughput(Throughput::Bytes(matrix.size()));
        for (threads, pool) in pools() {
            for &(name, scorer, pattern, share) in &cases[..cases_here] {
                group.bench_function(format!("{name}, {threads}"), |bencher| {
                    bencher.iter_batched(
                        || matrix.tensor.clone(),
                        |tensor| pool.install(|| prune(&matrix, tensor, scorer, pattern, share)),
                        BatchSize::PerIteration,
                    );
                });
            }
            if cases_here > 1 {
                group.bench_function(
                    format!("a loop that rewrites the bytes, {threads}"),
                    |bencher| {
                        bencher.iter_batched(
                            || matrix.tensor.clone().into_bytes(),
                            |mut bytes| pool.install(|| rewrite(&mut bytes, cols)),
                            BatchSize::PerIteration,
                        );
                    },
                );
                group.bench_function(format!("borrowed: wanda 65%, {threads}"), |bencher| {
                    bencher.iter(|| {
                        let borrowed = TensorBytes::new(dtype, [rows, cols], matrix.tensor.bytes())
                            .expect("same shape");
                        pool.install(|| prune(&matrix, borrowed, &wanda, &PerRow, 0.65))
                    });
                });
            }
        }
        group.finish();
    }
}

/// Leaves all weights, so that what remains is decoding, scoring and checking.
#[derive(Debug)]
struct Nothing;

impl MaskPattern for Nothing {
    fn mask_row(&self, _: &[f32], _: usize, _: &mut [bool]) {}
}

fn prune(
    matrix: &Matrix,
    tensor: TensorBytes<'_>,
    scorer: &dyn WeightScorer,
    pattern: &dyn MaskPattern,
    share: f64,
) -> TensorBytes<'static> {
    prune_matrix(tensor, &matrix.linear(), ratio(share), scorer, pattern, Rounding::default())
        .expect("weights are finite")
        .tensor
}

/// Reads and writes every byte in a plain loop, a row at a time.
fn rewrite(bytes: &mut [u8], cols: usize) -> u8 {
    bytes.par_chunks_mut(2 * cols).for_each(|row| row.iter_mut().for_each(|byte| *byte ^= 1));
    black_box(bytes[0])
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = masks
}
criterion_main!(benches);
