//! Which member survives and why: cases by hand, an exhaustive comparison, hostile inputs.

use std::{ops::Range, sync::Mutex};

use moeprune_core::{
    ClusteredLayer, ExpertSelector, ExpertWeights, MatrixView, Partition, StageError, Survivor,
    SurvivorReason as Reason,
};
use moeprune_select::{NearestToMean, Precision};
use proptest::prelude::*;

/// Experts in memory, and which parameters of them were read.
#[derive(Default)]
struct Experts {
    parameters: Vec<Vec<f32>>,
    reads: Mutex<Vec<(usize, Range<usize>)>>,
}

impl Experts {
    fn new<const N: usize>(parameters: &[[f32; N]]) -> Self {
        let parameters = parameters.iter().map(|p| p.to_vec()).collect();
        Self { parameters, ..Self::default() }
    }
}

impl Experts {
    /// What was read, in order of experts and parameters.
    fn reads(self) -> Vec<(usize, Range<usize>)> {
        let mut reads = self.reads.into_inner().unwrap();
        reads.sort_unstable_by_key(|(expert, range)| (*expert, range.start));
        reads
    }
}

impl ExpertWeights for Experts {
    fn parameters(&self) -> usize {
        self.parameters.first().map_or(0, Vec::len)
    }

    fn read(&self, expert: usize, start: usize, out: &mut [f32]) -> Result<(), StageError> {
        self.reads.lock().unwrap().push((expert, start..start + out.len()));
        let expert = self.parameters.get(expert).ok_or("no such expert")?;
        out.copy_from_slice(expert.get(start..start + out.len()).ok_or("no such parameters")?);
        Ok(())
    }
}

fn select(
    selector: NearestToMean,
    experts: &Experts,
    clusters: &[&[usize]],
    tokens: Option<&[u64]>,
) -> Result<Vec<Survivor>, String> {
    let n = clusters.iter().map(|c| c.len()).sum();
    let partition = Partition::new(n, clusters.iter().map(|c| c.to_vec()).collect()).unwrap();
    let rows = vec![0.0; n];
    let router = MatrixView::new(n, 1, &rows).unwrap();
    let layer = ClusteredLayer { layer: 0, partition: &partition, router, tokens };
    selector.select(&layer, experts).map_err(|e| e.to_string())
}

/// Never averages.
const F64: NearestToMean =
    NearestToMean { merge_when_clusters_at_most: Some(0), precision: Precision::F64 };
const BF16: NearestToMean = NearestToMean { precision: Precision::ReferenceBf16, ..F64 };

#[track_caller]
fn check(
    selector: NearestToMean,
    experts: &Experts,
    clusters: &[&[usize]],
    tokens: Option<&[u64]>,
    expected: &[(usize, Reason)],
) {
    let got = select(selector, experts, clusters, tokens).unwrap();
    let got: Vec<(usize, Reason)> = got.iter().map(|s| (s.source, s.reason)).collect();
    assert_eq!(got, expected);
}

#[test]
fn the_nearest_survives() {
    let experts = Experts::new(&[[0.0, 0.0], [1.0, 1.0], [5.0, 0.0]]);
    check(F64, &experts, &[&[0, 1, 2]], None, &[(1, Reason::NearestToMean)]);
}

#[test]
fn tokens_do_not_outvote_distance() {
    let experts = Experts::new(&[[0.0], [1.0], [5.0]]);
    check(F64, &experts, &[&[0, 1, 2]], Some(&[9, 0, 9]), &[(1, Reason::NearestToMean)]);
}

#[test]
fn pairs_go_to_the_busier_expert_unread() {
    let experts = Experts::default();
    check(F64, &experts, &[&[0, 1]], Some(&[3, 4]), &[(1, Reason::MoreTokens)]);
    check(F64, &experts, &[&[0, 1]], Some(&[4, 4]), &[(0, Reason::LowestIndex)]);
    check(F64, &experts, &[&[0, 1]], None, &[(0, Reason::LowestIndex)]);
    assert!(experts.reads.lock().unwrap().is_empty());
}

#[test]
fn singletons_are_not_read() {
    let experts = Experts::default();
    let expected = [(0, Reason::Alone), (1, Reason::Alone), (2, Reason::Alone)];
    check(F64, &experts, &[&[0], &[1], &[2]], Some(&[1, 2, 3]), &expected);
    check(BF16, &experts, &[&[0], &[1], &[2]], None, &expected);
    assert!(experts.reads.lock().unwrap().is_empty());
}

#[test]
fn each_member_is_read_once() {
    let experts = Experts::new(&[[0.0], [9.0], [1.0], [5.0]]);
    check(
        F64,
        &experts,
        &[&[0, 2, 3], &[1]],
        None,
        &[(1, Reason::Alone), (2, Reason::NearestToMean)],
    );
    assert_eq!(experts.reads(), [(0, 0..1), (2, 0..1), (3, 0..1)]);
}

