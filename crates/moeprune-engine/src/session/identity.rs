//! What a run was begun with, so that it is not continued with anything else.

use std::collections::{BTreeMap, BTreeSet};

use moeprune_checkpoint::ContentHash;
use moeprune_core::{CorpusTag, Observation, PartOf, Plan, Rendering, repair::RepairText};
use moeprune_files::FileIdentity;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{Calibration, Error, Execution, Model, Pipeline, RepairCalibration, TOOL};

/// Everything that the result depends on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunIdentity {
    /// Which command.
    pub(crate) command: String,
    /// The program and its version.
    pub(crate) tool: String,
    /// Hash over the model's names, shapes and routers.
    pub(crate) model: String,
    /// SHA-256 of the model's specification: everything that config.json and the family descriptor
    /// say, constants that no tensor holds among them. A journal without it is of an earlier version
    /// and is not resumed.
    #[serde(default)]
    pub(crate) spec: Option<String>,
    /// The model's files, their sizes and times: a hash of 1 TB would take longer than the run.
    pub(crate) files: Vec<FileIdentity>,
    /// Hashes of their headers and some of their blocks, so that a copy of them is the same model. A
    /// journal without them is of an earlier version, and the times decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) contents: Vec<ContentHash>,
    /// The resolved recipe.
    pub(crate) recipe: Value,
    /// The identity of each stage by its place; `None` of one that has none. None at all of a
    /// command without stages.
    #[serde(default)]
    pub(crate) stages: BTreeMap<String, Option<Value>>,
    /// The calibration text and what is drawn from it.
    pub(crate) calibration: Option<CorpusTag>,
    /// SHA-256 of the ids in all blocks, which the tokenizer decides too. A journal without it is of an
    /// earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<String>,
    /// Which part of the work it is, or, of a run that does all, how many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) part: Option<String>,
    /// What a repair is fitted to and measured on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) repair_texts: Vec<RepairText>,
    /// SHA-256 of the plan that is applied.
    pub(crate) plan: Option<String>,
    /// SHA-256 of the stored observation that is used.
    pub(crate) observation: Option<String>,
    /// Where it runs and in which type.
    #[serde(default)]
    pub(crate) device: String,
}

impl RunIdentity {
    /// What a run of `command` on a model depends on at least.
    ///
    /// # Errors
    /// If the model's files cannot be read.
    pub fn new(command: &str, model: &dyn Model) -> Result<Self, Error> {
        Self::default().with_command(command).with_model(model)
    }

    /// The same of another command.
    #[must_use]
    pub(crate) fn with_command(self, command: &str) -> Self {
        Self { command: command.to_owned(), ..self }
    }

    /// The same with a model as it is now, and this program.
    ///
    /// # Errors
    /// If the model's files cannot be read.
    pub(crate) fn with_model(self, model: &dyn Model) -> Result<Self, Error> {
        let spec = serde_json::to_vec(model.spec()).map_err(|e| {
            Error::Request(format!("the model's specification cannot be written as JSON: {e}"))
        })?;
        Ok(Self {
            spec: Some(format!("{:x}", Sha256::digest(spec))),
            tool: TOOL.to_owned(),
            model: model.fingerprint()?,
            files: model.file_identities()?,
            contents: model.content_hashes()?,
            ..self
        })
    }

    /// With a resolved recipe and the stages that it is carried out with.
    #[must_use]
    pub fn with_recipe(mut self, recipe: &Value, pipeline: &Pipeline) -> Self {
        self.recipe = recipe.clone();
        self.stages = pipeline.identities();
        self
    }

    /// With the calibration text and what is drawn from it.
    #[must_use]
    pub fn with_calibration(mut self, calibration: &Calibration) -> Self {
        let Calibration { blocks, tag, .. } = calibration;
        let mut hash = Sha256::new();
        blocks.blocks().iter().flatten().for_each(|id| hash.update(id.to_le_bytes()));
        self.tokens = Some(format!("{:x}", hash.finalize()));
        self.calibration = Some(tag.clone());
        self
    }

    /// With the part of the work that is done.
    #[must_use]
    pub fn with_part(mut self, part: PartOf) -> Self {
        self.part = Some(part.to_string());
        self
    }

    /// With the number of parts that the work is cut into, all of which are done.
    #[must_use]
    pub fn with_number_of_parts(mut self, parts: usize) -> Self {
        self.part = Some(format!("all of {parts}"));
        self
    }

