//! Every built-in stage against the suite of its trait.

use moeprune_tests::conformance;

#[path = "conformance/encoding.rs"]
mod encoding;
#[path = "conformance/ggml.rs"]
mod ggml;
#[path = "conformance/quantised.rs"]
mod quantised;

mod similarity {
    use moeprune_similarity::{
        CoActivation, CoActivationScaling as Scaling, Mixed, RouterDistance, RouterNormalization,
    };

    use super::conformance::similarity::check;

    #[test]
    fn router_distance() {
        check(&RouterDistance::default());
        check(&RouterDistance {
            normalization: RouterNormalization::FrobeniusNorm,
            ..RouterDistance::default()
        });
    }

    #[test]
    fn coactivation() {
        for scaling in [Scaling::Counts, Scaling::LayerMean, Scaling::Cosine, Scaling::Jaccard] {
            check(&CoActivation { scaling });
        }
    }

    #[test]
    fn outputs() {
        check(&moeprune_similarity::OutputDistance);
    }

    #[test]
    fn mixed() {
        check(&Mixed::default());
        check(&Mixed { coactivation_weight: 0.0, ..Mixed::default() });
        check(&Mixed { router_weight: 0.0, ..Mixed::default() });
    }
}

mod clustering {
    use moeprune_cluster::{Agglomerative, KMeans, Linkage, ReferenceLinkage};
    use moeprune_core::ExpertClustering;

    use super::conformance::clustering::{check_global, check_uniform};

    fn check(clustering: impl ExpertClustering) {
        check_uniform(&clustering);
        check_global(&clustering);
    }

    #[test]
    fn agglomerative() {
        for linkage in [Linkage::Complete, Linkage::Average, Linkage::Single] {
            check(Agglomerative { linkage });
        }
    }

    #[test]
    fn reference_linkage() {
        check(ReferenceLinkage);
    }

    #[test]
    fn k_means() {
        check(KMeans { seed: 7, runs: 1 });
    }
}

mod saliency {
    use moeprune_saliency::{Frequency, GateWeight, OutputNorm, PeakActivation, Random, Reap};

    use super::conformance::saliency::check;

    #[test]
    fn every_saliency() {
        check(&Frequency);
        check(&GateWeight);
        check(&OutputNorm::Sum);
        check(&OutputNorm::Mean);
        check(&Reap);
        check(&PeakActivation);
        check(&Random { seed: 3 });
    }
}

mod selector {
    use moeprune_select::{Busiest, MergeAll, NearestToMean, Precision};

    use super::conformance::selector::check;

    #[test]
    fn busiest() {
        check(&Busiest);
    }

    #[test]
    fn merge_all() {
        check(&MergeAll::Plain);
        check(&MergeAll::ByTokens);
    }

    #[test]
    fn nearest_to_mean() {
        for merge_when_clusters_at_most in [0, 2, 100] {
            for precision in [Precision::F64, Precision::ReferenceBf16] {
                check(&NearestToMean { merge_when_clusters_at_most, precision });
            }
        }
    }
}

mod scorer {
    use moeprune_score::{InputNormalization, Magnitude, NOfM, PerRow, Wanda};

    use super::conformance::scorer::{check, check_pattern};

    #[test]
    fn magnitude() {
        check(&Magnitude);
    }

    #[test]
    fn wanda() {
        for normalization in [InputNormalization::PerCall, InputNormalization::PerToken] {
            check(&Wanda { normalization });
        }
    }

    #[test]
    fn per_row() {
        check_pattern(&PerRow);
    }

    #[test]
    fn n_of_m() {
        for (n, m) in [(0, 1), (1, 2), (2, 4), (4, 8), (3, 7), (31, 32)] {
            check_pattern(&NOfM::new(n, m).unwrap());
        }
    }
}

mod reconstructor {
    use moeprune_score::{BlockThreshold, SparseGpt};

    use super::conformance::reconstructor::check;

    #[test]
    fn sparse_gpt() {
        check(&SparseGpt::default());
        check(&SparseGpt { block: 5, ..SparseGpt::default() });
    }

    #[test]
    fn sparse_gpt_as_published_takes_one_more_a_block() {
        // At a share of zero the published threshold is the smallest score, and takes it.
        let reference = SparseGpt { threshold: BlockThreshold::Reference, ..SparseGpt::default() };
        let broken = std::panic::catch_unwind(|| check(&reference));
        assert!(broken.is_err(), "the published threshold keeps the contract");
    }
}

mod repair {
    use moeprune_repair::{Refit, Ridge};

    use super::conformance::repair::check;

    #[test]
    fn refit() {
        check(&Refit::default());
        check(&Refit { sweeps: 1, ridge: Ridge::Share(0.1), ..Refit::default() });
        check(&Refit { keep_zeros: true, ..Refit::default() });
    }
}

mod allocator {
    use moeprune_score::{Depth, Owl, Uniform};

    use super::conformance::allocator::{check, check_without_total};

    #[test]
    fn uniform() {
        check(&Uniform);
    }

    #[test]
    fn depth() {
        for slope in [0.0, 0.1, -0.3, 1.0] {
            check(&Depth { slope });
        }
    }

    #[test]
    fn owl() {
        check(&Owl::default());
        check(&Owl { lambda: 0.9, ..Owl::default() });
        check_without_total(&Owl { exact_total: false, ..Owl::default() });
    }
}