/// More parameters than are held at a time, of which the last decides.
#[test]
fn each_parameter_counts_once() {
    let parameters = 2_100_001;
    let expert = |last: f32| {
        let mut expert = vec![0.5; parameters];
        expert[parameters - 1] = last;
        expert
    };
    let parameters_of = vec![expert(9.0), expert(3.0), expert(0.0)];
    let experts = Experts { parameters: parameters_of, ..Experts::default() };
    check(F64, &experts, &[&[0, 1, 2]], None, &[(1, Reason::NearestToMean)]);
    let mut next = [0; 3];
    for (expert, range) in experts.reads() {
        assert_eq!(range.start, next[expert]);
        next[expert] = range.end;
    }
    assert_eq!(next, [parameters; 3]);
}

#[test]
fn survivors_ascend_by_source() {
    // The first cluster's survivor has the higher index.
    let experts = Experts::new(&[[0.0], [0.0], [9.0], [5.0]]);
    check(
        F64,
        &experts,
        &[&[0, 2, 3], &[1]],
        None,
        &[(1, Reason::Alone), (3, Reason::NearestToMean)],
    );
}

#[test]
fn copies_tie_exactly() {
    let copy = [0.1, -3.3e-5, 7.7e8];
    let experts = Experts::new(&[copy, copy, copy, [0.0, 0.0, 0.0]]);
    check(
        F64,
        &experts,
        &[&[0, 1, 2], &[3]],
        None,
        &[(0, Reason::LowestIndex), (3, Reason::Alone)],
    );
    let tokens = Some(&[1, 5, 5, 0][..]);
    check(
        F64,
        &experts,
        &[&[0, 1, 2], &[3]],
        tokens,
        &[(1, Reason::LowestIndex), (3, Reason::Alone)],
    );
    let tokens = Some(&[1, 5, 6, 0][..]);
    check(
        F64,
        &experts,
        &[&[0, 1, 2], &[3]],
        tokens,
        &[(2, Reason::MoreTokens), (3, Reason::Alone)],
    );
}

/// Permuted coordinates are equally far from the mean of all permutations, but their squares are
/// summed in another order.
#[test]
fn ties_survive_rounding() {
    let (a, b, c) = (0.1, 0.7, -1.3);
    let experts = Experts::new(&[[a, b, c], [c, a, b], [b, c, a]]);
    check(F64, &experts, &[&[0, 1, 2]], Some(&[1, 2, 1]), &[(1, Reason::MoreTokens)]);
}

/// Neighbouring f32 values: the mean is not one, and must not be rounded to one.
#[test]
fn experts_one_ulp_apart() {
    let x = 1.0f32 / 3.0;
    let up = f32::from_bits(x.to_bits() + 1);
    let far = f32::from_bits(x.to_bits() + 4);
    let experts = Experts::new(&[[x], [up], [far]]);
    check(F64, &experts, &[&[0, 1, 2]], None, &[(1, Reason::NearestToMean)]);
}

#[test]
fn few_clusters_are_averaged() {
    let experts = Experts::default();
    let got = select(NearestToMean::default(), &experts, &[&[0, 2, 4], &[1, 3]], None).unwrap();
    let average = |members: &[usize]| Survivor {
        source: members[0],
        reason: Reason::Averaged,
        average_of: members.to_vec(),
        average_weights: Vec::new(),
    };
    assert_eq!(got, [average(&[0, 2, 4]), average(&[1, 3])]);
    let got = select(NearestToMean::default(), &experts, &[&[0], &[1, 2]], None).unwrap();
    let alone = Survivor {
        source: 0,
        reason: Reason::Alone,
        average_of: vec![],
        average_weights: Vec::new(),
    };
    assert_eq!(got, [alone, average(&[1, 2])]);
    assert!(experts.reads.lock().unwrap().is_empty());
}

#[test]
fn the_number_of_clusters_decides_about_averaging() {
    let experts = Experts::default();
    let averaged = |kappa, clusters: &[&[usize]]| {
        let selector = NearestToMean { merge_when_clusters_at_most: Some(kappa), ..F64 };
        let survivors = select(selector, &experts, clusters, None).unwrap();
        survivors.iter().any(|s| !s.average_of.is_empty())
    };
    let (two, three): (&[&[usize]], &[&[usize]]) = (&[&[0, 1], &[2, 3]], &[&[0, 1], &[2, 3], &[4]]);
    assert!(!averaged(0, two) && !averaged(1, two) && averaged(2, two));
    assert!(!averaged(2, three) && averaged(3, three));
}

#[test]
fn the_reference_keeps_the_first_of_a_pair() {
    let experts = Experts::new(&[[0.5, 2.0], [0.25, 1.0]]);
    check(BF16, &experts, &[&[0, 1]], Some(&[0, 9]), &[(0, Reason::LowestIndex)]);
}

