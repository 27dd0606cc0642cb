//! How the experts that stay make up for those that go: what `repair` may name.

use std::collections::BTreeMap;

use moeprune_core::ExpertRepair;

use super::{Registry, StageInfo};
use crate::{
    Error, Recipe, Stage,
    recipe::{NO_REPAIR, StageChoice, keys::unknown},
};

const KEY: &str = "repair";

impl Registry {
    /// Whether there is a repair of this name.
    pub(crate) fn has_repair(&self, name: &str) -> bool {
        self.repairs.has(name)
    }

    /// Fills in parameters that were left out.
    pub(super) fn resolve_repair(&self, repair: &mut StageChoice) -> Result<(), Error> {
        if repair.name != NO_REPAIR {
            return self.repairs.resolve(KEY, repair, &[NO_REPAIR]);
        }
        match repair.parameters.keys().next() {
            None => Ok(()),
            Some(key) => {
                let of = format!("{KEY}, parameters of `{NO_REPAIR}`");
                Err(Error::Recipe(unknown(&of, key, [])))
            }
        }
    }

    /// The repair that a resolved recipe names; `None` if the experts that stay keep their weights.
    pub(super) fn repair(&self, recipe: &Recipe) -> Result<Option<Stage<dyn ExpertRepair>>, Error> {
        match recipe.repairs() {
            false => Ok(None),
            true => self.repairs.make(KEY, &recipe.repair).map(Some),
        }
    }

    pub(super) fn repair_infos(&self) -> Vec<StageInfo> {
        let none = StageInfo {
            name: NO_REPAIR.to_owned(),
            about: "the experts that stay keep their weights".to_owned(),
            defaults: BTreeMap::new(),
        };
        [none].into_iter().chain(self.repairs.infos()).collect()
    }
}
