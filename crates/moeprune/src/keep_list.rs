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
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

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
    match serde_json::from_str(&text) {
        Ok(Form::List(list)) => Ok(list),
        Ok(Form::Plan) => of_plan(&read_plan(path)?, spec).map_err(bad),
        Err(e) => Err(bad(format!("is no keep-list: {e}"))),
    }
}

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
        f.write_str("lists of experts by layer, one list for all layers, or a plan")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Form, A::Error> {
        let mut kept = Vec::new();
        while let Some(expert) = seq.next_element()? {
            kept.push(expert);
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
            let kept = serde_json::from_value(value).map_err(|e| {
                A::Error::custom(format!("layer `{name}`: expected a list of experts: {e}"))
            })?;
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

/// Keys that a plan may begin with.
const OF_PLANS: [&str; 4] = ["format", "tool", "model_fingerprint", "layers"];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = match serde_json::from_str(text) {
            Ok(Form::List(list)) => serde_json::to_string(&list).unwrap(),
            Ok(Form::Plan) => "a plan".to_owned(),
            Err(e) => e.to_string(),
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
        check(r#"{"3": [-1]}"#, "layer `3`: expected a list of experts: invalid value");
        check(r#"{"3": 4}"#, "layer `3`: expected a list of experts: invalid type");
        check("3", "invalid type: integer `3`, expected lists of experts by layer");
        check("[0, 0.5]", "invalid type: floating point");
    }
}
