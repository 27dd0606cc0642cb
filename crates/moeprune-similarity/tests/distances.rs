//! Every similarity against values worked out by hand, its errors, and properties.

use moeprune_core::{ExpertSimilarity, LayerBehaviour, MatrixView, RoutingSums};
use moeprune_similarity::{
    CoActivation, CoActivationScaling as Scaling, Error, Mixed, RouterDistance, RouterNormalization,
};
use proptest::prelude::*;

/// Rows (0,0), (3,4), (0,8): distances 5, 8, 5; Frobenius norm sqrt(89).
const ROUTER: [f32; 6] = [0.0, 0.0, 3.0, 4.0, 0.0, 8.0];

/// 10 tokens, top-2: pairs 01 × 6, 02 × 3, 12 × 1.
fn routing() -> RoutingSums {
    RoutingSums {
        tokens: 10,
        counts: vec![9, 7, 4],
        coactivation: vec![0, 6, 3, 6, 0, 1, 3, 1, 0],
        ..RoutingSums::new(3, 2)
    }
}

fn distances(
    similarity: &dyn ExpertSimilarity,
    router: &[f32],
    experts: usize,
    routing: Option<&RoutingSums>,
) -> Result<Vec<f64>, String> {
    let cols = router.len().checked_div(experts).unwrap_or(0);
    let router = MatrixView::new(experts, cols, router).unwrap();
    let layer = LayerBehaviour { routing, ..LayerBehaviour::new(0, router) };
    similarity
        .distances(&layer)
        .map(|d| d.pairs().map(|(_, _, d)| d).collect())
        .map_err(|e| e.to_string())
}

#[track_caller]
fn check(similarity: impl ExpertSimilarity, expected: [f64; 3]) {
    let got = distances(&similarity, &ROUTER, 3, Some(&routing())).unwrap();
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() < 1e-15 * e.abs().max(1.0), "{similarity:?}: {got:?}, {expected:?}");
    }
    let without = distances(&similarity, &ROUTER, 3, None);
    assert_eq!(without.is_err(), similarity.needs_observation(), "{similarity:?}");
}

#[track_caller]
fn fails(similarity: impl ExpertSimilarity, routing: Option<&RoutingSums>, message: &str) {
    let error = distances(&similarity, &ROUTER, 3, routing).unwrap_err();
    assert!(error.contains(message), "{error}");
}

#[test]
fn router_rows() {
    check(RouterDistance::default(), [5.0, 8.0, 5.0]);
}

#[test]
fn router_rows_over_frobenius_norm() {
    let f = 89f64.sqrt();
    let normalization = RouterNormalization::FrobeniusNorm;
    check(
        RouterDistance { normalization, ..RouterDistance::default() },
        [5.0 / f, 8.0 / f, 5.0 / f],
    );
}

#[test]
fn coactivation_counts() {
    check(CoActivation { scaling: Scaling::Counts }, [-6.0, -3.0, -1.0]);
}

#[test]
fn coactivation_over_mean_of_all_entries() {
    let mean = 20.0 / 9.0;
    check(CoActivation::default(), [-6.0 / mean, -3.0 / mean, -1.0 / mean]);
}

#[test]
fn coactivation_cosine() {
    let expected = [-6.0 / 63f64.sqrt(), -0.5, -1.0 / 28f64.sqrt()];
    check(CoActivation { scaling: Scaling::Cosine }, expected);
}

#[test]
fn coactivation_jaccard() {
    check(CoActivation { scaling: Scaling::Jaccard }, [-0.6, -0.3, -0.1]);
}

#[test]
fn mixed() {
    let m = 20.0 / 9.0;
    check(Mixed::default(), [5.0 - 6.0 / m, 8.0 - 3.0 / m, 5.0 - 1.0 / m]);
    let mix = Mixed { router_weight: 2.0, coactivation_weight: 0.5, ..Mixed::default() };
    check(mix, [10.0 - 3.0 / m, 16.0 - 1.5 / m, 10.0 - 0.5 / m]);
}

