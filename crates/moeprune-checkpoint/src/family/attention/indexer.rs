//! `[attention.indexer]`

use moeprune_core::{
    LatentAttention, LayerTensor, LightningIndexer, RotarySpec, RotaryStyle, TensorId,
};
use serde::Deserialize;

use super::{Key, Model};
use crate::{
    Error,
    config::{Config, shown},
    family::key::{Count, Strings},
    named_tensors::NamedTensors,
};

/// What selects the keys that a query of latent attention sees.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IndexerForm {
    heads: Key<usize>,
    dim: Key<usize>,
    top_k: Key<usize>,
    /// Whether neighbouring dimensions of its heads turn together, rather than those half a head
    /// apart. They turn by the attention's angles.
    pair: Key<bool>,
    shared: SharedForm,
    /// A list of one word per layer that must be one of these for all: the config may say there too how
    /// layers see keys.
    types: Option<TypesForm>,
    tensors: Names,
}

/// Which layers have no indexer and take over what a layer before them selected. The first of these
/// that is in the config decides; without any, all layers have one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SharedForm {
    /// A list of `full` and `shared`, one per layer.
    types: Key<Strings>,
    /// The same as a string of `F` and `S`.
    pattern: Key<String>,
    /// From the layer before `from` on, each so manieth layer has one; layers before it all have.
    every: Key<usize>,
    from: Key<Count>,
}

/// A list of words, all of which must be among those that are known.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypesForm {
    list: Key<Strings>,
    /// Words that mean the same.
    only: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    query: String,
    key: String,
    weights: String,
    key_norm: String,
    key_norm_bias: String,
}

impl IndexerForm {
    pub(super) fn slots(&self) -> [(LayerTensor, &str); 5] {
        let names = &self.tensors;
        [
            (LightningIndexer::QUERY, &names.query),
            (LightningIndexer::KEY, &names.key),
            (LightningIndexer::WEIGHTS, &names.weights),
            (LightningIndexer::KEY_NORM, &names.key_norm),
            (LightningIndexer::KEY_NORM_BIAS, &names.key_norm_bias),
        ]
    }

    /// The indexer of each decoder layer, as if all had this kind of attention.
    pub(super) fn read(
        &self,
        model: Model<'_>,
        rotary: Option<&RotarySpec>,
    ) -> Result<Vec<LightningIndexer>, Error> {
        let config = model.config;
        if let Some(types) = &self.types {
            types.check(config)?;
        }
        let style = if self.pair.needed(config)? { RotaryStyle::Pair } else { RotaryStyle::Half };
        let indexer = LightningIndexer {
            heads: self.heads.needed(config)?,
            dim: self.dim.needed(config)?,
            top_k: self.top_k.needed(config)?,
            rotary: rotary.map(|rotary| RotarySpec { style, ..rotary.clone() }),
            shared: false,
        };
        let turning = rotary.map_or(0, |rotary| rotary.dims);
        if turning > indexer.dim {
            let key = self.dim.shown();
            let dim = indexer.dim;
            return Err(
                config.refuse(format!("`{key}` is {dim}, but {turning} dimensions of a head turn"))
            );
        }
        let shared = self.shared.read(config, model.layers)?;
        if model.chosen_layers().next().is_some_and(|first| shared.get(first) == Some(&true)) {
            return Err(config.refuse(
                "the first layer would take over the keys that a layer before it selected"
                    .to_owned(),
            ));
        }
        Ok(shared
            .into_iter()
            .map(|shared| LightningIndexer { shared, ..indexer.clone() })
            .collect())
    }
}

/// The attention of a layer behind the decoder's: the config's list is not of such layers, so it has an
/// indexer if one is stored.
pub(super) fn of_extra(
    latent: &LatentAttention,
    named: &NamedTensors,
    layer: usize,
) -> LatentAttention {
    let key = TensorId::Layer(layer, LightningIndexer::KEY);
    let shared = !named.shapes.contains_key(&key);
    let indexer = latent.indexer.clone().map(|indexer| LightningIndexer { shared, ..indexer });
    LatentAttention { indexer, ..latent.clone() }
}

