//! How fast the two passes that OWL counts outliers with go through a matrix.

mod matrices;

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use matrices::{Matrix, pools};
use moeprune_core::Dtype;
use moeprune_score::{Wanda, count_above, score_sum};
use rayon::prelude::*;

fn outliers(criterion: &mut Criterion) {
    let wanda = Wanda::default();
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        let matrix = Matrix::new(dtype, 4864, 7168);
        let linear = matrix.linear();
        let sum = score_sum(&matrix.tensor, &linear, &wanda).expect("weights are finite");
        let threshold = sum.threshold(5.0).expect("there are scores");
        let mut group = criterion.benchmark_group(matrix.name());
        group.throughput(Throughput::Bytes(matrix.size()));
        for (threads, pool) in pools() {
            group.bench_function(format!("score_sum, {threads}"), |bencher| {
                bencher.iter(|| pool.install(|| score_sum(&matrix.tensor, &linear, &wanda)));
            });
            group.bench_function(format!("count_above, {threads}"), |bencher| {
                let pass = || count_above(&matrix.tensor, &linear, &wanda, threshold);
                bencher.iter(|| pool.install(pass));
            });
            group.bench_function(format!("a loop that reads the bytes, {threads}"), |bencher| {
                bencher.iter(|| pool.install(|| read(black_box(matrix.tensor.bytes()))));
            });
        }
        group.finish();
    }
}

/// Reads every byte in a plain loop.
fn read(bytes: &[u8]) -> u64 {
    let sum = |some: &[u8]| {
        let words = some.as_chunks::<8>().0.iter().map(|&word| u64::from_le_bytes(word));
        words.fold(0, u64::wrapping_add)
    };
    bytes.par_chunks(1 << 14).map(sum).reduce(|| 0, u64::wrapping_add)
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = outliers
}
criterion_main!(benches);