#[test]
fn a_weight_of_zero_drops_its_part() {
    let router_only = Mixed { coactivation_weight: 0.0, ..Mixed::default() };
    check(router_only, [5.0, 8.0, 5.0]);
    let coactivation = CoActivation { scaling: Scaling::Counts };
    check(Mixed { router_weight: 0.0, coactivation, ..Mixed::default() }, [-6.0, -3.0, -1.0]);
}

#[test]
fn unused_experts_are_not_alike() {
    let routing = RoutingSums {
        tokens: 4,
        counts: vec![4, 4, 0],
        coactivation: vec![0, 4, 0, 4, 0, 0, 0, 0, 0],
        ..RoutingSums::new(3, 2)
    };
    for scaling in [Scaling::Cosine, Scaling::Jaccard] {
        let got = distances(&CoActivation { scaling }, &ROUTER, 3, Some(&routing)).unwrap();
        assert_eq!(got, [-1.0, 0.0, 0.0]);
    }
}

#[test]
fn refusals_say_what_to_do() {
    fails(CoActivation::default(), None, "observe the model");
    fails(Mixed::default(), None, "observe the model");
    fails(CoActivation::default(), Some(&RoutingSums::new(4, 2)), "4 experts and the router has 3");
    fails(CoActivation::default(), Some(&RoutingSums::new(3, 2)), "0 tokens, top-2");
    fails(CoActivation::default(), Some(&RoutingSums::new(3, 2)), "observe more text");
    fails(
        CoActivation::default(),
        Some(&RoutingSums::new(3, 1)),
        "one expert per token never does",
    );
    let short = RoutingSums { coactivation: vec![0; 8], ..routing() };
    fails(CoActivation::default(), Some(&short), "9 counts, got 8");
    let impossible = RoutingSums { counts: vec![9, 2, 4], ..routing() };
    fails(CoActivation::default(), Some(&impossible), "6 tokens chose experts 0 and 1");
    let huge = RoutingSums { coactivation: vec![u64::MAX; 9], ..routing() };
    fails(CoActivation { scaling: Scaling::Jaccard }, Some(&huge), "contradicts itself");
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        fails(Mixed { router_weight: bad, ..Mixed::default() }, None, "router_weight must be");
    }
    let scaled = RouterDistance {
        normalization: RouterNormalization::FrobeniusNorm,
        ..RouterDistance::default()
    };
    assert!(distances(&scaled, &[0.0; 6], 3, None).unwrap_err().contains("all zeros"));
    assert!(distances(&RouterDistance::default(), &[f32::NAN; 6], 3, None).is_err());
}

#[test]
fn the_largest_weights_do_not_overflow() {
    let router = [f32::MAX, f32::MAX, f32::MIN, f32::MIN, 0.0, 0.0];
    let got = distances(&RouterDistance::default(), &router, 3, None).unwrap();
    assert!(got.iter().all(|d| d.is_finite() && *d > 0.0));
}

#[test]
fn layers_of_no_and_one_expert() {
    for n in [0, 1] {
        let routing = RoutingSums::new(n, 1);
        let router = vec![0.0; 2 * n];
        for normalization in [RouterNormalization::None, RouterNormalization::FrobeniusNorm] {
            let got = distances(
                &RouterDistance { normalization, ..RouterDistance::default() },
                &router,
                n,
                None,
            );
            assert_eq!(got.unwrap(), [0.0; 0]);
        }
        let got = distances(&Mixed::default(), &router, n, Some(&routing));
        assert_eq!(got.unwrap(), [0.0; 0]);
    }
}

#[test]
fn autotraits() {
    fn has_autotraits<T: Send + Sync + Unpin + 'static>() {}
    has_autotraits::<RouterDistance>();
    has_autotraits::<CoActivation>();
    has_autotraits::<Mixed>();
    has_autotraits::<Error>();
}

