//! Each criterion on sums made by hand, and what holds of all.

use moeprune_core::{ExpertSaliency, LayerBehaviour, MatrixView, RoutingSums};
use moeprune_saliency::{
    Error, Frequency, GateWeight, OutputNorm, PeakActivation, Random, Reap, SuperExperts,
    super_experts,
};
use proptest::prelude::*;

fn routing() -> RoutingSums {
    RoutingSums {
        tokens: 6,
        counts: vec![4, 2, 0],
        coactivation: vec![0; 9],
        gate_sums: vec![2.5, 3.0, 0.0],
        gated_output_norms: vec![2.0, 6.0, 0.0],
        output_norms: vec![8.0, 5.0, 0.0],
        output_peaks: vec![0.5, 7.0, 0.0],
        ..RoutingSums::new(3, 1)
    }
}

fn saliency(of: &dyn ExpertSaliency, routing: Option<&RoutingSums>) -> Result<Vec<f64>, String> {
    let router = MatrixView::new(3, 1, &[0.0; 3]).unwrap();
    of.saliency(&LayerBehaviour { routing, ..LayerBehaviour::new(2, router) })
        .map_err(|e| e.to_string())
}

#[track_caller]
fn check(of: &dyn ExpertSaliency, expected: [f64; 3]) {
    assert_eq!(saliency(of, Some(&routing())).unwrap(), expected);
}

#[test]
fn criteria_are_what_their_formulas_say() {
    check(&Frequency, [4.0, 2.0, 0.0]);
    check(&GateWeight, [2.5, 3.0, 0.0]);
    check(&OutputNorm::Sum, [8.0, 5.0, 0.0]);
    check(&OutputNorm::Mean, [2.0, 2.5, 0.0]);
    check(&Reap, [0.5, 3.0, 0.0]);
    check(&PeakActivation, [0.5, 7.0, 0.0]);
}

#[test]
fn what_is_missing_is_said() {
    let all: [&dyn ExpertSaliency; 5] =
        [&Frequency, &GateWeight, &OutputNorm::Sum, &Reap, &PeakActivation];
    for of in all {
        assert!(of.needs_observation());
        assert_eq!(saliency(of, None).unwrap_err(), Error::NoObservation.to_string());
        let other = RoutingSums::new(2, 1);
        let expected = Error::ExpertCount { observed: 2, router: 3 }.to_string();
        assert_eq!(saliency(of, Some(&other)).unwrap_err(), expected);
    }
    let counted = RoutingSums::counted(6, 1, vec![4, 2, 0]);
    assert_eq!(saliency(&Frequency, Some(&counted)).unwrap(), [4.0, 2.0, 0.0]);
    for (of, what) in all[1..].iter().zip([
        "gate weights",
        "norms of the experts' outputs",
        "norms of the experts' outputs",
        "peaks of the experts' outputs",
    ]) {
        let expected = Error::NotRun { what }.to_string();
        assert_eq!(saliency(*of, Some(&counted)).unwrap_err(), expected);
    }
    let old = RoutingSums { output_peaks: Vec::new(), ..routing() };
    assert_eq!(saliency(&PeakActivation, Some(&old)).unwrap_err(), Error::NoPeaks.to_string());
}

#[test]
fn draws_depend_on_seed_and_layer_alone() {
    let draw = |seed, layer| {
        let router = MatrixView::new(3, 1, &[0.0; 3]).unwrap();
        Random { seed }.saliency(&LayerBehaviour::new(layer, router)).unwrap()
    };
    assert!(!Random::default().needs_observation());
    assert_eq!(draw(7, 1), draw(7, 1));
    assert_ne!(draw(7, 1), draw(8, 1));
    assert_ne!(draw(7, 1), draw(7, 2));
    assert!(draw(7, 1).iter().all(|x| (0.0..1.0).contains(x)));
}

fn supers(peaks: &[&[f64]], rule: SuperExperts) -> Result<Vec<Vec<usize>>, Error> {
    let sums: Vec<RoutingSums> = peaks
        .iter()
        .map(|p| RoutingSums { output_peaks: p.to_vec(), ..RoutingSums::new(p.len(), 1) })
        .collect();
    let zeros = vec![0.0; 64];
    let layers: Vec<LayerBehaviour<'_>> = sums
        .iter()
        .enumerate()
        .map(|(layer, routing)| {
            let n = routing.experts();
            let router = MatrixView::new(n, 1, &zeros[..n]).unwrap();
            LayerBehaviour { routing: Some(routing), ..LayerBehaviour::new(layer, router) }
        })
        .collect();
    super_experts(&layers, rule)
}

#[test]
fn super_experts_stand_out_of_all_layers() {
    let rule = SuperExperts { percentile: 50.0, share_of_largest: 0.1 };
    // The median of 1, 2, 3, 40, 100 is 3; a tenth of the largest is 10.
    assert_eq!(supers(&[&[1.0, 100.0], &[2.0, 3.0, 40.0]], rule).unwrap(), [vec![1], vec![2]]);
    let strict = SuperExperts { share_of_largest: 0.5, ..rule };
    assert_eq!(supers(&[&[1.0, 100.0], &[2.0, 3.0, 40.0]], strict).unwrap(), [vec![1], vec![]]);
    assert_eq!(supers(&[], rule).unwrap(), Vec::<Vec<usize>>::new());
    assert_eq!(supers(&[&[0.0, 0.0]], rule).unwrap(), [Vec::<usize>::new()]);
    for percentile in [-1.0, 101.0, f64::NAN] {
        assert!(supers(&[&[1.0]], SuperExperts { percentile, ..rule }).is_err());
    }
}

proptest! {
    #[test]
    fn super_experts_are_few_and_the_largest(
        peaks in prop::collection::vec(0.0f64..1e3, 1..64),
        percentile in 0.0f64..=100.0,
    ) {
        let rule = SuperExperts { percentile, share_of_largest: 0.0 };
        let found = supers(&[&peaks], rule).unwrap().remove(0);
        let least = found.iter().map(|&e| peaks[e]).fold(f64::INFINITY, f64::min);
        prop_assert!((0..peaks.len()).all(|e| found.contains(&e) || peaks[e] <= least));
        let most = (peaks.len() as f64 * (1.0 - percentile / 100.0)).floor() as usize;
        prop_assert!(found.len() <= most.max(1) || percentile == 0.0);
    }
}
