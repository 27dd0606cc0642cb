//! What an observation must fulfil to be written or believed.

use moeprune_core::Observation;

use super::name::{Group, Of};
use crate::sums_check::{self, check_input, check_routing};

/// A tensor that does not hold what it must.
pub(super) struct Flaw {
    pub(super) tensor: String,
    pub(super) expected: String,
    pub(super) got: String,
}

impl Flaw {
    /// Of the tensor of a row of a group.
    fn of(group: Group) -> impl FnOnce(sums_check::Flaw) -> Self {
        move |flaw| {
            let sums_check::Flaw { row, expected, got } = flaw;
            Self { tensor: format!("{group}.{row}"), expected, got }
        }
    }
}

/// What a group must fulfil by itself.
pub(super) fn check_group<S>(
    group: Group,
    sums: &S,
    check: fn(&S) -> Result<(), sums_check::Flaw>,
) -> Result<(), Flaw> {
    check(sums).map_err(Flaw::of(group))
}

pub(super) fn check(observation: &Observation) -> Result<(), Flaw> {
    for (layer, seen) in observation.layers.iter().enumerate() {
        if let Some(routing) = &seen.routing {
            check_routing(routing).map_err(Flaw::of(Group { layer, of: Of::Routing }))?;
        }
        for (&site, moments) in &seen.inputs {
            check_input(moments).map_err(Flaw::of(Group { layer, of: Of::Input(site) }))?;
        }
    }
    Ok(())
}