/// Three orthogonal experts at distances 6.325, 6.325 and 6.306 from their mean. The last is
/// nearest; in bf16, which has steps of 0.031 there, all three are 6.3125.
#[test]
fn the_reference_ties_where_f64_does_not() {
    let block = |e: usize, value: f32| -> Vec<f32> {
        (0..180).map(|at| if at / 60 == e { value } else { 0.0 }).collect()
    };
    let parameters = vec![block(0, 1.0), block(1, 1.0), block(2, 0.996_093_75)];
    let experts = Experts { parameters, ..Experts::default() };
    check(F64, &experts, &[&[0, 1, 2]], None, &[(2, Reason::NearestToMean)]);
    check(BF16, &experts, &[&[0, 1, 2]], None, &[(0, Reason::LowestIndex)]);
}

#[test]
fn the_reference_still_sees_large_differences() {
    let experts = Experts::new(&[[8.0], [1.0], [0.0]]);
    check(BF16, &experts, &[&[0, 1, 2]], None, &[(1, Reason::NearestToMean)]);
}

#[test]
fn nothing_to_select() {
    check(F64, &Experts::default(), &[], Some(&[]), &[]);
    // Experts without parameters are equal.
    let experts = Experts::new(&[[], [], []]);
    check(F64, &experts, &[&[0, 1, 2]], None, &[(0, Reason::LowestIndex)]);
}

#[track_caller]
fn fails(experts: &Experts, clusters: &[&[usize]], tokens: Option<&[u64]>, message: &str) {
    for selector in [F64, BF16] {
        let error = select(selector, experts, clusters, tokens).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn refusals_name_the_expert() {
    let three: &[&[usize]] = &[&[0, 1, 2]];
    fails(&Experts::new(&[[0.0], [1.0]]), three, None, "no such expert");
    fails(&Experts::new(&[[0.0], [f32::NAN], [1.0]]), three, None, "expert 1 has a weight");
    fails(&Experts::new(&[[0.0], [1.0], [f32::INFINITY]]), three, None, "expert 2 has a weight");
    let ragged = Experts {
        parameters: vec![vec![0.0; 3], vec![0.0; 3], vec![0.0; 2]],
        ..Experts::default()
    };
    fails(&ragged, three, None, "no such parameters");
    fails(&Experts::default(), three, Some(&[1, 2]), "for 2 experts and the layer has 3");
}

#[test]
fn the_largest_weights_do_not_overflow() {
    let experts = Experts::new(&[[f32::MAX; 4], [f32::MIN; 4], [0.0; 4]]);
    check(F64, &experts, &[&[0, 1, 2]], None, &[(2, Reason::NearestToMean)]);
}

#[test]
fn threads_do_not_matter() {
    let expert = |seed: u32| -> Vec<f32> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..200_000).map(next).collect()
    };
    let experts = Experts { parameters: (0..7).map(expert).collect(), ..Experts::default() };
    for selector in [F64, BF16] {
        let [one, two, five] = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let parameters = experts.parameters.clone();
            pool.install(move || {
                let experts = Experts { parameters, ..Experts::default() };
                select(selector, &experts, &[&[0, 3, 5, 6], &[1, 2, 4]], None).unwrap()
            })
        });
        assert!(one == two && one == five);
    }
}

#[test]
fn autotraits() {
    fn has_autotraits<T: Send + Sync + Unpin + 'static>() {}
    has_autotraits::<NearestToMean>();
    has_autotraits::<moeprune_select::Error>();
}

proptest! {
    /// Integer weights make everything exact: the survivor minimises the summed squared distance
    /// to its whole cluster, which is the objective the rule comes from.
    #[test]
    fn minimises_the_distance_to_its_cluster(
        weights in prop::collection::vec(prop::collection::vec(-9i32..9, 4), 3..8),
        tokens in prop::collection::vec(0u64..4, 8),
    ) {
        let m = weights.len();
        let parameters = weights.iter().map(|w| w.iter().map(|&x| x as f32).collect()).collect();
        let experts = Experts { parameters, ..Experts::default() };
        let cluster: Vec<usize> = (0..m).collect();
        let cost = |r: usize| -> i32 {
            let to = |j: usize| -> i32 {
                weights[r].iter().zip(&weights[j]).map(|(a, b)| (a - b).pow(2)).sum()
            };
            (0..m).map(to).sum()
        };
        let least = (0..m).map(cost).min().unwrap();
        let tied: Vec<usize> = (0..m).filter(|&r| cost(r) == least).collect();
        let most = tied.iter().map(|&r| tokens[r]).max().unwrap();
        let busiest: Vec<usize> = tied.iter().copied().filter(|&r| tokens[r] == most).collect();
        let reason = match (tied.len(), busiest.len()) {
            (1, _) => Reason::NearestToMean,
            (_, 1) => Reason::MoreTokens,
            _ => Reason::LowestIndex,
        };
        let got = select(F64, &experts, &[&cluster], Some(&tokens[..m])).unwrap();
        prop_assert_eq!((got[0].source, got[0].reason), (busiest[0], reason));
    }
}
