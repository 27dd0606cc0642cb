//! The text of a quantisation config after experts are gone.

use std::{collections::BTreeSet, ops::Range};

use serde_json::value::RawValue;

use super::{
    entries::{Fate, fates, list},
    modules::Modules,
    pattern::Dialect,
};
use crate::json::Members;

/// What stands in place of a range of a text.
type Edit = (Range<usize>, String);

/// The changes to `json` that make the quantisation config `object`, which is a part of it, say of each
/// module that stays what it said of it before. Everything that says that already stays byte for byte.
///
/// # Errors
/// Which key cannot be read, or which entry in it.
pub(crate) fn edits(json: &str, object: &str, modules: &Modules) -> Result<Vec<Edit>, String> {
    let mut text = Text { json, modules, method: method(object), edits: Vec::new() };
    if !modules.all_stay() {
        text.value("", object)?;
    }
    Ok(text.edits)
}

/// Which program made a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    CompressedTensors,
    ModelOptimizer,
    Awq,
    Fp8,
    Other,
}

fn method(object: &str) -> Method {
    let members: Option<Members<&RawValue>> = serde_json::from_str(object).ok();
    let member = |key: &str| {
        let text = members.as_ref()?.get(key)?.get();
        serde_json::from_str::<String>(text).ok()
    };
    let has = |key: &str| members.as_ref().is_some_and(|members| members.get(key).is_some());
    match member("quant_method").as_deref() {
        Some("compressed-tensors") => Method::CompressedTensors,
        Some("modelopt" | "modelopt_fp4" | "nvfp4") => Method::ModelOptimizer,
        Some("awq") => Method::Awq,
        Some("fp8" | "mxfp4" | "fbgemm_fp8" | "finegrained_fp8") => Method::Fp8,
        None if member("quant_algo").is_some() => Method::ModelOptimizer,
        // AutoAWQ's own file names no method.
        None if ["w_bit", "q_group_size", "zero_point"].iter().any(|key| has(key)) => Method::Awq,
        _ => Method::Other,
    }
}

/// How entries under a key are read; `None` of a key under which none are expected.
fn dialect(key: &str, method: Method) -> Option<Dialect> {
    Some(match (key, method) {
        ("ignore" | "targets", Method::CompressedTensors) => Dialect::CompressedTensors,
        ("ignore" | "targets", Method::ModelOptimizer) => Dialect::Glob,
        ("ignore" | "targets" | "exclude" | "layer_quant_config", _) => Dialect::Any,
        ("modules_to_not_convert", Method::Awq) => Dialect::Substring,
        ("modules_to_not_convert" | "ignored_layers", _) => Dialect::Transformers,
        ("exclude_modules" | "quantized_layers", _) => Dialect::Glob,
        ("extra_config", _) => Dialect::AutoRound,
        ("dynamic", _) => Dialect::Signed,
        ("modules_in_block_to_quantize", _) => Dialect::End,
        _ => return None,
    })
}

/// A text that is being changed.
struct Text<'a> {
    json: &'a str,
    modules: &'a Modules,
    method: Method,
    edits: Vec<Edit>,
}

impl<'a> Text<'a> {
    /// A value, and the key that it stands under.
    fn value(&mut self, key: &str, text: &'a str) -> Result<(), String> {
        match text.as_bytes().first() {
            Some(b'{') => self.object(key, text),
            Some(b'[') => self.array(key, text),
            _ => Ok(()),
        }
    }

    fn object(&mut self, key: &str, text: &'a str) -> Result<(), String> {
        let members: Members<&'a RawValue> =
            serde_json::from_str(text).map_err(|e| format!("`{key}`: {e}"))?;
        let keys: Vec<String> = members.0.iter().map(|(key, _)| key.clone()).collect();
        let known = dialect(key, self.method);
        let fates = fates(&keys, known.unwrap_or(Dialect::Exact), self.modules)
            .map_err(|problem| format!("`{key}`: {problem}"))?;
        if fates.iter().all(|fate| *fate == Fate::Same) {
            let mut members = members.0.into_iter();
            return members.try_for_each(|(key, value)| self.value(&key, value.get()));
        }
        let stay = keys.iter().zip(&fates).filter_map(|(key, fate)| match fate {
            Fate::Same => Some(key.clone()),
            Fate::Renamed(name) => Some(name.clone()),
            Fate::Names(_) => None,
        });
        // A name that is there by itself counts, not what a pattern says of it.
        let mut taken: BTreeSet<String> = stay.collect();
        let mut left = Vec::new();
        for ((key, value), fate) in members.0.iter().zip(fates) {
            let names = match fate {
                Fate::Same => vec![key.clone()],
                Fate::Renamed(name) => vec![name],
                Fate::Names(names) => {
                    names.into_iter().filter(|name| taken.insert(name.clone())).collect()
                }
            };
            left.extend(names.into_iter().map(|name| format!("{}: {value}", quoted(&name))));
        }
        let first = members.0.first().map_or("", |(_, value)| value.get());
        let after_first = &text[offset(text, first) + first.len()..];
        self.replace(text, after_first, &left);
        Ok(())
    }

    fn array(&mut self, key: &str, text: &'a str) -> Result<(), String> {
        let items: Vec<&'a RawValue> =
            serde_json::from_str(text).map_err(|e| format!("`{key}`: {e}"))?;
        let entries: Option<Vec<String>> =
            items.iter().map(|item| serde_json::from_str(item.get()).ok()).collect();
        let Some(entries) = entries else {
            return items.into_iter().try_for_each(|item| self.value(key, item.get()));
        };
        let dialect = dialect(key, self.method).unwrap_or(Dialect::Exact);
        let left = list(&entries, dialect, self.modules)
            .map_err(|problem| format!("`{key}`: {problem}"))?;
        if let Some(left) = left {
            let first = items.first().map_or("", |item| item.get());
            let after_first = &text[offset(text, first) + first.len()..];
            let left: Vec<String> = left.iter().map(|entry| quoted(entry)).collect();
            self.replace(text, after_first, &left);
        }
        Ok(())
    }

    /// Writes a list or an object again, with the white space that it had between items.
    fn replace(&mut self, text: &str, after_first: &str, items: &[String]) {
        let (open, close) = (&text[..1], &text[text.len() - 1..]);
        let white = |text: &str| {
            let end = text.find(|c: char| !c.is_whitespace()).unwrap_or(text.len());
            text[..end].to_owned()
        };
        let inner = &text[1..text.len() - 1];
        let begin = white(inner);
        let end = inner[inner.trim_end().len()..].to_owned();
        let between = match after_first.trim_start().strip_prefix(',') {
            Some(rest) => format!(",{}", white(rest)),
            None => format!(",{}", if begin.is_empty() { " " } else { &begin }),
        };
        let written = match items {
            [] => format!("{open}{close}"),
            items => format!("{open}{begin}{}{end}{close}", items.join(&between)),
        };
        let start = offset(self.json, text);
        self.edits.push((start..start + text.len(), written));
    }
}

/// Where a part of a text begins in it.
fn offset(text: &str, part: &str) -> usize {
    match part {
        "" => 0,
        part => part.as_ptr() as usize - text.as_ptr() as usize,
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
