//! What [`ExpertSaliency`] promises.

use moeprune_core::{ExpertSaliency, RoutingSums};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{
    for_all, pure,
    similarity::{Layer, layers},
};

/// Holds a saliency to its contract:
///
/// * it returns one finite number per expert, not negative;
/// * it gives the same numbers each time, from any thread;
/// * without an observation it fails if and only if it says that it needs one;
/// * an observation without a token is no reason to panic.
///
/// # Panics
/// If one of these is broken.
pub fn check(saliency: &dyn ExpertSaliency) {
    for_all(&layers(), |layer| {
        let of = |layer: &Layer, observed| {
            saliency.saliency(&layer.behaviour(observed)?).map_err(|error| error.to_string())
        };
        let numbers = pure(|| of(&layer, true))?.map_err(TestCaseError::fail)?;
        prop_assert_eq!(numbers.len(), layer.experts, "one number per expert");
        let fits = |number: &f64| number.is_finite() && *number >= 0.0;
        prop_assert!(numbers.iter().all(fits), "finite and not negative: {:?}", numbers);
        let without = of(&layer, false);
        prop_assert_eq!(
            without.is_err(),
            saliency.needs_observation(),
            "needs_observation() and what happens without one"
        );
        let silent = Layer { routing: RoutingSums::new(layer.experts, 2), ..layer };
        if let Ok(numbers) = of(&silent, true) {
            prop_assert!(numbers.iter().all(fits), "of no tokens: {:?}", numbers);
        }
        Ok(())
    });
}
