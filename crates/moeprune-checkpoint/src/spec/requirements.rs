//! Config keys that ask for what is not implemented.

use std::slice;

use moeprune_core::{Activation, LayerSpec};
use serde_json::value::RawValue;

use crate::{
    Error, Family,
    config::{Config, ConfigValue, same_json, shown},
    family::{Descriptor, FACT_KEYS, Fact, ReadKeys, Requirement},
    json::Members,
    number::real,
};

/// Refuses a config that asks for what is not implemented, as far as it can be seen without the tensors.
pub(crate) fn check_requirements(family: &Family, config: &Config) -> Result<(), Error> {
    let form = family.descriptor();
    let others = form.require.iter().filter(|requirement| !is_of_quantization(requirement));
    others.into_iter().try_for_each(|requirement| check_requirement(config, requirement))?;
    check_implied(form, family.reads(), config)
}

/// Refuses a config that says that weights are quantised, where none are in codes: what is stored decides.
pub(crate) fn check_not_quantised(family: &Family, config: &Config) -> Result<(), Error> {
    let mut require = family.descriptor().require.iter().filter(|r| is_of_quantization(r));
    require.try_for_each(|requirement| {
        check_requirement(config, requirement).map_err(|_| {
            config.refuse(format!(
                "`{}` says that weights are quantised, but no tensor is in codes: remove the key if the weights \
                 are plain numbers; if not, start from the bf16 checkpoint or download the files again",
                requirement.key
            ))
        })
    })
}

/// Whether a requirement is that nothing is quantised, which the tensors decide.
fn is_of_quantization(requirement: &Requirement) -> bool {
    requirement.key.trim_start_matches('/') == "quantization_config"
}

fn check_requirement(config: &Config, requirement: &Requirement) -> Result<(), Error> {
    let key = slice::from_ref(&requirement.key);
    let Some(found) = config.find(key)? else { return Ok(()) };
    let is = |value: &toml::Value, text: &str| {
        serde_json::to_string(value).is_ok_and(|value| same_json(&value, text))
    };
    let all_are = |values: &[toml::Value]| {
        let items: Option<Vec<&RawValue>> = serde_json::from_str(found.text).ok();
        let is_known = |item: &&RawValue| values.iter().any(|v| is(v, item.get()));
        items.is_some_and(|items| items.iter().all(is_known))
    };
    let allowed = requirement.allowed.iter().any(|value| is(value, found.text));
    if allowed || requirement.each.as_deref().is_some_and(all_are) {
        return Ok(());
    }
    Err(config.refuse(format!("`{}` is {}: {}", found.key, found.shown(), requirement.because)))
}

/// Checks keys that the descriptor does not read, because all models of the family do the same.
fn check_implied(form: &Descriptor, reads: &ReadKeys, config: &Config) -> Result<(), Error> {
    for (fact, keys) in FACT_KEYS {
        for key in keys.iter().filter(|key| !reads.has(key)) {
            let key = [(*key).to_owned()];
            let Some(found) = config.find(&key)? else { continue };
            let said = String::from_json(found.text).unwrap_or_else(|| found.text.to_owned());
            let agrees = match fact {
                Fact::Activation => agrees_on_activation(form, config, &said)?,
                fact => form.words_for(fact).is_none_or(|words| words.contains(&&*plain(&said))),
            };
            if !agrees {
                let (text, because) = (found.shown(), fact.because());
                return Err(config.refuse(format!("`{}` is {text}: {because}", found.key)));
            }
        }
    }
    Ok(())
}

fn agrees_on_activation(form: &Descriptor, config: &Config, said: &str) -> Result<bool, Error> {
    let own = read_activation(form, config)?;
    Ok(own == Activation::Opaque || form.activation_named(said) == Some(own))
}

/// The activation of MLPs.
pub(super) fn read_activation(form: &Descriptor, config: &Config) -> Result<Activation, Error> {
    let Some(key) = &form.model.activation else { return Ok(Activation::Opaque) };
    let name = key.needed(config)?;
    form.activation_named(&name).ok_or_else(|| {
        let known = match form.experts.is_gated() {
            true => "silu and gelu_pytorch_tanh",
            false => "silu and relu2",
        };
        let (key, got) = (key.shown(), shown(&name));
        config.refuse(format!("`{key}` is `{got}`; only {known} are implemented"))
    })
}

/// A word as it is compared.
fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// Refuses keys of rotary positions that nothing reads: they may change the angles. Where no layer turns
/// none matters.
pub(super) fn check_positions(
    reads: &ReadKeys,
    config: &Config,
    layers: &[LayerSpec],
) -> Result<(), Error> {
    if layers.iter().all(|layer| layer.attention.rotary().is_none()) {
        return Ok(());
    }
    let of_positions = |key: &str| key.starts_with("rope_") || key.starts_with("rotary_");
    let mut unread: Vec<String> = config.keys()?;
    unread.retain(|key| of_positions(key));
    for holder in reads.holders_by_kind() {
        let members = config.members_of(holder)?.into_iter();
        unread.extend(members.map(|member| format!("{holder}.{member}")));
    }
    for key in unread.iter().filter(|key| !reads.has(key)) {
        let found = config.find(slice::from_ref(key))?;
        let text = found.map_or("…", |found| found.text); // of a key with a dot in it
        if !says_nothing(key, text) {
            return Err(config.refuse(format!(
                "`{key}` is {}, but models of this family are not known to have such a key; it may \
                 change the angles of rotary positions, which would go unnoticed",
                shown(text)
            )));
        }
    }
    Ok(())
}

/// Whether positions are with this value what they are without the key.
fn says_nothing(key: &str, text: &str) -> bool {
    let is_one = || real(text) == Some(1.0);
    if bool::from_json(text) == Some(false) {
        return true;
    }
    if let Some(kind) = String::from_json(text) {
        return kind == "default";
    }
    if let Ok(members) = serde_json::from_str::<Members<&RawValue>>(text) {
        let known = ["type", "rope_type", "factor"];
        return members.0.iter().all(|(key, value)| {
            value.get() == "null" || known.contains(&key.as_str()) && says_nothing(key, value.get())
        });
    }
    ["factor", "ratio", "scale", "scaling"].iter().any(|end| key.ends_with(end)) && is_one()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_nothing() {
        let check = |key: &str, text: &str, expected: bool| {
            assert_eq!(says_nothing(key, text), expected, "{key}: {text}");
        };
        check("rope_scaling", "{}", true);
        check("rope_scaling", r#"{"type": "default"}"#, true);
        check("rope_scaling", r#"{"rope_type": "default", "factor": 1.0}"#, true);
        check("rope_scaling", r#"{"type": null}"#, true);
        check("rope_scaling", r#"{"type": "yarn"}"#, false);
        check("rope_scaling", r#"{"factor": 2}"#, false);
        check("rope_scaling", r#"{"alpha": 1}"#, false);
        check("rope_type", r#""default""#, true);
        check("rope_type", r#""xyzzy""#, false);
        check("rope_interleaved", "false", true);
        check("rope_interleaved", "true", false);
        check("rope_ratio", "1", true);
        check("rope_ratio", "2", false);
        check("rotary_emb_base", "1", false);
        check("rope_foo", "[]", false);
    }

    #[test]
    fn words_that_are_the_same() {
        assert_eq!(plain("RMS_Norm"), plain("rmsnorm"));
    }
}
