//! Invariants of the checked types, on random input.

use moeprune_core::{
    AttentionProjection, DistanceMatrix, Dtype, ExpertBudget, InputMoments, LayerObservation,
    LinearId, MlpProjection, Observation, Partition, RoutingSums, Sparsity, TensorBytes,
    unstructured_ratio,
};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_sparsity_is_a_share_or_refused(share in any::<f64>()) {
        let accepted = Sparsity::new(share).is_ok();
        prop_assert_eq!(accepted, (0.0..1.0).contains(&share));
    }

    #[test]
    fn the_solved_ratio_reaches_the_total(
        linears in 1_000u64..1_000_000_000_000,
        removed_share in 0.0f64..0.9,
        fixed_share in 0.0f64..0.1,
        total in 0.0f64..0.999,
    ) {
        let removed = (linears as f64 * removed_share) as u64;
        let prunable = linears - removed - ((linears - removed) as f64 * fixed_share) as u64;
        let target = Sparsity::new(total).unwrap();
        match unstructured_ratio(target, linears, removed, prunable) {
            Ok(ratio) if ratio == Sparsity::ZERO => {
                prop_assert!(removed as f64 >= total * linears as f64);
            }
            Ok(ratio) => {
                let reached = (removed as f64 + ratio.value() * prunable as f64) / linears as f64;
                prop_assert!((reached - total).abs() < 1e-9, "{} for {}", reached, total);
            }
            Err(_) => prop_assert!(total * linears as f64 >= (removed + prunable) as f64 * 0.999_999),
        }
    }

    #[test]
    fn labels_and_clusters_say_the_same(labels in prop::collection::vec(0usize..6, 0..40)) {
        let partition = Partition::from_labels(&labels);
        prop_assert_eq!(partition.experts(), labels.len());
        let again = Partition::new(labels.len(), partition.clusters().to_vec()).unwrap();
        prop_assert_eq!(&again, &partition);
        for (i, a) in labels.iter().enumerate() {
            for (j, b) in labels.iter().enumerate() {
                let together = partition.clusters().iter().any(|c| c.contains(&i) && c.contains(&j));
                prop_assert_eq!(together, a == b);
            }
        }
    }

    #[test]
    fn any_order_of_clusters_is_the_same_partition(
        labels in prop::collection::vec(0usize..6, 1..40),
        turn in 0usize..40,
    ) {
        let partition = Partition::from_labels(&labels);
        let mut clusters = partition.clusters().to_vec();
        let turn = turn % clusters.len();
        clusters.rotate_left(turn);
        clusters.iter_mut().for_each(|c| c.reverse());
        prop_assert_eq!(Partition::new(labels.len(), clusters).unwrap(), partition);
    }

    #[test]
    fn clusters_that_overlap_or_leave_out_are_refused(
        labels in prop::collection::vec(0usize..6, 2..40),
        expert in 0usize..40,
    ) {
        let n = labels.len();
        let clusters = Partition::from_labels(&labels).clusters().to_vec();
        let mut doubled = clusters.clone();
        doubled.push(vec![expert % n]);
        prop_assert!(Partition::new(n, doubled).is_err());
        prop_assert!(Partition::new(n + 1, clusters.clone()).is_err());
        prop_assert!(Partition::new(n - 1, clusters).is_err());
    }

    #[test]
    fn distances_are_symmetric(values in prop::collection::vec(-1e6f64..1e6, 16)) {
        let d = DistanceMatrix::from_fn(4, |i, j| values[i * 4 + j]).unwrap();
        for i in 0..4 {
            prop_assert_eq!(d.at(i, i), 0.0);
            for j in 0..4 {
                prop_assert_eq!(d.at(i, j), d.at(j, i));
            }
        }
        prop_assert_eq!(d.pairs().count(), 6);
        let rows: Vec<f64> = (0..16).map(|at| d.at(at / 4, at % 4)).collect();
        prop_assert_eq!(DistanceMatrix::from_rows(4, &rows).unwrap(), d);
    }

    #[test]
    fn narrow_values_survive_encoding(values in prop::collection::vec(any::<i8>(), 1..50)) {
        let values: Vec<f32> = values.into_iter().map(f32::from).collect();
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            let tensor = TensorBytes::encode(dtype, [values.len()], &values).unwrap();
            prop_assert_eq!(&tensor.to_f32().unwrap(), &values);
            let mut last = [0.0];
            tensor.decode_f32(values.len() - 1, &mut last).unwrap();
            prop_assert_eq!(last[0], values[values.len() - 1]);
            prop_assert!(tensor.decode_f32(values.len(), &mut last).is_err());
        }
    }

    #[test]
    fn bytes_must_fit_the_shape(dims in prop::collection::vec(0usize..1 << 40, 0..5), bytes in 0usize..64) {
        let tensor = TensorBytes::new(Dtype::BF16, dims.clone(), vec![0u8; bytes]);
        let expected = dims.iter().try_fold(2usize, |n, d| n.checked_mul(*d));
        prop_assert_eq!(tensor.is_ok(), expected == Some(bytes));
    }

    #[test]
    fn observations_add_up_in_any_order(a in 0u64..1000, b in 0u64..1000) {
        let observation = |tokens: u64| {
            let mut routing = RoutingSums::new(2, 2);
            routing.tokens = tokens;
            routing.counts = vec![tokens; 2];
            routing.coactivation = vec![0, tokens, tokens, 0];
            let mut input = InputMoments::new(1);
            input.tokens = tokens;
            input.sum_squares[0] = tokens as f64;
            Observation {
                model_fingerprint: "m".into(),
                corpora: Vec::new(),
                layers: vec![LayerObservation {
                    routing: Some(routing),
                    inputs: [(LinearId::Router, input)].into(),
                }],
            }
        };
        let sum = |first: u64, second: u64| {
            let mut sum = observation(first);
            sum.add(&observation(second)).unwrap();
            sum
        };
        prop_assert_eq!(sum(a, b), sum(b, a));
        prop_assert_eq!(&sum(a, b).layers, &observation(a + b).layers);
        prop_assert!(sum(a, b).layers[0].routing.as_ref().unwrap().is_consistent());
        let mut other = observation(a);
        other.model_fingerprint = "n".into();
        prop_assert!(other.add(&observation(b)).is_err());
    }

    #[test]
    fn budgets_are_feasible_exactly_when_they_say_so(
        experts in prop::collection::vec(1usize..20, 1..6),
        keep in 0usize..120,
        floor in 1usize..4,
    ) {
        let uniform = ExpertBudget::Uniform { keep }.check(&experts).is_ok();
        prop_assert_eq!(uniform, keep > 0 && experts.iter().all(|&n| n >= keep));
        let global = ExpertBudget::Global { keep, min_per_layer: floor }.check(&experts).is_ok();
        let least: usize = experts.iter().map(|&n| n.min(floor)).sum();
        prop_assert_eq!(global, (least..=experts.iter().sum()).contains(&keep));
    }

    #[test]
    fn names_of_linears_parse_back(expert in any::<usize>(), which in 0usize..20) {
        use AttentionProjection::{Key, Output, Query, Value};
        let attention = [Query, Key, Value, Output].map(LinearId::Attention);
        let mlp = MlpProjection::ALL.into_iter().flat_map(|p| {
            [LinearId::Residual(p), LinearId::Dense(p), LinearId::Shared(expert, p), LinearId::Expert(expert, p)]
        });
        let all: Vec<LinearId> = attention.into_iter().chain(mlp).chain([LinearId::Router]).collect();
        let id = all[which % all.len()];
        prop_assert_eq!(id.to_string().parse::<LinearId>().unwrap(), id);
    }

    #[test]
    fn no_text_makes_a_name_panic(text in ".{0,30}") {
        let _ = text.parse::<LinearId>();
    }
}
