//! The commands that prune a model in the same way.
//!
//! They are made of what was done, not of what was typed: a run that was resumed, one on another number of threads and
//! parts that were joined make the same bytes, cards included.

use moeprune_core::CorpusTag;

use crate::{Recipe, Report, recipe::CalibrationRecipe};

/// The file that the recipe of a card stands for.
pub(super) const RECIPE_FILE: &str = "recipe.toml";

/// What the commands call an observation.
const OBSERVATION: &str = "observation.safetensors";

/// What the commands call several files of text.
const TEXTS: &str = "TEXTS";

/// Commands, and what is to be known of the files in them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reproduction {
    /// Lines for a shell.
    pub(super) commands: Vec<String>,
    /// Sentences.
    pub(super) remarks: Vec<String>,
}

/// The recipe by which the commands work. One that was followed with an observation does not say which part of the text
/// that was made of.
pub(super) fn recipe(report: &Report) -> Recipe {
    let mut recipe = report.recipe.clone();
    if let [CorpusTag { samples, sequence_len, seed, read: Some(_), .. }] = report.corpora[..] {
        let (samples, sequence_len) = (samples as usize, sequence_len as usize);
        recipe.calibration = CalibrationRecipe { samples, sequence_len, seed };
    }
    recipe
}

impl Reproduction {
    /// Of a model of this name.
    pub(super) fn of(report: &Report, model: &str) -> Self {
        let model = quoted(model);
        let mut found = Self::default();
        let listed = found.listed(report);
        match &report.corpora[..] {
            [text] if text.read.is_some() => {
                let text = found.text(report, text);
                let command =
                    format!("moeprune prune {model} OUT --recipe {RECIPE_FILE}{listed}{text}");
                found.commands.push(command);
            }
            [] if listed.is_empty() && report.observation_sha256.is_none() => {
                found
                    .commands
                    .push(format!("moeprune plan {model} --recipe {RECIPE_FILE} -o plan.json"));
                found.commands.push(format!("moeprune apply {model} OUT --plan plan.json"));
            }
            texts => {
                let mut given = listed;
                if !texts.is_empty() || report.observation_sha256.is_some() {
                    given += &format!(" --observation {OBSERVATION}");
                    found
                        .remarks
                        .push(format!("{OBSERVATION} is what was observed of the unpruned model."));
                }
                found
                    .commands
                    .push(format!("moeprune prune {model} OUT --recipe {RECIPE_FILE}{given}"));
            }
        }
        found
    }

    /// Options that name the experts that stay, where a list did.
    fn listed(&mut self, report: &Report) -> String {
        if !report.recipe.keeps_listed() {
            return String::new();
        }
        self.remarks.push(
            "keep.json is the list of the experts that stay; moeprune-report.json has them as `kept` of each layer."
                .to_owned(),
        );
        match report.recipe.prunes_weights() {
            true => format!(" --keep keep.json --sparsity {}", report.recipe.sparsity.value()),
            false => " --keep keep.json".to_owned(),
        }
    }

    /// Options that name the texts.
    fn text(&mut self, report: &Report, text: &CorpusTag) -> String {
        let read = text.read.iter();
        let mut options = match read.clone().any(|read| read.files > 1) {
            false => format!(" --calibration {}", quoted(&text.name)),
            true => {
                self.remarks
                    .push(format!("{TEXTS} is a folder with the files of the calibration text."));
                format!(" --calibration {TEXTS}")
            }
        };
        if let Some(rendering) = read.filter_map(|read| read.rendering.as_ref()).next() {
            let system =
                rendering.system.iter().map(|system| format!(" --system {}", quoted(system)));
            let tools = rendering.tools.iter().map(|sha256| {
                self.remarks.push(format!("tools.json has the SHA-256 `{sha256}`."));
                " --tools tools.json".to_owned()
            });
            options.extend(system.chain(tools));
        }
        let repaired = report.repair.iter().chain(&report.refit).take(1);
        let others = repaired.flat_map(|repair| repair.texts.iter().skip(1)).map(|other| {
            let share = other.fitted as f64 / (text.samples as f64).max(1.0);
            format!(" --repair-text {}", quoted(&format!("{}={share}", other.corpus.name)))
        });
        options.extend(others);
        options
    }
}

/// A word of a shell's command.
fn quoted(text: &str) -> String {
    let text = moeprune_engine::printable(text);
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    match text.starts_with('-') || text.is_empty() || !text.chars().all(is_plain) {
        true => format!("'{}'", text.replace('\'', r"'\''")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_of_a_shell() {
        let check = |text: &str, expected: &str| assert_eq!(quoted(text), expected);
        check("c4.json.gz", "c4.json.gz");
        check("my text.jsonl", "'my text.jsonl'");
        check("it's", r"'it'\''s'");
        check("$(rm)", "'$(rm)'");
        check("a\nb", r"'a\nb'");
        check("", "''");
    }
}
