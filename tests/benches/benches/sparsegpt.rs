//! How fast weights are made up for.

mod matrices;

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use matrices::{Matrix, pools, ratio};
use moeprune_core::{Dtype, InputHessian, MaskPattern, WeightReconstructor};
use moeprune_score::{NOfM, PerRow, SparseGpt};

fn sparsegpt(criterion: &mut Criterion) {
    let sparsegpt = SparseGpt::default();
    let group = NOfM::new(2, 4).expect("2 is below 4");
    let cases: [(_, &dyn MaskPattern, _); 3] =
        [("50%", &PerRow, 0.5), ("65%", &PerRow, 0.65), ("2:4", &group, 0.5)];
    for (rows, cols) in [(4864, 2048), (2048, 1408)] {
        let matrix = Matrix::new(Dtype::BF16, rows, cols);
        let weights = matrix.tensor.to_f32().expect("a float type");
        let hessian = hessian(cols);
        let mut criterion_group = criterion.benchmark_group(format!("sparsegpt {}", matrix.name()));
        criterion_group.throughput(Throughput::Elements(weights.len() as u64));
        for (threads, pool) in pools() {
            for (name, pattern, share) in &cases {
                criterion_group.bench_function(format!("{name}, {threads}"), |bencher| {
                    bencher.iter_batched(
                        || weights.clone(),
                        |mut weights| {
                            let linear = matrix.linear();
                            let share = ratio(*share);
                            let zeroed = pool.install(|| {
                                sparsegpt.reconstruct(
                                    &mut weights,
                                    &linear,
                                    &hessian,
                                    share,
                                    *pattern,
                                )
                            });
                            (zeroed.expect("weights are finite"), weights)
                        },
                        BatchSize::PerIteration,
                    );
                });
            }
        }
        criterion_group.finish();
    }
}

/// Of inputs that go along with their neighbours, some of them far larger than others.
fn hessian(cols: usize) -> InputHessian {
    let scale = |j: usize| (-((j * 7919 % 997) as f64) / 200.0).exp();
    let sum = |i: usize, j: usize| {
        4096.0 * scale(i) * scale(j) * 0.9f64.powi(i.abs_diff(j).min(500) as i32)
    };
    let sums = (0..cols * cols).map(|at| sum(at / cols, at % cols) as f32).collect();
    InputHessian::new(4096, 2, cols, sums).expect("square")
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(3));
    targets = sparsegpt
}
criterion_main!(benches);