proptest! {
    /// A metric on the rows: identical rows at 0, and never shorter by a detour.
    #[test]
    fn router_distance_is_a_metric(rows in prop::collection::vec(-4i8..4, 4 * 3)) {
        let rows: Vec<f32> = rows.into_iter().map(f32::from).collect();
        let router = MatrixView::new(4, 3, &rows).unwrap();
        let layer = LayerBehaviour::new(0, router);
        let d = RouterDistance::default().distances(&layer).unwrap();
        for i in 0..4 {
            for j in 0..4 {
                prop_assert_eq!(d.at(i, j) == 0.0, router.row(i) == router.row(j));
                for k in 0..4 {
                    prop_assert!(d.at(i, j) <= d.at(i, k) + d.at(k, j) + 1e-12);
                }
            }
        }
    }

    /// Twice the text leaves every scaled distance where it was.
    #[test]
    fn scaled_distances_do_not_grow_with_the_text(pairs in prop::collection::vec((0usize..5, 0usize..5), 1..40)) {
        let mut once = RoutingSums::new(5, 2);
        for (i, j) in pairs {
            if i != j {
                once.tokens += 1;
                for (a, b) in [(i, j), (j, i)] {
                    once.counts[a] += 1;
                    once.coactivation[a * 5 + b] += 1;
                }
            }
        }
        prop_assume!(once.tokens > 0);
        prop_assert!(once.is_consistent());
        let twice = RoutingSums {
            tokens: 2 * once.tokens,
            counts: once.counts.iter().map(|c| 2 * c).collect(),
            coactivation: once.coactivation.iter().map(|a| 2 * a).collect(),
            ..once.clone()
        };
        for scaling in [Scaling::LayerMean, Scaling::Cosine, Scaling::Jaccard] {
            let similarity = CoActivation { scaling };
            let a = distances(&similarity, &[0.0; 5], 5, Some(&once)).unwrap();
            let b = distances(&similarity, &[0.0; 5], 5, Some(&twice)).unwrap();
            for (a, b) in a.iter().zip(&b) {
                prop_assert!((a - b).abs() <= 1e-12 * a.abs());
            }
        }
    }
}

#[test]
fn mean_outputs_are_compared() {
    use moeprune_similarity::OutputDistance;
    // Means (1, 0), (1, 4) and, of an expert that no token reached, (0, 0).
    let routing = RoutingSums {
        counts: vec![2, 1, 0],
        output_sums: vec![2.0, 0.0, 1.0, 4.0, 0.0, 0.0],
        ..RoutingSums::new(3, 1)
    };
    let router = MatrixView::new(3, 1, &[0.0; 3]).unwrap();
    let of = |routing| {
        OutputDistance.distances(&LayerBehaviour { routing, ..LayerBehaviour::new(0, router) })
    };
    let distances = of(Some(&routing)).unwrap();
    assert_eq!((distances.at(0, 1), distances.at(0, 2)), (4.0, 1.0));
    assert!(OutputDistance.needs_observation());
    let none = RoutingSums { output_sums: Vec::new(), ..routing.clone() };
    assert_eq!(of(Some(&none)).unwrap_err().to_string(), Error::NoOutputs.to_string());
    assert_eq!(of(None).unwrap_err().to_string(), Error::NoObservation.to_string());
}

/// What the router computes with: rows times the scale of its input, and its bias.
#[test]
fn bias_and_input_scale_are_folded_into_the_rows() {
    #[track_caller]
    fn check(bias: bool, input_scale: bool, expected: f64) {
        let router = MatrixView::new(2, 2, &[1.0, 2.0, 4.0, 2.0]).unwrap();
        let layer = LayerBehaviour {
            router_bias: Some(&[0.5, 4.5]),
            router_scale: Some(&[0.5, 100.0]),
            ..LayerBehaviour::new(0, router)
        };
        let of = RouterDistance { bias, input_scale, ..RouterDistance::default() };
        assert_eq!(of.distances(&layer).unwrap().at(0, 1), expected);
    }
    check(false, false, 3.0);
    check(true, false, 5.0);
    check(false, true, 1.5);
    check(true, true, (1.5_f64 * 1.5 + 16.0).sqrt());
}

#[test]
fn an_input_scale_that_is_not_known_is_an_error() {
    let of = RouterDistance { input_scale: true, ..RouterDistance::default() };
    fails(of, None, "norm before the router");
    let of = RouterDistance { bias: true, ..RouterDistance::default() };
    assert!(distances(&of, &ROUTER, 3, None).is_ok(), "a router without a bias");
}
