//! The dendrogram against a search over all pairs of clusters, and against kodama.

use moeprune_cluster::{Dendrogram, Linkage, Merge};
use moeprune_core::{DistanceMatrix, Partition};
use proptest::prelude::*;

const LINKAGES: [Linkage; 3] = [Linkage::Complete, Linkage::Average, Linkage::Single];

/// Looks at every member of every pair of clusters before each merge.
fn naive(d: &DistanceMatrix, linkage: Linkage) -> Vec<Merge> {
    let between = |p: &[usize], q: &[usize]| {
        let pairs = || p.iter().flat_map(|&i| q.iter().map(move |&j| d.at(i, j)));
        match linkage {
            Linkage::Complete => pairs().fold(f64::NEG_INFINITY, f64::max),
            Linkage::Average => pairs().sum::<f64>() / pairs().count() as f64,
            _ => pairs().fold(f64::INFINITY, f64::min),
        }
    };
    // Sorted by first member throughout: the later cluster joins the earlier one.
    let mut clusters: Vec<Vec<usize>> = (0..d.len()).map(|e| vec![e]).collect();
    let mut merges = Vec::new();
    while clusters.len() > 1 {
        let mut best = (f64::INFINITY, 0, 0);
        for p in 0..clusters.len() {
            for q in p + 1..clusters.len() {
                let height = between(&clusters[p], &clusters[q]);
                if height < best.0 {
                    best = (height, p, q);
                }
            }
        }
        let (height, p, q) = best;
        let absorbed = clusters.remove(q);
        merges.push(Merge { height, i: clusters[p][0], j: absorbed[0] });
        clusters[p].extend(absorbed);
    }
    merges
}

fn kodama(d: &DistanceMatrix, linkage: Linkage, clusters: usize) -> Partition {
    let n = d.len();
    let mut condensed: Vec<f64> = d.pairs().map(|(_, _, d)| d).collect();
    let method = match linkage {
        Linkage::Complete => kodama::Method::Complete,
        Linkage::Average => kodama::Method::Average,
        _ => kodama::Method::Single,
    };
    let dendrogram = kodama::linkage(&mut condensed, n, method);
    let mut members: Vec<Vec<usize>> = (0..n).map(|e| vec![e]).collect();
    for step in &dendrogram.steps()[..n - clusters] {
        let mut both = std::mem::take(&mut members[step.cluster1]);
        both.append(&mut members[step.cluster2]);
        members.push(both);
    }
    members.retain(|m| !m.is_empty());
    Partition::new(n, members).unwrap()
}

/// Distances from a pool: a small one makes ties.
fn layers(n: std::ops::Range<usize>, values: i32) -> impl Strategy<Value = DistanceMatrix> {
    n.prop_flat_map(move |n| {
        prop::collection::vec(-values / 4..values, n * n)
            .prop_map(move |v| DistanceMatrix::from_fn(n, |i, j| f64::from(v[i * n + j])).unwrap())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn equals_the_naive_search_with_ties(d in layers(1..14, 6)) {
        for linkage in [Linkage::Complete, Linkage::Single] {
            let dendrogram = Dendrogram::new(&d, linkage);
            prop_assert_eq!(dendrogram.merges(), naive(&d, linkage), "{:?}", linkage);
        }
    }

    #[test]
    fn equals_the_naive_search_without_ties(d in layers(1..20, i32::MAX)) {
        for linkage in LINKAGES {
            let got = Dendrogram::new(&d, linkage);
            let expected = naive(&d, linkage);
            prop_assert_eq!(got.merges().len(), expected.len());
            for (g, e) in got.merges().iter().zip(&expected) {
                prop_assert_eq!((g.i, g.j), (e.i, e.j));
                prop_assert!((g.height - e.height).abs() <= 1e-9 * e.height.abs());
            }
        }
    }

    #[test]
    fn equals_kodama_without_ties(d in layers(1..20, i32::MAX)) {
        for linkage in LINKAGES {
            let dendrogram = Dendrogram::new(&d, linkage);
            for clusters in 1..=d.len() {
                prop_assert_eq!(dendrogram.cut_into(clusters), kodama(&d, linkage, clusters));
            }
        }
    }

    #[test]
    fn heights_never_fall_and_cuts_agree(d in layers(1..20, 9)) {
        for linkage in LINKAGES {
            let dendrogram = Dendrogram::new(&d, linkage);
            let merges = dendrogram.merges();
            prop_assert!(merges.is_sorted_by(|a, b| a.height <= b.height));
            for clusters in 1..=d.len() {
                prop_assert_eq!(dendrogram.cut_into(clusters).len(), clusters);
            }
            for merge in merges {
                let below = dendrogram.cut_below(merge.height);
                prop_assert_eq!(&below, &dendrogram.cut_into(below.len()));
                if linkage == Linkage::Complete {
                    for cluster in below.clusters() {
                        for &i in cluster {
                            prop_assert!(cluster.iter().all(|&j| i == j || d.at(i, j) < merge.height));
                        }
                    }
                }
            }
        }
    }
}

/// Why the linkage is written here: of the tied pairs 12, 13 and 23, kodama merges 13.
#[test]
fn kodama_settles_ties_otherwise() {
    let mut values = [3.0, 3.0, 2.0, 1.0, 1.0, 1.0].into_iter();
    let d = DistanceMatrix::from_fn(4, |_, _| values.next().unwrap()).unwrap();
    let ours = Dendrogram::new(&d, Linkage::Complete).cut_into(3);
    assert_eq!(ours.clusters(), [vec![0], vec![1, 2], vec![3]]);
    assert_eq!(kodama(&d, Linkage::Complete, 3).clusters(), [vec![0], vec![1, 3], vec![2]]);
}

#[test]
fn equal_distances_merge_in_index_order() {
    for value in [0.1, 0.0, -0.3, 1e300] {
        let d = DistanceMatrix::from_fn(7, |_, _| value).unwrap();
        for linkage in LINKAGES {
            let dendrogram = Dendrogram::new(&d, linkage);
            let expected: Vec<Merge> = (1..7).map(|j| Merge { height: value, i: 0, j }).collect();
            assert_eq!(dendrogram.merges(), expected, "{linkage:?}");
        }
    }
}

#[test]
fn minus_zero_is_a_tie_with_zero() {
    let mut values = [0.0, -0.0, 0.0].into_iter();
    let d = DistanceMatrix::from_fn(3, |_, _| values.next().unwrap()).unwrap();
    for merge in Dendrogram::new(&d, Linkage::Complete).merges() {
        assert!(merge.height.is_sign_positive() && merge.i == 0);
    }
}

#[test]
fn extreme_distances() {
    let d = DistanceMatrix::from_fn(6, |i, j| if (i + j) % 2 == 0 { f64::MAX } else { f64::MIN });
    for linkage in LINKAGES {
        let dendrogram = Dendrogram::new(&d.clone().unwrap(), linkage);
        assert!(dendrogram.merges().iter().all(|m| m.height.is_finite()));
    }
}

#[test]
fn layers_of_no_and_one_expert() {
    for n in 0..2 {
        let d = DistanceMatrix::from_fn(n, |_, _| 0.0).unwrap();
        let dendrogram = Dendrogram::new(&d, Linkage::Complete);
        assert!(dendrogram.merges().is_empty());
        for cut in 0..3 {
            assert_eq!(dendrogram.cut_into(cut).len(), n);
        }
        assert_eq!(dendrogram.cut_below(f64::NAN).len(), n);
    }
}
