//! The text of a card.

use std::fmt::{self, Write as _};

use moeprune_checkpoint::BASE_CARD_FILE;
use moeprune_core::{REPORT_FILE, REPORT_TEXT_FILE, plural};
use moeprune_engine::printable;

use super::{
    base::Base,
    front_matter::{FrontMatter, FrontValue, entry},
    reproduction::{RECIPE_FILE, Reproduction, recipe},
};
use crate::{
    Report,
    report::{percent, write_savings, write_shares},
};

/// What a card is made of.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) report: &'a Report,
    pub(super) base: &'a Base,
    /// What is kept of the base's.
    pub(super) front: &'a FrontMatter,
    /// Whether the base has a card.
    pub(super) has_base_card: bool,
    /// Whether transformers loads such a folder.
    pub(super) is_transformers: bool,
}

impl Facts<'_> {
    /// The card.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        self.write_front(text)?;
        self.write_beginning(text)?;
        writeln!(text, "## What was removed\n")?;
        write_shares(self.report, text)?;
        writeln!(text, "## What it saves\n")?;
        write_savings(self.report, text)?;
        self.write_calibration(text)?;
        self.write_reproduction(text)?;
        self.write_limits(text)?;
        self.write_licence(text)
    }

    /// Experts before, and those that are left.
    fn experts(&self) -> (usize, usize) {
        let layers = &self.report.layers;
        let before = layers.iter().map(|layer| layer.experts_before).sum();
        (before, layers.iter().map(|layer| layer.kept.len()).sum())
    }

    /// Names of what chose experts and weights, as far as it chose any.
    fn methods(&self) -> Vec<&str> {
        let (recipe, (before, kept)) = (&self.report.recipe, self.experts());
        let mut methods = Vec::new();
        if kept < before {
            methods.push(recipe.experts.criterion.name.as_str());
        }
        if recipe.prunes_weights() {
            methods.extend(
                [&recipe.weights.scorer, &recipe.weights.allocation]
                    .map(|choice| choice.name.as_str()),
            );
        }
        methods
    }

    fn write_front(&self, text: &mut String) -> fmt::Result {
        text.push_str("---\n");
        if let Some(id) = &self.base.id {
            text.push_str(&entry("base_model", &FrontValue::One(id.clone())));
        }
        for (key, value) in &self.front.kept {
            text.push_str(&entry(key, value));
        }
        let format = if self.is_transformers { None } else { Some("gguf") };
        if self.is_transformers {
            text.push_str("library_name: transformers\n");
        }
        let tags = ["moe", "pruned", "moeprune"].into_iter().chain(format).chain(self.methods());
        let tags = tags.map(str::to_owned).collect();
        text.push_str(&entry("tags", &FrontValue::Many(tags)));
        text.push_str("---\n\n");
        Ok(())
    }

    fn write_beginning(&self, text: &mut String) -> fmt::Result {
        let Self { report, base, .. } = self;
        let (before, kept) = self.experts();
        let zeroed = report.recipe.prunes_weights();
        let total = percent(report.sparsity.achieved.linears);
        let experts = format!("{} of {before} experts", before - kept);
        let what = match (kept < before, zeroed) {
            (true, false) => format!("{experts} removed"),
            (true, true) => format!("{experts} removed, weights zeroed to {total}"),
            (false, true) => format!("weights zeroed to {total}"),
            (false, false) => "nothing removed".to_owned(),
        };
        writeln!(text, "# {}, {what}\n", plain(&base.name))?;
        let of = match (&base.id, &base.commit) {
            (Some(id), Some(commit)) => {
                format!("[{id}](https://huggingface.co/{id}) (commit `{commit}`)")
            }
            (Some(id), None) => format!("[{id}](https://huggingface.co/{id})"),
            (None, _) if base.name.ends_with(".gguf") => format!("the model {}", code(&base.name)),
            (None, _) => format!("the model in the folder {}", code(&base.name)),
        };
        let gone = match (kept < before, zeroed) {
            (true, false) => format!("without {experts}"),
            (true, true) => {
                format!("without {experts}, and with part of the other weights set to zero")
            }
            (false, true) => "with part of its weights set to zero".to_owned(),
            (false, false) => "without a change".to_owned(),
        };
        writeln!(
            text,
            "This is {of} {gone}: {total} of the weights in the matrices of its decoder layers are removed or zero. {}{}\
             It was made by [{}]({}).\n",
            self.changed(),
            if base.id.is_none() {
                "Which model that is on the Hugging Face Hub is not known here, so `base_model` is left out. "
            } else {
                ""
            },
            report.tool,
            env!("CARGO_PKG_REPOSITORY"),
        )
    }

    /// What was done to weights that stay.
    fn changed(&self) -> String {
        let report = self.report;
        let changes = [
            (
                report.layers.iter().any(|layer| !layer.merged.is_empty()),
                "some experts are averages of several",
            ),
            (
                report.repair.is_some(),
                "down projections of experts that stay were refitted to make up for those that went",
            ),
            (report.refit.is_some(), "down projections were refitted after weights were zeroed"),
            (
                report.weights_changed,
                "weights that stay were changed to make up for those that were zeroed",
            ),
        ];
        let changes: Vec<&str> =
            changes.iter().filter(|(is, _)| *is).map(|(_, what)| *what).collect();
        match changes[..] {
            [] => "All other weights are as they were. ".to_owned(),
            _ => format!("Of those that are left, {}. ", changes.join("; ")),
        }
    }

    fn write_calibration(&self, text: &mut String) -> fmt::Result {
        let Report { corpora, text_warnings, .. } = self.report;
        writeln!(text, "## Calibration\n")?;
        if corpora.is_empty() {
            writeln!(text, "No text was run through the model for this.\n")?;
        }
        for corpus in corpora {
            let format = corpus.read.as_ref().map(|read| format!(", {}", plain(&read.format)));
            let often = if corpus.repeated > 1 {
                format!(", counted {} times", corpus.repeated)
            } else {
                String::new()
            };
            writeln!(
                text,
                "- {}{}: {} × {}, seed {}{often}; SHA-256 `{}`",
                code(&corpus.name),
                format.unwrap_or_default(),
                plural(corpus.samples, "sample"),
                plural(corpus.sequence_len, "token"),
                corpus.seed,
                corpus.sha256,
            )?;
        }
        for warning in text_warnings {
            writeln!(text, "- {}", plain(warning))?;
        }
        if !corpora.is_empty() {
            writeln!(text)?;
        }
        Ok(())
    }

    fn write_reproduction(&self, text: &mut String) -> fmt::Result {
        let Report { tool, device, model, .. } = self.report;
        let Reproduction { commands, remarks } = Reproduction::of(self.report, &self.base.name);
        writeln!(
            text,
            "## How it was made\n\nMethod: {}. The command is, with {tool}:\n",
            self.methods().join(", ")
        )?;
        commands.iter().try_for_each(|command| writeln!(text, "    {command}"))?;
        writeln!(text, "\n{RECIPE_FILE} has all choices that were made:\n")?;
        // A recipe is a table of texts and numbers.
        let recipe = toml::to_string(&recipe(self.report)).unwrap_or_default();
        recipe
            .lines()
            .try_for_each(|line| writeln!(text, "{}", format!("    {line}").trim_end()))?;
        writeln!(text)?;
        remarks.iter().try_for_each(|remark| writeln!(text, "{remark}\n"))?;
        let computed = if device.is_empty() {
            String::new()
        } else {
            format!(" It was computed on {}.", code(device))
        };
        writeln!(
            text,
            "The base's fingerprint is {}.{computed} [{REPORT_TEXT_FILE}]({REPORT_TEXT_FILE}) tells of each layer, \
             [{REPORT_FILE}]({REPORT_FILE}) has the same for programs.\n",
            code(&model.fingerprint)
        )
    }

    fn write_limits(&self, text: &mut String) -> fmt::Result {
        let Report { corpora, idle_experts, .. } = self.report;
        writeln!(text, "## Known limits\n")?;
        let of = if self.has_base_card {
            format!(" Scores in [{BASE_CARD_FILE}]({BASE_CARD_FILE}) are")
        } else {
            " Scores of the base are".into()
        };
        writeln!(
            text,
            "- This model was not evaluated when it was made.{of} not those of this model. Evaluate it on what it is to \
             be used for."
        )?;
        match corpora.is_empty() {
            true => writeln!(
                text,
                "- What was removed was chosen without text, so nothing says which abilities it was needed for."
            )?,
            false => writeln!(
                text,
                "- What was removed was chosen by the calibration text. What that has little of (other languages, code, \
                 conversations, long contexts) may have suffered more."
            )?,
        }
        if !idle_experts.is_empty() {
            writeln!(
                text,
                "- {} got no token of that text.",
                plural(idle_experts.len(), "expert")
            )?;
        }
        writeln!(text, "- What the base was trained to refuse or to avoid was not tested again.\n")
    }

    fn write_licence(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "## Licence\n")?;
        let named = ["license_name", "license"].into_iter().find_map(|key| self.front.get(key));
        let named = named.map(|value| match value {
            FrontValue::One(text) => code(text),
            FrontValue::Many(texts) => {
                texts.iter().map(|text| code(text)).collect::<Vec<_>>().join(", ")
            }
        });
        let named = named.map_or_else(
            || " (none is named in a card of it)".to_owned(),
            |named| format!(" ({named})"),
        );
        writeln!(text, "The licence of the base{named} holds for this model as well.")?;
        if self.has_base_card {
            writeln!(text, "\nThe base's card is [{BASE_CARD_FILE}]({BASE_CARD_FILE}).")?;
        }
        Ok(())
    }
}

/// A text in which nothing is Markdown or HTML.
fn plain(text: &str) -> String {
    let mut escaped = String::new();
    for c in printable(text).chars() {
        if "\\`*_[]<>#|~!&$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A text as code within a line.
fn code(text: &str) -> String {
    format!("`{}`", printable(text).replace('`', "'"))
}

#[cfg(test)]
mod tests;