impl SharedForm {
    /// Which layers have none.
    fn read(&self, config: &Config, layers: usize) -> Result<Vec<bool>, Error> {
        if let Some(Strings(types)) = self.types.optional(config)? {
            if types.len() != layers {
                let (key, got) = (self.types.shown(), types.len());
                return Err(config.refuse(format!(
                    "`{key}` has length {got}, expected {layers}, one entry per layer"
                )));
            }
            let shared = |word: &String| match word.as_str() {
                "shared" => Ok(true),
                "full" => Ok(false),
                other => Err(bad_word(config, &self.types.shown(), other)),
            };
            return types.iter().map(shared).collect();
        }
        if let Some(pattern) = self.pattern.optional(config)? {
            let letters = pattern.chars().count();
            if letters != layers {
                let key = self.pattern.shown();
                return Err(config.refuse(format!(
                    "`{key}` has length {letters}, expected {layers}, one letter per layer"
                )));
            }
            let shared = |letter: char| match letter {
                'S' => Ok(true),
                'F' => Ok(false),
                other => Err(bad_word(config, &self.pattern.shown(), &other.to_string())),
            };
            return pattern.chars().map(shared).collect();
        }
        let (every, Count(from)) = (self.every.needed(config)?, self.from.needed(config)?);
        let shared = |layer: usize| !(layer + 1).saturating_sub(from).is_multiple_of(every);
        Ok((0..layers).map(shared).collect())
    }
}

fn bad_word(config: &Config, key: &str, word: &str) -> Error {
    config.refuse(format!("`{key}` has `{}`, which is not known", shown(word)))
}

impl TypesForm {
    fn check(&self, config: &Config) -> Result<(), Error> {
        let Some(Strings(types)) = self.list.optional(config)? else { return Ok(()) };
        match types.iter().find(|word| !self.only.contains(word)) {
            None => Ok(()),
            Some(other) => Err(config.refuse(format!(
                "`{}` has `{}`; only `{}` is implemented for this family",
                self.list.shown(),
                shown(other),
                self.only.join("` or `")
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FORM: &str = r#"
        types = { keys = ["types"] }
        pattern = { keys = ["pattern"] }
        every = { keys = ["every"], default = 1 }
        from = { keys = ["from"], default = 2 }
    "#;

    /// `F` for layers that have one and `S` for those that have none.
    fn read(text: &str) -> Result<String, String> {
        let form: SharedForm = toml::from_str(FORM).expect("a form");
        let config = Config::of_text(Path::new("config.json"), text).expect("an object");
        let shared = form.read(&config, 7).map_err(|error| error.to_string())?;
        Ok(shared.into_iter().map(|shared| if shared { 'S' } else { 'F' }).collect())
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let message = read(text).expect_err(text);
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn which_layers_have_one() {
        check("{}", "FFFFFFF");
        check(r#"{"every": 2}"#, "FFSFSFS");
        check(r#"{"every": 4, "from": 3}"#, "FFFSSSF");
        check(r#"{"every": 3, "from": 0}"#, "SSFSSFS");
        check(r#"{"pattern": "FSSFFSF", "every": 2}"#, "FSSFFSF");
        let types = r#"["full", "shared", "shared", "full", "full", "full", "shared"]"#;
        check(&format!(r#"{{"types": {types}, "pattern": null, "every": 1}}"#), "FSSFFFS");
    }

    #[test]
    fn what_is_refused() {
        check_refused(r#"{"pattern": "FFS"}"#, "`pattern` has length 3, expected 7");
        check_refused(r#"{"pattern": "FFFFFFX"}"#, "`pattern` has `X`, which is not known");
        check_refused(r#"{"types": ["full"]}"#, "`types` has length 1, expected 7");
        check_refused(
            r#"{"types": ["full", "full", "full", "full", "full", "full", "none"]}"#,
            "`types` has `none`",
        );
        check_refused(r#"{"every": 0}"#, "`every` must be");
    }
}
