//! `kind = "by_layer"`

use std::collections::{BTreeMap, BTreeSet};

use moeprune_core::{AttentionSpec, TensorId};
use serde::Deserialize;

use super::{AttentionForm, Key, Model};
use crate::{
    Error,
    config::{Config, shown},
    family::{
        Slots,
        key::{Layers, Strings, Switches},
    },
    named_tensors::NamedTensors,
};

/// Attention of several kinds, one of them in each layer.
///
/// What chooses is a list of words in the config, one per layer (`types`), lists of layers (`layers`), or
/// a list of 0 and 1 (`switches`); without any of them, an interval (`every`).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ByLayerForm {
    /// A list of words, one per layer; they are keys of `kinds`.
    types: Option<Key<Strings>>,
    /// Lists of layers, each under the word for their kind.
    layers: Option<ListsForm>,
    switches: Option<SwitchesForm>,
    every: Option<EveryForm>,
    /// What a word stands for.
    kinds: BTreeMap<String, AttentionForm>,
}

/// Lists of layers, which together name each once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListsForm {
    /// The number of the first layer.
    #[serde(default)]
    first: usize,
    of: BTreeMap<String, Key<Layers>>,
}

/// A list with 1 for layers of one kind and 0 for those of the other; an empty one says nothing.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchesForm {
    list: Key<Switches>,
    set: String,
    unset: String,
}

/// Layer `l` is of one kind if `(l + 1) % interval == 0`, else of the other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct EveryForm {
    interval: Key<usize>,
    kind: String,
    others: String,
    /// Whether it counts only where nothing else chooses; absent: what it says must be
    /// what is chosen.
    #[serde(default)]
    yields: bool,
}

