//! The implementations of one stage by name.

use std::{collections::BTreeMap, fmt};

use moeprune_core::StageError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Error, Stage,
    recipe::{Parameter, StageChoice, keys::unknown},
};

type Parameters = BTreeMap<String, Parameter>;

/// The parameters of a stage that has none.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to add")]
pub struct NoParameters {}

/// What is known of a stage's implementation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StageInfo {
    /// What it is registered under.
    pub name: String,
    /// What it is, in a line.
    pub about: String,
    /// Its parameters when they are left out.
    pub defaults: BTreeMap<String, Parameter>,
}

/// In the order of their names.
pub(super) struct Stages<S: ?Sized> {
    entries: BTreeMap<String, Entry<S>>,
}

type Make<S> = dyn Fn(&Parameters) -> Result<Box<S>, StageError> + Send + Sync;

struct Entry<S: ?Sized> {
    about: String,
    defaults: Parameters,
    make: Box<Make<S>>,
}

impl<S: ?Sized> Default for Stages<S> {
    fn default() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

impl<S: ?Sized> fmt::Debug for Stages<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

impl<S: ?Sized> Stages<S> {
    pub(super) fn add<P: DeserializeOwned + Serialize + Default>(
        &mut self,
        name: &str,
        about: &str,
        make: impl Fn(P) -> Result<Box<S>, StageError> + Send + Sync + 'static,
    ) {
        let make = move |parameters: &Parameters| {
            let parameters = serde_json::to_value(parameters)?;
            make(serde_json::from_value(parameters)?)
        };
        let defaults = defaults::<P>();
        let entry = Entry { about: about.to_owned(), defaults, make: Box::new(make) };
        self.entries.insert(name.to_owned(), entry);
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(super) fn infos(&self) -> Vec<StageInfo> {
        let info = |(name, entry): (&String, &Entry<S>)| StageInfo {
            name: name.clone(),
            about: entry.about.clone(),
            defaults: entry.defaults.clone(),
        };
        self.entries.iter().map(info).collect()
    }

    /// Fills in parameters that were left out. `others` are names that something else answers to.
    pub(super) fn resolve(
        &self,
        key: &str,
        choice: &mut StageChoice,
        others: &[&str],
    ) -> Result<(), Error> {
        let Some(entry) = self.entries.get(&choice.name) else {
            let known: Vec<&str> = others.iter().copied().chain(self.names()).collect();
            return Err(Error::Recipe(unknown(key, &choice.name, known)));
        };
        let known = entry.defaults.keys().map(String::as_str);
        if let Some(extra) = choice.parameters.keys().find(|k| !entry.defaults.contains_key(*k)) {
            let of = format!("{key}, parameters of `{}`", choice.name);
            return Err(Error::Recipe(unknown(&of, extra, known)));
        }
        for (parameter, default) in &entry.defaults {
            let value =
                choice.parameters.entry(parameter.clone()).or_insert_with(|| default.clone());
            if let Parameter::Number(number) = value
                && !number.is_finite()
            {
                let name = &choice.name;
                return Err(Error::Recipe(format!(
                    "{key}: `{name}` has {parameter} = {number}; it must be a finite number"
                )));
            }
            // `lambda = 0` is a number as well as 0.0 is.
            if let (Parameter::Number(_), &mut Parameter::Integer(whole)) = (default, &mut *value) {
                *value = Parameter::Number(whole as f64);
            }
        }
        Ok(())
    }

    /// Makes the implementation of a resolved choice, which is its identity.
    pub(super) fn make(&self, key: &str, choice: &StageChoice) -> Result<Stage<S>, Error> {
        let Some(entry) = self.entries.get(&choice.name) else {
            return Err(Error::Recipe(unknown(key, &choice.name, self.names())));
        };
        let identity = serde_json::to_value(choice)
            .map_err(|e| Error::Recipe(format!("{key}: cannot be written as JSON: {e}")))?;
        (entry.make)(&choice.parameters)
            .map(|implementation| Stage::identified(implementation, identity))
            .map_err(|problem| Error::Recipe(format!("{key} = `{choice}`: {problem}")))
    }
}

/// The fields of the default value that are plain.
fn defaults<P: Serialize + Default>() -> Parameters {
    let value = serde_json::to_value(P::default()).unwrap_or_default();
    serde_json::from_value(value).unwrap_or_default()
}
