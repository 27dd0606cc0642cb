//! Keep-lists: files that name the experts that stay.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    fs::File,
    io::Read,
    path::Path,
};

use moeprune_core::{ModelSpec, Plan, Sparsity};
use moeprune_engine::{ExpertStage, KeepList, LayerKey, Pipeline};
use moeprune_files::StandIn;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, error::Category};

use crate::{Error, Recipe, Registry, read_plan};

/// Reads a keep-list for a model: `{"3": [0, 2], ...}` by layer (its number as in tensor names, or
/// `mtp.0` for the first behind the decoder's), one list for all decoder layers, or a plan. A layer that
/// a plan does not name keeps all of its experts.
///
/// Whether it fits the model, [`KeepList::dropped`] checks.
///
/// # Errors
/// If the file cannot be read or is too large, is none of these, names a layer twice, or is a plan that
/// averages experts or leaves some to be chosen.
pub fn read_keep_list(path: &Path, spec: &ModelSpec) -> Result<KeepList, Error> {
    let bad = |reason: String| Error::Request(format!("{} {reason}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let read = file.take(LONGEST + 1).read_to_string(&mut text);
    read.map_err(|e| Error::io(path, "read", e))?;
    if text.len() as u64 > LONGEST {
        return Err(bad(format!("is longer than {LONGEST} bytes; not a keep-list")));
    }
    let beginning = &text.as_bytes()[..text.len().min(StandIn::BYTES)];
    if let Some(stand_in) = StandIn::pointer(beginning) {
        return Err(bad(stand_in.to_string()));
    }
    match parse(text.trim_start_matches('\u{feff}')).map_err(bad)? {
        Form::List(list) => Ok(list),
        Form::Plan => of_plan(&read_plan(path)?, spec).map_err(bad),
    }
}

/// What the text of a file holds.
fn parse(text: &str) -> Result<Form, String> {
    serde_json::from_str(text).map_err(|e| match e.classify() {
        Category::Data if text.trim_start().starts_with(['{', '[']) => {
            format!("is no keep-list: {e}")
        }
        Category::Data => format!("is no keep-list: it must hold {FORMS}"),
        Category::Syntax | Category::Eof | Category::Io => format!("is not JSON: {e}"),
    })
}

/// What a keep-list may be.
const FORMS: &str = "lists of experts by layer, one list for all layers, or a plan";

/// Thousands of experts in hundreds of layers fit.
const LONGEST: u64 = 100_000_000;

impl Registry {
    /// The stages that a recipe names, with the experts to keep from a list. The recipe then says so, and
    /// that nothing but experts goes, unless a total is given.
    ///
    /// # Errors
    /// As [`pipeline`](Self::pipeline) and [`KeepList::dropped`].
    pub fn keeping(
        &self,
        list: KeepList,
        spec: &ModelSpec,
        recipe: &mut Recipe,
        total: Option<Sparsity>,
    ) -> Result<Pipeline, Error> {
        recipe.keep_listed(Sparsity::new(list.share(spec)?)?, total);
        let pipeline = self.pipeline(recipe)?;
        Ok(Pipeline { experts: ExpertStage::Listed(Some(list)), ..pipeline })
    }
}

/// The experts that a plan keeps.
fn of_plan(plan: &Plan, spec: &ModelSpec) -> Result<KeepList, String> {
    let mut lists: BTreeMap<LayerKey, Vec<usize>> = (0..spec.layers.len())
        .filter_map(|layer| Some((layer, spec.moe_of(layer)?.experts)))
        .map(|(layer, experts)| (LayerKey::Layer(layer), (0..experts).collect()))
        .collect();
    for planned in &plan.layers {
        let layer = planned.layer;
        if planned.is_open() {
            return Err(format!(
                "is a plan that leaves open which experts of layer {layer} stay; make it with \
                 --read-experts, or apply it"
            ));
        }
        if let Some(average) = planned.survivors.iter().find(|s| !s.average_of.is_empty()) {
            return Err(format!(
                "is a plan in which expert {} of layer {layer} is an average; a keep-list cannot say \
                 that, so apply the plan itself",
                average.source
            ));
        }
        let experts = spec.moe_of(layer).map_or(0, |moe| moe.experts);
        if planned.experts_before != experts {
            return Err(format!(
                "is a plan for {} experts in layer {layer}, where this model has {experts}",
                planned.experts_before
            ));
        }
        let kept = planned.survivors.iter().map(|survivor| survivor.source).collect();
        lists.insert(LayerKey::Layer(layer), kept);
    }
    Ok(KeepList::ByLayer(lists))
}

/// What a file holds.
enum Form {
    List(KeepList),
    Plan,
}

impl<'de> Deserialize<'de> for Form {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FormVisitor)
    }
}

