//! Every clustering under both budgets: exact counts, planted groups, hostile requests.

use std::slice;

use moeprune_cluster::{
    Agglomerative, Dendrogram, KMeans, Linkage, ReferenceLinkage, reference_clusters,
};
use moeprune_core::{DistanceMatrix, ExpertBudget, ExpertClustering, Partition};
use proptest::prelude::*;

fn all() -> Vec<Box<dyn ExpertClustering>> {
    let agglomerative = |linkage| Box::new(Agglomerative { linkage });
    vec![
        agglomerative(Linkage::Complete),
        agglomerative(Linkage::Average),
        agglomerative(Linkage::Single),
        Box::new(ReferenceLinkage),
        Box::new(KMeans { runs: 2, ..KMeans::default() }),
    ]
}

fn uniform(keep: usize) -> ExpertBudget {
    ExpertBudget::Uniform { keep }
}

fn global(keep: usize, min_per_layer: usize) -> ExpertBudget {
    ExpertBudget::Global { keep, min_per_layer }
}

fn line(at: &[f64]) -> DistanceMatrix {
    DistanceMatrix::from_fn(at.len(), |i, j| (at[i] - at[j]).abs()).unwrap()
}

/// Deterministic numbers in [0, 1) (splitmix64).
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Router rows of a layer, some of them near each other, and their distances.
fn router_layer(experts: usize, scale: f64, next: &mut impl FnMut() -> f64) -> DistanceMatrix {
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for e in 0..experts {
        let near = (e > 4 && next() < 0.3).then(|| rows[(next() * e as f64) as usize].clone());
        let spread = if near.is_some() { 0.3 } else { 1.0 };
        let base = near.unwrap_or_else(|| vec![0.0; 16]);
        rows.push(base.iter().map(|b| b + spread * scale * (next() - 0.5)).collect());
    }
    DistanceMatrix::from_fn(experts, |i, j| {
        rows[i].iter().zip(&rows[j]).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    })
    .unwrap()
}

fn counts(partitions: &[Partition]) -> Vec<usize> {
    partitions.iter().map(Partition::len).collect()
}

/// 35 layers of 128 experts, 910 of 4480 to go: the figures of Arctic.
#[test]
fn arctic_sized_global_budget() {
    let mut next = noise(1);
    let layers: Vec<DistanceMatrix> =
        (0..35).map(|l| router_layer(128, 1.0 + 0.02 * f64::from(l), &mut next)).collect();
    for clustering in all() {
        let partitions = clustering.cluster(&layers, &global(3570, 2)).unwrap();
        let counts = counts(&partitions);
        assert_eq!(counts.iter().sum::<usize>(), 3570, "{clustering:?}");
        assert!(counts.iter().any(|&c| c != 102), "one threshold leaves layers uneven");
        assert!(partitions.iter().all(|p| p.experts() == 128));
    }
    for clustering in all() {
        let partitions = clustering.cluster(&layers[..3], &uniform(102)).unwrap();
        assert_eq!(counts(&partitions), [102; 3], "{clustering:?}");
    }
}

/// Where the released code's search would have stopped, the budget gives what it gives.
#[test]
fn a_count_some_threshold_has_is_the_reference_itself() {
    let mut next = noise(7);
    let layers: Vec<DistanceMatrix> = (0..6).map(|_| router_layer(32, 1.0, &mut next)).collect();
    let mut checked = 0;
    for step in 1..12 {
        let t = 0.1 * f64::from(step);
        let expected: Vec<Partition> =
            layers.iter().map(|d| reference_clusters(d, t, 127)).collect();
        let keep = counts(&expected).iter().sum();
        if !(7..192).contains(&keep) {
            continue;
        }
        checked += 1;
        let got = ReferenceLinkage.cluster(&layers, &global(keep, 1)).unwrap();
        assert_eq!(got, expected, "threshold {t}, {keep} left");
    }
    assert!(checked >= 5, "{checked}");
}

#[test]
fn global_complete_linkage_is_one_threshold() {
    let mut next = noise(3);
    let layers: Vec<DistanceMatrix> = (0..6).map(|_| router_layer(32, 1.0, &mut next)).collect();
    for t in [0.3, 0.6, 0.9, 1.2] {
        let expected: Vec<Partition> =
            layers.iter().map(|d| Dendrogram::new(d, Linkage::Complete).cut_below(t)).collect();
        let keep = counts(&expected).iter().sum();
        let got = Agglomerative::default().cluster(&layers, &global(keep, 1)).unwrap();
        assert_eq!(got, expected);
    }
}