    /// With what a repair is fitted to and measured on.
    #[must_use]
    pub fn with_repair(mut self, calibration: &RepairCalibration) -> Self {
        self.repair_texts = calibration.summary();
        self
    }

    /// With the plan that is applied.
    ///
    /// # Errors
    /// If a number in it is not finite.
    pub fn with_plan(mut self, plan: &Plan) -> Result<Self, Error> {
        let text = serde_json::to_vec(plan)
            .map_err(|e| Error::Plan(format!("cannot be written as JSON: {e}")))?;
        self.plan = Some(format!("{:x}", Sha256::digest(text)));
        Ok(self)
    }

    /// With the stored observation that is used.
    #[must_use]
    pub fn with_observation(mut self, observation: &Observation) -> Self {
        self.observation = Some(moeprune_capture::observation_sha256(observation));
        self
    }

    /// With where it runs and in which type.
    #[must_use]
    pub fn with_execution(mut self, execution: &Execution) -> Self {
        self.device = execution.identity();
        self
    }

    /// What all parts have in common.
    #[must_use]
    pub(crate) fn without_part(self) -> Self {
        Self { part: None, ..self }
    }

    fn content_of(&self, name: &str) -> Option<&ContentHash> {
        self.contents.iter().find(|content| content.name == name)
    }

    /// What is different in `other`, as text; empty if a run may be continued with it.
    pub(crate) fn changes(&self, other: &Self) -> Vec<String> {
        type Field = fn(&CorpusTag) -> String;
        let mut changes = Vec::new();
        let mut changed = |what: &str, was: &str, is: &str| {
            if was != is {
                changes.push(format!("{what} was {}, and is {} now", short(was), short(is)));
            }
        };
        changed("the command", &self.command, &other.command);
        changed("the program", &self.tool, &other.tool);
        changed("the model's fingerprint", &self.model, &other.model);
        changed("the device", &self.device, &other.device);
        let none = || "none".to_owned();
        let text = |hash: &Option<String>| hash.clone().unwrap_or_else(none);
        let said = "what config.json and the family descriptor say (SHA-256)";
        changed(said, &text(&self.spec), &text(&other.spec));
        changed("the part", &text(&self.part), &text(&other.part));
        changed("the plan", &text(&self.plan), &text(&other.plan));
        changed("the observation", &text(&self.observation), &text(&other.observation));
        let (was, is) = (&self.calibration, &other.calibration);
        let of = |tag: &Option<CorpusTag>, value: Field| tag.as_ref().map_or_else(none, value);
        let fields: [(&str, Field); 5] = [
            ("the calibration file's SHA-256", |tag| tag.sha256.clone()),
            ("how conversations are made text", rendering),
            ("the number of calibration blocks", |tag| tag.samples.to_string()),
            ("the length of a calibration block", |tag| tag.sequence_len.to_string()),
            ("the calibration seed", |tag| tag.seed.to_string()),
        ];
        for (what, value) in fields {
            changed(what, &of(was, value), &of(is, value));
        }
        if let (true, Some(before), Some(now)) = (was == is, &self.tokens, &other.tokens) {
            changed("what the tokenizer makes of the calibration text (SHA-256)", before, now);
        }
        let (mut was, mut is) = (BTreeMap::new(), BTreeMap::new());
        leaves("", &self.recipe, &mut was);
        leaves("", &other.recipe, &mut is);
        let other_repair =
            REPAIRS.map(|key| by_name_if_other(key, &mut was, &mut is)).contains(&true);
        let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for key in keys {
            let value = |of: &BTreeMap<String, String>| {
                of.get(key).cloned().unwrap_or_else(|| "absent".to_owned())
            };
            changed(&format!("the recipe's {key}"), &value(&was), &value(&is));
        }
        if self.repair_texts != other.repair_texts && !other_repair {
            changes.push("the texts of the repair, or what is drawn from them, are others".into());
        }
        if self.recipe == other.recipe {
            changes.extend(changed_stages(&self.stages, &other.stages));
        }
        changes.extend(changed_files((self, other)));
        changes
    }
}

/// A value for a message: of each SHA-256 in it, the first digits.
fn short(value: &str) -> String {
    const DIGITS: usize = 12;
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while !rest.is_empty() {
        let run = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        text += if run == 64 { &rest[..DIGITS] } else { &rest[..run] };
        let next = rest[run..].chars().next();
        text.extend(next);
        rest = &rest[run + next.map_or(0, char::len_utf8)..];
    }
    text
}

