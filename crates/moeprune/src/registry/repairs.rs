//! How the experts that stay make up for those that go: what `repair` may name.

use std::collections::BTreeMap;

use moeprune_core::ExpertRepair;

use super::{Registry, StageInfo};
use crate::{
    Error, Recipe, Stage,
    recipe::{NO_REPAIR, REFIT, StageChoice, keys::unknown},
};

const KEY: &str = "repair";
const AFTER_MASKS: &str = "weights.refit";

impl Registry {
    /// Whether there is a repair of this name.
    pub(crate) fn has_repair(&self, name: &str) -> bool {
        self.repairs.has(name)
    }

    /// Fills in parameters that were left out.
    pub(super) fn resolve_repairs(&self, recipe: &mut Recipe) -> Result<(), Error> {
        self.resolve_repair(KEY, &mut recipe.repair)?;
        match &mut recipe.weights.refit {
            None => Ok(()),
            Some(refit) => self.resolve_repair(AFTER_MASKS, refit),
        }
    }

    fn resolve_repair(&self, key: &str, repair: &mut StageChoice) -> Result<(), Error> {
        if repair.name != NO_REPAIR {
            return self.repairs.resolve(key, repair, &[NO_REPAIR]);
        }
        match repair.parameters.keys().next() {
            None => Ok(()),
            Some(parameter) => {
                let of = format!("{key}, parameters of `{NO_REPAIR}`");
                Err(Error::Recipe(unknown(&of, parameter, [])))
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

    /// The repair after weights were zeroed that a resolved recipe names; `None` if those that are left stay.
    /// It has to leave zeros as they are.
    pub(super) fn refit(&self, recipe: &Recipe) -> Result<Option<Stage<dyn ExpertRepair>>, Error> {
        let Some(refit) = recipe.weights.refit.as_ref().filter(|refit| refit.name != NO_REPAIR)
        else {
            return Ok(None);
        };
        let stage = self.repairs.make(AFTER_MASKS, refit)?;
        if !stage.keeps_zeros() {
            return Err(Error::Recipe(format!(
                "{AFTER_MASKS}: `{refit}` changes weights that were zeroed; `{REFIT}:keep_zeros=true` \
                 leaves them"
            )));
        }
        Ok(Some(stage))
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
