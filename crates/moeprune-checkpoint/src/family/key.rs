//! Facts that stand in `config.json`.

use serde::Deserialize;

use crate::{
    Error,
    config::{Config, ConfigValue},
};

/// Where a fact stands in `config.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key<T> {
    /// Aliases; a dot descends into an object.
    pub(crate) keys: Vec<String>,
    /// What the public model code takes when none is there.
    pub(crate) default: Option<T>,
}

/// A number that may be zero.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(crate) struct Count(pub(crate) usize);

impl ConfigValue for Count {
    const EXPECTED: &'static str = "a whole number from 0 to 2147483648";

    fn from_json(text: &str) -> Option<Self> {
        if text == "0" { Some(Self(0)) } else { usize::from_json(text).map(Self) }
    }
}

/// Numbers of layers.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Layers(pub(crate) Vec<usize>);

impl ConfigValue for Layers {
    const EXPECTED: &'static str = "a list of whole numbers";

    fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self)
    }
}

/// A list of words.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Strings(pub(crate) Vec<String>);

impl ConfigValue for Strings {
    const EXPECTED: &'static str = "a list of strings";

    fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self)
    }
}

impl<T> Key<T> {
    /// Under one of these keys, or nowhere.
    pub(crate) fn any_of(keys: &[&str]) -> Self {
        Self { keys: keys.iter().map(|&key| key.to_owned()).collect(), default: None }
    }

    /// With what holds when none of the keys is there.
    pub(crate) fn or(self, default: T) -> Self {
        Self { default: Some(default), ..self }
    }

    /// The one of the keys under which the config has a value.
    pub(crate) fn found<'a>(&'a self, config: &'a Config) -> Result<Option<&'a str>, Error> {
        Ok(config.find(&self.keys)?.map(|found| found.key))
    }

    /// The keys as messages name them.
    pub(crate) fn shown(&self) -> String {
        self.keys.join("` or `")
    }
}

impl<T: ConfigValue + Clone> Key<T> {
    /// What the config says, or else the default.
    pub(crate) fn needed(&self, config: &Config) -> Result<T, Error> {
        self.optional(config)?.ok_or_else(|| missing(config, &self.keys))
    }

    /// What the config says, or else the default, if there is one.
    pub(crate) fn optional(&self, config: &Config) -> Result<Option<T>, Error> {
        match config.find(&self.keys)? {
            Some(found) => found.read(config).map(Some),
            None => Ok(self.default.clone()),
        }
    }
}

pub(crate) fn missing(config: &Config, keys: &[String]) -> Error {
    config.refuse(format!("lacks `{}`", keys.join("` or `")))
}
