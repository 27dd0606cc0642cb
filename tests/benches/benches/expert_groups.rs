//! How long it takes to find which experts of a layer are alike, and to group them.
//!
//! Routers are as wide as Arctic's; the numbers of experts are those of large models.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use moeprune::{
    cluster::{Agglomerative, KMeans, Linkage, ReferenceLinkage},
    core::{
        DistanceMatrix, ExpertBudget, ExpertClustering, ExpertSimilarity, LayerBehaviour,
        MatrixView, RoutingSums,
    },
    similarity::{CoActivation, Mixed, RouterDistance},
};

const HIDDEN: usize = 7168;
const EXPERTS: [usize; 3] = [128, 256, 512];

/// A router, and what it chose for 4096 tokens.
struct Router {
    experts: usize,
    weights: Vec<f32>,
    routing: RoutingSums,
}

impl Router {
    fn new(experts: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 32
        };
        let weights =
            (0..experts * HIDDEN).map(|_| random() as f32 / 2.0_f32.powi(32) - 0.5).collect();
        let mut routing = RoutingSums::new(experts, 2);
        for _ in 0..4096 {
            let first = random() as usize % experts;
            let second = (first + 1 + random() as usize % (experts - 1)) % experts;
            routing.tokens += 1;
            for (one, other) in [(first, second), (second, first)] {
                routing.counts[one] += 1;
                routing.coactivation[one * experts + other] += 1;
                routing.gate_sums[one] += 0.5;
            }
        }
        Self { experts, weights, routing }
    }

    fn behaviour(&self) -> LayerBehaviour<'_> {
        let router = MatrixView::new(self.experts, HIDDEN, &self.weights).expect("a matrix");
        LayerBehaviour { routing: Some(&self.routing), ..LayerBehaviour::new(0, router) }
    }

    fn distances(&self) -> DistanceMatrix {
        RouterDistance::default().distances(&self.behaviour()).expect("distances")
    }
}

fn similarities(criterion: &mut Criterion) {
    let router = RouterDistance::default();
    let coactivation = CoActivation::default();
    let mixed = Mixed::default();
    let all: [(&str, &dyn ExpertSimilarity); 3] =
        [("router distance", &router), ("co-activation", &coactivation), ("both", &mixed)];
    let mut group = criterion.benchmark_group("similarity of a layer's experts");
    for experts in EXPERTS {
        let layer = Router::new(experts);
        for (name, similarity) in all {
            group.bench_function(BenchmarkId::new(name, experts), |bencher| {
                bencher.iter(|| similarity.distances(&layer.behaviour()).expect("distances"));
            });
        }
    }
    group.finish();
}

fn clusterings(criterion: &mut Criterion) {
    let complete = Agglomerative { linkage: Linkage::Complete };
    let average = Agglomerative { linkage: Linkage::Average };
    let k_means = KMeans::default();
    let all: [(&str, &dyn ExpertClustering); 4] = [
        ("complete linkage", &complete),
        ("average linkage", &average),
        ("reference", &ReferenceLinkage),
        ("k-means", &k_means),
    ];
    let mut group = criterion.benchmark_group("clusters of four fifths as many experts");
    group.sample_size(10);
    for experts in EXPERTS {
        let layers = [Router::new(experts).distances()];
        let budget = ExpertBudget::Uniform { keep: experts * 4 / 5 };
        for (name, clustering) in all {
            // Its ten starts take about a minute there.
            if name == "k-means" && experts > 256 {
                continue;
            }
            group.bench_function(BenchmarkId::new(name, experts), |bencher| {
                bencher.iter(|| clustering.cluster(&layers, &budget).expect("clusters"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, similarities, clusterings);
criterion_main!(benches);