impl ByLayerForm {
    /// The kinds as descriptors name them, each once, ascending.
    pub(super) fn attention_kinds(&self) -> Vec<&'static str> {
        let kinds: BTreeSet<_> = self.kinds.values().flat_map(AttentionForm::kinds).collect();
        kinds.into_iter().collect()
    }

    pub(super) fn slots<'a>(&'a self, slots: &mut Slots<'a>) -> Result<(), Error> {
        for kind in self.kinds.values() {
            let mut own = Vec::new();
            kind.slots(&mut own)?;
            // Kinds may call the same tensor the same.
            own.retain(|slot| !slots.contains(slot));
            slots.append(&mut own);
        }
        Ok(())
    }

    /// The words of its kinds, ascending.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &String> {
        self.kinds.keys()
    }

    pub(super) fn check(&self, by_mixers: bool) -> Result<(), Error> {
        let bad = |reason: String| Err(Error::Descriptor { reason });
        let lists = [self.types.is_some(), self.layers.is_some(), self.switches.is_some()];
        let chosen_here = lists.contains(&true) || self.every.is_some();
        if chosen_here == by_mixers {
            return bad(
                "`attention` by layer needs `types`, `layers`, `switches` or `every`, or in their \
                 place `[layers.mixers]`"
                    .to_owned(),
            );
        }
        let of_lists = self.layers.iter().flat_map(|lists| lists.of.keys());
        let of_interval = self.every.iter().flat_map(|every| [&every.kind, &every.others]);
        let of_switches = self.switches.iter().flat_map(|form| [&form.set, &form.unset]);
        for word in of_lists.chain(of_switches).chain(of_interval) {
            if !self.kinds.contains_key(word) {
                return bad(format!("there is no `attention.kinds.{word}`"));
            }
        }
        for (word, kind) in &self.kinds {
            if matches!(kind, AttentionForm::ByLayer(_)) {
                return bad(format!("`attention.kinds.{word}` cannot be `by_layer` itself"));
            }
            kind.check(false)?;
        }
        Ok(())
    }

    pub(super) fn read(&self, model: Model<'_>) -> Result<Vec<AttentionSpec>, Error> {
        let words = self.kinds_of_layers(model)?;
        let without = words.iter().map(|word| word.is_none().then_some(AttentionSpec::None));
        let mut specs: Vec<_> = without.collect();
        for (word, kind) in &self.kinds {
            let chosen: Vec<bool> =
                words.iter().map(|other| other.as_ref() == Some(word)).collect();
            if !chosen.contains(&true) {
                continue; // its keys may be missing
            }
            let of_kind = kind.read(Model { chosen: Some(&chosen), ..model })?;
            for ((spec, of_kind), chosen) in specs.iter_mut().zip(of_kind).zip(&chosen) {
                if *chosen {
                    *spec = Some(of_kind);
                }
            }
        }
        let known = || self.kinds.keys().map(String::as_str).collect::<Vec<_>>().join("`, `");
        let missing = |layer: usize| {
            let word = words[layer].as_deref().map(shown).unwrap_or_default();
            let reason =
                format!("layer {layer} is of type `{word}`, expected one of `{}`", known());
            model.config.refuse(reason)
        };
        let specs = specs.into_iter().enumerate();
        specs.map(|(layer, spec)| spec.ok_or_else(|| missing(layer))).collect()
    }

    /// The kind that a word stands for.
    pub(super) fn kind(&self, word: &str) -> Option<&AttentionForm> {
        self.kinds.get(word)
    }

    /// The attention of a layer behind the decoder's: as of the decoder's first layer of the same kind.
    pub(super) fn read_extra(
        &self,
        word: &str,
        model: Model<'_>,
        layer: usize,
    ) -> Result<AttentionSpec, Error> {
        let missing =
            || model.config.refuse(format!("`attention.kinds.{word}` is in no layer's attention"));
        let kind = self.kind(word).ok_or_else(missing)?;
        let words = self.kinds_of_layers(model)?;
        let chosen: Vec<bool> = words.iter().map(|other| other.as_deref() == Some(word)).collect();
        let first = chosen.iter().position(|chosen| *chosen).unwrap_or_default();
        match kind.read(Model { chosen: Some(&chosen), ..model })?.into_iter().nth(first) {
            None | Some(AttentionSpec::Opaque(_)) => kind.read_extra(None, model, &[], layer),
            Some(known) => Ok(known),
        }
    }

    /// The key of the kind of which a layer stores tensors.
    pub(super) fn stored_kind(
        &self,
        named: &NamedTensors,
        layer: usize,
    ) -> Result<Option<&str>, Error> {
        for (word, kind) in &self.kinds {
            let mut slots = Vec::new();
            kind.slots(&mut slots)?;
            let is_stored = |id| named.shapes.contains_key(&TensorId::Layer(layer, id));
            if slots.into_iter().any(|(id, _)| is_stored(id)) {
                return Ok(Some(word));
            }
        }
        Ok(None)
    }

    /// The key of the kind of each layer; `None` where there is no attention.
    fn kinds_of_layers(&self, model: Model<'_>) -> Result<Vec<Option<String>>, Error> {
        match model.mixers {
            Some(mixers) => Ok(mixers.iter().map(|m| m.attention().map(str::to_owned)).collect()),
            None => Ok(self.words(model.config, model.layers)?.into_iter().map(Some).collect()),
        }
    }

    /// The word for the kind of each layer.
    fn words(&self, config: &Config, layers: usize) -> Result<Vec<String>, Error> {
        let mut said: Vec<(String, Vec<String>)> = Vec::new();
        if let Some(key) = &self.types {
            said.extend(by_type(key, config, layers)?.map(|words| (key.shown(), words)));
        }
        if let Some(lists) = &self.layers {
            said.extend(lists.words(config, layers)?.map(|words| (lists.shown(), words)));
        }
        if let Some(form) = &self.switches {
            said.extend(form.words(config, layers)?.map(|words| (form.list.shown(), words)));
        }
        if let Some(every) = &self.every
            && let (false, Some(found)) =
                (every.yields || said.is_empty(), every.interval.found(config)?)
        {
            said.push((found.to_owned(), every.words(config, layers)?));
        }
        if let Some((first, words)) = said.first() {
            let Some((other, _)) = said.iter().find(|(_, others)| others != words) else {
                return Ok(words.clone());
            };
            let reason = format!("`{first}` and `{other}` name different layers");
            return Err(config.refuse(reason));
        }
        let Some(every) = &self.every else {
            let keys = self.types.iter().map(Key::shown);
            let keys = keys.chain(self.layers.iter().map(ListsForm::shown));
            let keys = keys.chain(self.switches.iter().map(|form| form.list.shown()));
            let keys: Vec<_> = keys.collect();
            let keys = keys.join("` or `");
            return Err(config.refuse(format!("lacks `{keys}`")));
        };
        every.words(config, layers)
    }
}

impl EveryForm {
    /// The word for the kind of each layer.
    fn words(&self, config: &Config, layers: usize) -> Result<Vec<String>, Error> {
        let interval = self.interval.needed(config)?;
        let word = |layer: usize| {
            if (layer + 1).is_multiple_of(interval) { &self.kind } else { &self.others }
        };
        Ok((0..layers).map(|layer| word(layer).clone()).collect())
    }
}

/// The words of a list, if there is one.
fn by_type(
    key: &Key<Strings>,
    config: &Config,
    layers: usize,
) -> Result<Option<Vec<String>>, Error> {
    let Some(Strings(words)) = key.optional(config)? else { return Ok(None) };
    if words.len() != layers {
        let (key, got) = (key.shown(), words.len());
        let reason = format!("`{key}` has length {got}, expected {layers}, one entry per layer");
        return Err(config.refuse(reason));
    }
    Ok(Some(words))
}