struct FormVisitor;

impl<'de> Visitor<'de> for FormVisitor {
    type Value = Form;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORMS)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Form, A::Error> {
        let mut kept = Vec::new();
        while let Some(expert) = seq.next_element()? {
            kept.push(index(&expert).map_err(A::Error::custom)?);
        }
        Ok(Form::List(KeepList::EveryLayer(kept)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Form, A::Error> {
        let (mut lists, mut is_plan) = (BTreeMap::new(), false);
        while let Some(name) = map.next_key::<String>()? {
            if is_plan || lists.is_empty() && OF_PLANS.contains(&name.as_str()) {
                is_plan = true;
                map.next_value::<serde::de::IgnoredAny>()?;
                continue;
            }
            let key: LayerKey = name.parse().map_err(A::Error::custom)?;
            let value: Value = map.next_value()?;
            let kept = experts(&value)
                .map_err(|problem| A::Error::custom(format!("layer `{name}`: {problem}")))?;
            match lists.entry(key) {
                Entry::Vacant(free) => free.insert(kept),
                Entry::Occupied(_) => {
                    return Err(A::Error::custom(format!("layer `{name}` is named twice")));
                }
            };
        }
        Ok(if is_plan { Form::Plan } else { Form::List(KeepList::ByLayer(lists)) })
    }
}

/// The experts of a layer.
fn experts(value: &Value) -> Result<Vec<usize>, String> {
    let list = value.as_array();
    let list = list.ok_or_else(|| format!("it must be a list of experts, not {value}"))?;
    list.iter().map(index).collect()
}

/// The number of an expert.
fn index(value: &Value) -> Result<usize, String> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("experts are whole numbers from 0, and {value} is none"))
}

/// Keys that a plan may begin with.
const OF_PLANS: [&str; 4] = ["format", "tool", "model_fingerprint", "layers"];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = match parse(text) {
            Ok(Form::List(list)) => serde_json::to_string(&list).unwrap(),
            Ok(Form::Plan) => "a plan".to_owned(),
            Err(problem) => problem.trim_start_matches("is no keep-list: ").to_owned(),
        };
        assert!(got.starts_with(expected), "{got}");
    }

    #[test]
    fn forms() {
        check("[0, 2]", "[0,2]");
        check(r#"{"10": [1], "3": [0, 2], "mtp.0": [5]}"#, r#"{"3":[0,2],"10":[1],"mtp.0":[5]}"#);
        check(r#"{"format": 1, "layers": []}"#, "a plan");
        check(r#"{"3": [0], "3": [1]}"#, "layer `3` is named twice");
        check(r#"{"03": [0]}"#, "`03` names no layer; write its number");
        check(r#"{"mtp": [0]}"#, "`mtp` names no layer");
        let number = "experts are whole numbers from 0, and";
        check(r#"{"3": [-1]}"#, &format!("layer `3`: {number} -1 is none"));
        check(r#"{"3": 4}"#, "layer `3`: it must be a list of experts, not 4");
        check(r#"{"3": null}"#, "layer `3`: it must be a list of experts, not null");
        check("3", "it must hold lists of experts by layer, one list");
        check("[0, 0.5]", &format!("{number} 0.5 is none"));
        check("[0, [1]]", &format!("{number} [1] is none"));
        check("[0", "is not JSON: EOF while parsing a list at line 1");
    }
}
