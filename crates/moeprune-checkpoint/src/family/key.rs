//! Facts that stand in `config.json`.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Error,
    config::{Config, ConfigValue},
    number::{real, switch, whole, wholes},
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
        if whole(text) == Some(0) { Some(Self(0)) } else { usize::from_json(text).map(Self) }
    }
}

/// True or false, which some files say as a number, 0 for false.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(crate) struct Switch(pub(crate) bool);

impl ConfigValue for Switch {
    const EXPECTED: &'static str = "true, false or a number";

    fn from_json(text: &str) -> Option<Self> {
        let number = || f64::from_json(text).map(|_| true);
        bool::from_json(text)
            .or_else(|| if real(text) == Some(0.0) { Some(false) } else { number() })
            .map(Self)
    }
}

/// True or false for each layer, as 1 or 0.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Switches(pub(crate) Vec<bool>);

impl ConfigValue for Switches {
    const EXPECTED: &'static str = "a list of 0 and 1";

    fn from_json(text: &str) -> Option<Self> {
        let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        items.into_iter().map(|item| switch(item.get())).collect::<Option<_>>().map(Self)
    }
}

/// A number for all layers, or one for each.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum PerLayer {
    Same(usize),
    List(Vec<usize>),
}

impl ConfigValue for PerLayer {
    const EXPECTED: &'static str = "a whole number from 1 to 2147483648, or a list of such numbers";

    fn from_json(text: &str) -> Option<Self> {
        if let Some(same) = usize::from_json(text) {
            return Some(Self::Same(same));
        }
        let list: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        let number = |item: &RawValue| usize::from_json(item.get());
        list.into_iter().map(number).collect::<Option<_>>().map(Self::List)
    }
}

impl PerLayer {
    /// The number of a layer; of layers behind the list's end that of its last.
    pub(crate) fn of(&self, layer: usize) -> usize {
        match self {
            Self::Same(number) => *number,
            Self::List(list) => {
                list.get(layer).or_else(|| list.last()).copied().unwrap_or_default()
            }
        }
    }

    /// Checks that a list has a number for each of so many layers.
    pub(crate) fn check(&self, layers: usize) -> Result<(), String> {
        match self {
            Self::List(list) if list.len() != layers => {
                Err(format!("has length {}, expected {layers}, one entry per layer", list.len()))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn largest(&self) -> usize {
        match self {
            Self::Same(number) => *number,
            Self::List(list) => list.iter().copied().max().unwrap_or_default(),
        }
    }
}

/// A layer's number; −1 is the last one's.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(crate) struct LastLayer(i64);

impl ConfigValue for LastLayer {
    const EXPECTED: &'static str = "the number of a layer, or -1";

    fn from_json(text: &str) -> Option<Self> {
        if real(text) == Some(-1.0) {
            return Some(Self(-1));
        }
        i64::try_from(whole(text)?).ok().map(Self)
    }
}

impl LastLayer {
    /// Whether a layer comes after it.
    pub(crate) fn is_before(self, layer: usize) -> bool {
        usize::try_from(self.0).is_ok_and(|last| layer > last)
    }
}

/// Numbers of layers.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Layers(pub(crate) Vec<usize>);

impl ConfigValue for Layers {
    const EXPECTED: &'static str = "a list of whole numbers";

    fn from_json(text: &str) -> Option<Self> {
        let numbers = wholes(text)?.into_iter();
        numbers.map(|number| usize::try_from(number).ok()).collect::<Option<_>>().map(Self)
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

/// A word with a letter per layer, or a list with an entry per layer, of which the length counts.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(crate) struct Sequence(pub(crate) usize);

impl ConfigValue for Sequence {
    const EXPECTED: &'static str = "a string with a letter per layer, or a list of strings";

    fn from_json(text: &str) -> Option<Self> {
        let word = || serde_json::from_str(text).map(|word: String| word.chars().count());
        let list = serde_json::from_str(text).map(|list: Vec<String>| list.len());
        list.or_else(|_| word()).ok().map(Self)
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