#[test]
fn planted_groups_are_found() {
    // Groups of 1, 2, 3 and 4 experts, scattered over the indices.
    let group = [3, 1, 2, 3, 0, 2, 3, 1, 2, 3];
    let layer = |jitter: f64| {
        DistanceMatrix::from_fn(10, |i, j| {
            let within = jitter * ((i * 7 + j * 3) % 5) as f64;
            if group[i] == group[j] { 0.1 + within } else { 5.0 + within }
        })
        .unwrap()
    };
    let expected = [vec![0, 3, 6, 9], vec![1, 7], vec![2, 5, 8], vec![4]];
    for clustering in all() {
        for jitter in [0.0, 0.02] {
            for budget in [uniform(4), global(8, 1)] {
                let got = clustering.cluster(&[layer(jitter), layer(jitter)], &budget).unwrap();
                for partition in got {
                    assert_eq!(partition.clusters(), expected, "{clustering:?} {budget:?}");
                }
            }
        }
    }
}

/// Groups planted in one layer only: a global budget takes everything from there.
#[test]
fn a_global_budget_prunes_where_experts_are_alike() {
    let alike = line(&[0.0, 0.1, 0.2, 10.0]);
    let distinct = line(&[0.0, 5.0, 10.0, 15.0]);
    for clustering in all() {
        let got = clustering.cluster(&[distinct.clone(), alike.clone()], &global(6, 1)).unwrap();
        assert_eq!(counts(&got), [4, 2], "{clustering:?}");
        assert_eq!(got[1].clusters(), [vec![0, 1, 2], vec![3]]);
    }
}

#[test]
fn a_layer_stops_at_its_minimum() {
    let alike = line(&[0.0, 0.1, 0.2, 0.3]);
    let distinct = line(&[0.0, 5.0, 10.0, 15.0]);
    for clustering in all() {
        for (minimum, expected) in [(1, [1, 4]), (2, [2, 3])] {
            let layers = [alike.clone(), distinct.clone()];
            let got = clustering.cluster(&layers, &global(5, minimum)).unwrap();
            assert_eq!(counts(&got), expected, "{clustering:?}");
        }
    }
}

#[test]
fn ties_go_to_the_earlier_layer() {
    let equal = DistanceMatrix::from_fn(4, |_, _| 0.1).unwrap();
    for clustering in all() {
        for (keep, expected) in [(11, [3, 4, 4]), (8, [1, 3, 4]), (6, [1, 1, 4]), (3, [1, 1, 1])] {
            let got = clustering.cluster(&vec![equal.clone(); 3], &global(keep, 1)).unwrap();
            assert_eq!(counts(&got), expected, "{clustering:?}");
        }
    }
    let linkages = [Linkage::Complete, Linkage::Average, Linkage::Single];
    for linkage in linkages {
        let got = Agglomerative { linkage }.cluster(slice::from_ref(&equal), &uniform(2)).unwrap();
        assert_eq!(got[0].clusters(), [vec![0, 1, 2], vec![3]]);
    }
    // Every pair is below the threshold that is found, and is merged in order up to the count.
    let got = ReferenceLinkage.cluster(&[equal], &uniform(2)).unwrap();
    assert_eq!(got[0].clusters(), [vec![0, 1, 2], vec![3]]);
}

/// The layer whose count rises with the threshold: every count is met all the same.
#[test]
fn every_count_is_met_where_thresholds_skip_it() {
    let mut values = [4.0, 6.0, 2.0, 9.0, 8.0, 7.0, 10.0, 1.0, 3.0, 5.0].into_iter();
    let d = DistanceMatrix::from_fn(5, |_, _| values.next().unwrap()).unwrap();
    for keep in 1..=5 {
        for budget in [uniform(keep), global(keep, 1)] {
            let got = ReferenceLinkage.cluster(slice::from_ref(&d), &budget).unwrap();
            assert_eq!(got[0].len(), keep);
        }
    }
}

#[test]
fn infeasible_budgets_are_refused() {
    let layers = [line(&[0.0, 1.0, 2.0]), line(&[0.0, 1.0])];
    for clustering in all() {
        for budget in
            [uniform(0), uniform(3), global(6, 1), global(1, 1), global(3, 2), global(0, 0)]
        {
            let error = clustering.cluster(&layers, &budget).unwrap_err().to_string();
            assert!(error.contains("cannot keep"), "{clustering:?} {budget:?}: {error}");
        }
    }
    let empty = line(&[]);
    for clustering in all() {
        assert!(clustering.cluster(slice::from_ref(&empty), &uniform(1)).is_err());
    }
}

#[test]
fn small_and_absent_layers() {
    for clustering in all() {
        assert_eq!(clustering.cluster(&[], &uniform(4)).unwrap(), []);
        assert_eq!(clustering.cluster(&[], &global(0, 2)).unwrap(), []);
        let one = clustering.cluster(&[line(&[1.0])], &uniform(1)).unwrap();
        assert_eq!(one[0].clusters(), [[0]]);
        // An empty layer has nothing to lose; a minimum above a layer's size keeps it whole.
        let layers = [line(&[]), line(&[1.0]), line(&[0.0, 1.0, 2.0])];
        let got = clustering.cluster(&layers, &global(3, 2)).unwrap();
        assert_eq!(counts(&got), [0, 1, 2], "{clustering:?}");
        let all = clustering.cluster(&layers, &global(4, 9)).unwrap();
        assert_eq!(counts(&all), [0, 1, 3], "{clustering:?}");
    }
}