/// How the conversations of a text are made text, in words.
fn rendering(tag: &CorpusTag) -> String {
    let rendering = tag.read.as_ref().and_then(|read| read.rendering.as_ref());
    let Some(Rendering { template, system, tools }) = rendering else { return "none".to_owned() };
    let mut words = match template {
        Some(hash) => format!("by a chat template (SHA-256 of its files {hash})"),
        None => "plainly".to_owned(),
    };
    for (what, given) in [("the system message", system), ("the tools", tools)] {
        if let Some(given) = given {
            words += &format!(" with {what} {given:?}");
        }
    }
    words
}

fn changed_stages(
    was: &BTreeMap<String, Option<Value>>,
    is: &BTreeMap<String, Option<Value>>,
) -> Vec<String> {
    let places: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let mut changes = Vec::new();
    for place in places {
        let absent = || "absent".to_owned();
        match (was.get(place), is.get(place)) {
            (Some(None), _) | (_, Some(None)) => changes.push(format!(
                "the {place} has no identity, so nothing says that it is still the same: register \
                 it, or make it with `Stage::identified`"
            )),
            (Some(Some(was)), Some(Some(is))) if was == is => {}
            (was, is) => {
                let text = |stage: Option<&Option<Value>>| {
                    stage.and_then(Option::as_ref).map_or_else(absent, Value::to_string)
                };
                changes.push(format!("the {place} was {}, and is {} now", text(was), text(is)));
            }
        }
    }
    changes
}

fn changed_files((was, is): (&RunIdentity, &RunIdentity)) -> Vec<String> {
    let mut changes = Vec::new();
    for file in &was.files {
        let name = &file.name;
        match is.files.iter().find(|other| other.name == *name) {
            None => changes.push(format!("the model's {name} is gone")),
            Some(other) if other.bytes != file.bytes => changes.push(format!(
                "the model's {name} had {} bytes, and has {} now",
                file.bytes, other.bytes
            )),
            Some(other) => changes.extend(changed_content(
                (was.content_of(name), is.content_of(name)),
                name,
                other == file,
            )),
        }
    }
    let new = is.files.iter().filter(|file| !was.files.iter().any(|other| other.name == file.name));
    changes.extend(new.map(|file| format!("the model's {} is new", file.name)));
    changes
}

/// How a file of the same name and length differs, by its hashes; without them, by its time.
fn changed_content(
    hashes: (Option<&ContentHash>, Option<&ContentHash>),
    name: &str,
    same_time: bool,
) -> Option<String> {
    let (Some(was), Some(is)) = hashes else {
        return (!same_time).then(|| format!("the model's {name} was written to since"));
    };
    let other = || Some(format!("the model's {name} has other bytes now"));
    match (&was.whole, &is.whole) {
        _ if was.sampled != is.sampled => other(),
        (Some(was), Some(is)) if was != is => other(),
        (None, Some(_)) => Some(format!(
            "the run was begun without --rehash, so nothing says what all bytes of the model's {name} were; \
             without it, headers and sampled blocks are compared"
        )),
        _ => None,
    }
}

/// Where a recipe names repairs, none of which has the parameters of another.
const REPAIRS: [&str; 2] = ["repair", "weights.refit"];

/// Has the stage at `key` be told by its name alone if the two have other names, so that its parameters are no
/// changes of their own. Whether they have.
fn by_name_if_other(
    key: &str,
    was: &mut BTreeMap<String, String>,
    is: &mut BTreeMap<String, String>,
) -> bool {
    let of_name = format!("{key}.name");
    let name = |of: &BTreeMap<String, String>| of.get(key).or_else(|| of.get(&of_name)).cloned();
    let (before, after) = (name(was), name(is));
    if before == after {
        return false;
    }
    let of_key = format!("{key}.");
    for (of, name) in [(was, before), (is, after)] {
        of.retain(|path, _| path != key && !path.starts_with(&of_key));
        of.extend(name.map(|name| (key.to_owned(), name)));
    }
    true
}

/// The values of a JSON tree under their dotted paths.
fn leaves(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(&format!("{path}{dot}{key}"), value, found);
            }
        }
        other => {
            found.insert(path.to_owned(), other.to_string());
        }
    }
}

#[cfg(test)]
mod tests;
