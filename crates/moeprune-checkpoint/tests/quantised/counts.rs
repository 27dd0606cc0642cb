//! Parameters are counted by what parts are, bytes by what is stored.

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{LayerTensor, LinearId, Part, TensorId};

use crate::quantised_models::{folder, names};

/// The same numbers for a model in codes as for one of its shapes in plain numbers.
#[test]
fn experts_have_as_many_parameters_as_their_shapes() {
    for name in names() {
        let checkpoint = Checkpoint::open(&folder(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (summary, spec) = (checkpoint.summary(), checkpoint.spec());
        let sum = |of: fn(&LinearId) -> bool| -> u64 {
            let is = |part: &Part| match part.id {
                TensorId::Layer(_, LayerTensor::Linear(linear) | LayerTensor::Bias(linear)) => {
                    of(&linear)
                }
                _ => false,
            };
            spec.parts().iter().filter(|part| is(part)).map(Part::parameters).sum()
        };
        let role = |role: &str| {
            summary.roles.iter().find(|found| found.role == role).map_or(0, |of| of.parameters)
        };
        let experts = sum(|linear| matches!(linear, LinearId::Expert(..)));
        assert_eq!(role("experts"), experts, "{name}");
        assert!(experts >= summary.parameters.experts, "{name}");
        let shared = sum(|linear| matches!(linear, LinearId::Shared(..)));
        assert!(role("shared") >= shared, "{name}");
        let dense = sum(|linear| matches!(linear, LinearId::Dense(..)));
        assert_eq!(role("dense"), dense, "{name}");
        let all: u64 = summary.roles.iter().map(|of| of.parameters).sum();
        assert!(all >= summary.parameters.linears, "{name}: {all}");
    }
}