impl SwitchesForm {
    /// The word for the kind of each layer; `None` if the config has no such list.
    fn words(&self, config: &Config, layers: usize) -> Result<Option<Vec<String>>, Error> {
        let Some(Switches(list)) = self.list.optional(config)? else { return Ok(None) };
        if list.is_empty() {
            return Ok(None);
        }
        if list.len() != layers {
            let (key, got) = (self.list.shown(), list.len());
            let reason =
                format!("`{key}` has length {got}, expected {layers}, one entry per layer");
            return Err(config.refuse(reason));
        }
        let word = |is_set: bool| if is_set { self.set.clone() } else { self.unset.clone() };
        Ok(Some(list.into_iter().map(word).collect()))
    }
}

impl ListsForm {
    /// The keys as messages name them.
    fn shown(&self) -> String {
        self.of.values().map(Key::shown).collect::<Vec<_>>().join("` and `")
    }

    /// The word for the kind of each layer; `None` if the config has none of the lists.
    fn words(&self, config: &Config, layers: usize) -> Result<Option<Vec<String>>, Error> {
        let mut words: Vec<Option<&String>> = vec![None; layers];
        let mut is_there = false;
        for (word, key) in &self.of {
            let Some(Layers(numbers)) = key.optional(config)? else { continue };
            is_there = true;
            for number in numbers {
                let place = number.checked_sub(self.first).and_then(|layer| words.get_mut(layer));
                match place {
                    Some(place @ None) => *place = Some(word),
                    Some(Some(_)) => {
                        let reason = format!("`{}` has layer {number} again", key.shown());
                        return Err(config.refuse(reason));
                    }
                    None => {
                        let (key, first) = (key.shown(), self.first);
                        let reason = format!(
                            "`{key}` has layer {number}, but layers are numbered from \
                             {first}"
                        );
                        return Err(config.refuse(reason));
                    }
                }
            }
        }
        if !is_there {
            return Ok(None);
        }
        let missing = |at: usize| {
            config.refuse(format!("none of `{}` has layer {}", self.shown(), at + self.first))
        };
        let words = words.into_iter().enumerate();
        let words = words.map(|(at, word)| word.cloned().ok_or_else(|| missing(at)));
        words.collect::<Result<_, _>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FORM: &str = r#"
        types = { keys = ["types"] }
        every = { interval = { keys = ["every"], default = 2 }, kind = "full", others = "other" }
        layers = { first = 1, of = { full = { keys = ["full"] }, other = { keys = ["other"] } } }
        kinds = { full = { kind = "opaque" }, other = { kind = "opaque" } }
    "#;

    fn words(config: &str) -> Result<String, String> {
        let form: ByLayerForm = toml::from_str(FORM).expect("a form");
        form.check(false).expect("is complete");
        let config = Config::of_text(Path::new("config.json"), config).expect("an object");
        let words = form.words(&config, 4).map_err(|error| error.to_string())?;
        Ok(words.join(" "))
    }

    #[track_caller]
    fn check(config: &str, expected: &str) {
        assert_eq!(words(config).as_deref(), Ok(expected), "{config}");
    }

    #[track_caller]
    fn check_refused(config: &str, expected: &str) {
        let message = words(config).expect_err(config);
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn what_chooses() {
        check("{}", "other full other full");
        check(r#"{"every": 3}"#, "other other full other");
        check(r#"{"types": ["a", "b", "c", "d"]}"#, "a b c d");
        let same = r#"{"every": 3, "types": ["other", "other", "full", "other"]}"#;
        check(same, "other other full other");
        check(r#"{"full": [4, 1], "other": [2, 3]}"#, "full other other full");
        let same =
            r#"{"full": [1], "other": [2, 3, 4], "types": ["full", "other", "other", "other"]}"#;
        check(same, "full other other other");
    }

    #[test]
    fn what_chooses_nothing() {
        check_refused(
            r#"{"types": ["full"]}"#,
            "`types` has length 1, expected 4, one entry per layer",
        );
        check_refused(r#"{"full": [0]}"#, "`full` has layer 0, but layers are numbered from 1");
        check_refused(r#"{"full": [5]}"#, "`full` has layer 5");
        check_refused(r#"{"full": [1, 2], "other": [2]}"#, "`other` has layer 2 again");
        check_refused(
            r#"{"full": [1, 2], "other": [4]}"#,
            "none of `full` and `other` has layer 3",
        );
        let other =
            r#"{"full": [1], "other": [2, 3, 4], "types": ["full", "full", "full", "full"]}"#;
        check_refused(other, "`types` and `full` and `other` name different layers");
        let other = r#"{"every": 2, "types": ["other", "other", "full", "other"]}"#;
        check_refused(other, "`types` and `every` name different layers");
    }

    #[test]
    fn incomplete_forms() {
        let check = |from: &str, to: &str, expected: &str| {
            let form: ByLayerForm = toml::from_str(&FORM.replace(from, to)).expect("a form");
            let message = form.check(false).expect_err(to).to_string();
            assert!(message.contains(expected), "{message}");
        };
        check("kind = \"full\"", "kind = \"none\"", "no `attention.kinds.none`");
        check("other = { keys", "none = { keys", "no `attention.kinds.none`");
    }
}
