//! `[layers.mixers]`

use std::collections::BTreeMap;

use serde::Deserialize;

use super::key::{Key, Strings};
use crate::{
    Error,
    config::{Config, shown},
};

/// Layers that have one block only, `x + block(norm(x))`: one word per layer says which. The norm is the
/// layer's input norm.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MixersForm {
    /// A list of words, one per layer.
    list: Option<Key<Strings>>,
    /// A string, in which each letter is such a word.
    pattern: Option<Key<String>>,
    /// Words for layers with experts.
    experts: Vec<String>,
    /// Words for layers with a dense MLP.
    #[serde(default)]
    dense: Vec<String>,
    /// Words for each of `attention.kinds`.
    attention: BTreeMap<String, Vec<String>>,
}

/// What a layer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mixer {
    Experts,
    Dense,
    /// Attention of the kind under this key of `attention.kinds`.
    Attention(String),
}

impl Mixer {
    /// The key of its kind, if it is attention.
    pub(super) fn attention(&self) -> Option<&str> {
        match self {
            Self::Attention(kind) => Some(kind),
            Self::Experts | Self::Dense => None,
        }
    }
}

impl MixersForm {
    /// Whether there may be layers with a dense MLP.
    pub(super) fn have_dense(&self) -> bool {
        !self.dense.is_empty()
    }

    /// The kinds of attention that there are words for, ascending.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &String> {
        self.attention.keys()
    }

    /// Checks what types cannot: something says what layers have.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.list.is_some() || self.pattern.is_some() {
            return Ok(());
        }
        let reason = "`layers.mixers` needs `list`, `pattern`, or both";
        Err(Error::Descriptor { reason: reason.to_owned() })
    }

    /// The mixer of each layer.
    pub(crate) fn read(&self, config: &Config) -> Result<Vec<Mixer>, Error> {
        let list = match &self.list {
            Some(key) => key.optional(config)?.map(|Strings(words)| words),
            None => None,
        };
        let letters = match &self.pattern {
            Some(key) => key.optional(config)?,
            None => None,
        };
        let letters: Option<Vec<String>> =
            letters.map(|text| text.chars().map(String::from).collect());
        let list = list.map(|words| self.mixers(config, &words)).transpose()?;
        let letters = letters.map(|words| self.mixers(config, &words)).transpose()?;
        match (list, letters) {
            (Some(list), Some(letters)) if list != letters => {
                Err(config.refuse(format!("`{}` say different things", self.shown("` and `"))))
            }
            (Some(mixers), _) | (None, Some(mixers)) => Ok(mixers),
            (None, None) => Err(config.refuse(format!("lacks `{}`", self.shown("` or `")))),
        }
    }

    fn mixers(&self, config: &Config, words: &[String]) -> Result<Vec<Mixer>, Error> {
        let known = |word: &String| {
            if self.experts.contains(word) {
                return Some(Mixer::Experts);
            }
            if self.dense.contains(word) {
                return Some(Mixer::Dense);
            }
            let kind = self.attention.iter().find(|(_, words)| words.contains(word));
            kind.map(|(kind, _)| Mixer::Attention(kind.clone()))
        };
        let mixer = |(layer, word): (usize, &String)| {
            known(word).ok_or_else(|| {
                let all = self.attention.values().chain([&self.experts, &self.dense]);
                let all = all.flatten().map(String::as_str).collect::<Vec<_>>().join("`, `");
                let (keys, word) = (self.shown("` or `"), shown(word));
                let reason =
                    format!("`{keys}`: layer {layer} is `{word}`, expected one of `{all}`");
                config.refuse(reason)
            })
        };
        words.iter().enumerate().map(mixer).collect()
    }

    /// The keys as messages name them.
    pub(crate) fn shown(&self, between: &str) -> String {
        let keys = self.list.iter().map(Key::shown).chain(self.pattern.iter().map(Key::shown));
        keys.collect::<Vec<_>>().join(between)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FORM: &str = r#"
        list = { keys = ["list"] }
        pattern = { keys = ["pattern"] }
        experts = ["moe", "E"]
        dense = ["mlp", "-"]
        attention = { full = ["attention", "*"], mamba = ["mamba", "M"] }
    "#;

    fn mixers(config: &str) -> Result<String, String> {
        let form: MixersForm = toml::from_str(FORM).expect("a form");
        form.check().expect("is complete");
        let config = Config::of_text(Path::new("config.json"), config).expect("an object");
        let mixers = form.read(&config).map_err(|error| error.to_string())?;
        let short = |mixer: &Mixer| match mixer {
            Mixer::Experts => "experts".to_owned(),
            Mixer::Dense => "dense".to_owned(),
            Mixer::Attention(kind) => kind.clone(),
        };
        Ok(mixers.iter().map(short).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_a_layer_has() {
        let check = |config: &str, expected: &str| {
            assert_eq!(mixers(config).as_deref(), Ok(expected), "{config}");
        };
        check(r#"{"pattern": "ME*-"}"#, "mamba experts full dense");
        check(r#"{"list": ["mamba", "moe", "mlp", "attention"]}"#, "mamba experts dense full");
        check(r#"{"list": ["mamba", "moe"], "pattern": "ME"}"#, "mamba experts");
        check(r#"{"pattern": ""}"#, "");
    }

    #[test]
    fn what_is_refused() {
        let check = |config: &str, expected: &str| {
            let message = mixers(config).expect_err(config);
            assert!(message.contains(expected), "{message}");
        };
        check("{}", "lacks `list` or `pattern`");
        check(r#"{"pattern": "M|E"}"#, "layer 1 is `|`, expected one of `attention`, `*`, `mamba`");
        check(r#"{"list": ["moe"], "pattern": "M"}"#, "`list` and `pattern` say different things");
        check(r#"{"list": "moe"}"#, "`list` must be a list of strings");
    }
}