#[test]
fn k_means_needs_a_run() {
    let clustering = KMeans { runs: 0, ..KMeans::default() };
    let error = clustering.cluster(&[line(&[0.0, 1.0])], &uniform(1)).unwrap_err();
    assert!(error.to_string().contains("at least 1 run"));
}

#[test]
fn k_means_hits_the_count_on_experts_without_spread() {
    for value in [0.0, -2.0, 1e-300, f64::MAX] {
        let d = DistanceMatrix::from_fn(6, |_, _| value).unwrap();
        for keep in 1..=6 {
            let got = KMeans::default().cluster(slice::from_ref(&d), &uniform(keep)).unwrap();
            assert_eq!(got[0].len(), keep, "{value}");
        }
    }
}

#[test]
fn k_means_depends_on_its_seed_and_the_layer_only() {
    let mut next = noise(5);
    let layers: Vec<DistanceMatrix> = (0..2).map(|_| router_layer(40, 1.0, &mut next)).collect();
    let run = |seed, layers: &[DistanceMatrix]| {
        KMeans { seed, runs: 1 }.cluster(layers, &uniform(10)).unwrap()
    };
    assert_eq!(run(0, &layers)[1], run(0, &layers[1..])[0]);
    assert!((1..20).any(|seed| run(seed, &layers) != run(0, &layers)));
}

#[test]
fn threads_do_not_matter() {
    let mut next = noise(9);
    let layers: Vec<DistanceMatrix> = (0..3).map(|_| router_layer(48, 1.0, &mut next)).collect();
    for clustering in all() {
        let [one, two, five] = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| clustering.cluster(&layers, &global(90, 2)).unwrap())
        });
        assert!(one == two && one == five, "{clustering:?}");
    }
}

#[test]
fn autotraits() {
    fn has_autotraits<T: Send + Sync + Unpin + 'static>() {}
    has_autotraits::<Agglomerative>();
    has_autotraits::<ReferenceLinkage>();
    has_autotraits::<KMeans>();
    has_autotraits::<Dendrogram>();
    has_autotraits::<moeprune_cluster::Error>();
}

/// Layers of 0 to 9 experts with distances from a small or a large pool, negative ones too.
fn layers() -> impl Strategy<Value = Vec<DistanceMatrix>> {
    let layer = (0usize..10, prop_oneof![Just(3i32), Just(1000)]).prop_flat_map(|(n, values)| {
        prop::collection::vec(-values..values, n * n).prop_map(move |v| {
            DistanceMatrix::from_fn(n, |i, j| f64::from(v[i * n + j]) / 7.0).unwrap()
        })
    });
    prop::collection::vec(layer, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn counts_are_exact(layers in layers(), keep in 0.0f64..1.0, minimum in 0usize..4) {
        let sizes: Vec<usize> = layers.iter().map(DistanceMatrix::len).collect();
        let floor: usize = sizes.iter().map(|&n| n.min(minimum.max(1))).sum();
        let total: usize = sizes.iter().sum();
        let between = |low: usize, high: usize| low + (keep * (high - low + 1) as f64) as usize;
        let kept = between(floor, total);
        for clustering in all() {
            let got = clustering.cluster(&layers, &global(kept, minimum)).unwrap();
            prop_assert_eq!(counts(&got).iter().sum::<usize>(), kept, "{:?}", clustering);
            for (partition, &n) in got.iter().zip(&sizes) {
                prop_assert_eq!(partition.experts(), n);
                prop_assert!(partition.len() >= n.min(minimum.max(1)));
                prop_assert_eq!(&Partition::new(n, partition.clusters().to_vec()).unwrap(), partition);
            }
            let fewest = *sizes.iter().min().unwrap();
            if fewest > 0 {
                let each = between(1, fewest);
                let got = clustering.cluster(&layers, &uniform(each)).unwrap();
                prop_assert_eq!(counts(&got), vec![each; layers.len()], "{:?}", clustering);
            }
        }
    }

    /// A tighter global budget only merges further.
    #[test]
    fn agglomerative_partitions_are_nested(layers in layers()) {
        let total: usize = layers.iter().map(DistanceMatrix::len).sum();
        let floor = layers.iter().filter(|d| !d.is_empty()).count();
        for linkage in [Linkage::Complete, Linkage::Average, Linkage::Single] {
            let cut = |keep| Agglomerative { linkage }.cluster(&layers, &global(keep, 1)).unwrap();
            for keep in floor..total {
                let (fine, coarse) = (cut(keep + 1), cut(keep));
                for (fine, coarse) in fine.iter().zip(&coarse) {
                    for cluster in fine.clusters() {
                        let inside = |c: &Vec<usize>| cluster.iter().all(|e| c.contains(e));
                        prop_assert!(coarse.clusters().iter().any(inside));
                    }
                }
            }
        }
    }
}
