//! Options about the repair of the experts that stay.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use moeprune::{
    Error, OtherText, Recipe, Registry,
    core::repair::HeldOutError,
    recipe::StageChoice,
    report::{RepairReport, Repairing},
};

use crate::table::{percent, table};

/// The texts of a repair beside the calibration text.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Calibration")]
#[non_exhaustive]
pub struct RepairArgs {
    /// Another text to fit the repair to as well, by so many blocks as a share of --samples (0.125 if it
    /// is left out); with a share of 0 the repair is only measured on it. May be given several times
    #[arg(long = "repair-text", value_name = "FILE[=SHARE]")]
    pub repair_texts: Vec<RepairText>,
}

/// A file, or `FILE=SHARE`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RepairText {
    /// A text, JSON-lines or token file.
    pub path: PathBuf,
    /// Blocks that are fitted, as a share of the calibration's.
    pub share: f64,
}

/// Enough of another text for a repair that does not harm it.
const SHARE: f64 = 0.125;

impl FromStr for RepairText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A name may have an equals sign in it; what follows a share's is a number.
        let (path, share) = match text.rsplit_once('=') {
            Some((path, share)) if !path.is_empty() && !PathBuf::from(text).exists() => {
                let share = share.parse().ok().filter(|share: &f64| (0.0..=1.0).contains(share));
                let bad = || format!("`{text}` is not FILE=SHARE with a share from 0 to 1");
                (path, share.ok_or_else(bad)?)
            }
            _ => (text, SHARE),
        };
        Ok(Self { path: path.into(), share })
    }
}

impl RepairText {
    /// The blocks that are fitted, of a calibration with so many.
    fn blocks(&self, samples: usize) -> usize {
        if self.share == 0.0 { 0 } else { ((self.share * samples as f64).round() as usize).max(1) }
    }
}

impl RepairArgs {
    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.repair_texts.iter().map(|text| &text.path)
    }

    /// The texts, for a recipe that draws so many calibration blocks.
    #[must_use]
    pub fn others(&self, recipe: &Recipe) -> Vec<OtherText<'_>> {
        let samples = recipe.calibration.samples;
        let texts = self.repair_texts.iter();
        texts.map(|text| OtherText { path: &text.path, fitted: text.blocks(samples) }).collect()
    }
}

/// Prints what a repair did, over all layers.
pub(crate) fn print_repair(report: &RepairReport, of: Repairing) -> Result<(), Error> {
    let RepairReport { summary, texts, .. } = report;
    let (title, before) = match of {
        Repairing::Experts => ("repair of the experts that stay", "before repair"),
        Repairing::Zeros => ("refit after weights were zeroed", "before refit"),
    };
    line!("{title}:")?;
    let row =
        |name: String, HeldOutError { before, after }| vec![name, percent(before), percent(after)];
    let fitted = texts.iter().filter(|text| text.fitted > 0);
    let names: Vec<&str> = fitted.map(|text| text.corpus.name.as_str()).collect();
    let mut rows = vec![row(format!("fitted, {}", names.join(", ")), summary.fitted)];
    let held_out = texts.iter().zip(&summary.held_out);
    rows.extend(held_out.filter_map(|(text, error)| {
        Some(row(format!("held out, {}", text.corpus.name), (*error)?))
    }));
    line!("{}", table(&["missing of what experts wrote", before, "after"], &rows))?;
    line!(
        "{} of {} experts have new weights, fitted to at least {:.1} tokens per column in each expert.",
        summary.changed,
        summary.experts,
        summary.least_tokens_per_column
    )?;
    if let Some(rounding) = summary.rounding_in_words() {
        line!("{rounding}")?;
    }
    for warning in report.warnings() {
        line!("warning: {warning}")?;
    }
    Ok(())
}

/// Refuses an option that is not what a plan says.
///
/// # Errors
/// [`Error::Recipe`] if the name or a parameter is unknown, or they differ.
pub(crate) fn check_as_planned(
    asked: Option<&StageChoice>,
    planned: &Recipe,
    registry: &Registry,
) -> Result<(), Error> {
    let Some(asked) = asked else { return Ok(()) };
    let resolved = |repair: &StageChoice| {
        let mut recipe = Recipe { repair: repair.clone(), ..planned.clone() };
        registry.resolve(&mut recipe).map(|()| recipe.repair)
    };
    let (asked, planned) = (resolved(asked)?, resolved(&planned.repair)?);
    if asked == planned {
        return Ok(());
    }
    Err(Error::Recipe(format!(
        "the plan has repair = `{planned}`, and --repair asks for `{asked}`; make the plan again with \
         --repair {asked}, or leave the option out"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_shares() {
        let check = |text: &str, path: &str, share: f64, blocks: usize| {
            let parsed: RepairText = text.parse().unwrap();
            assert_eq!(parsed, RepairText { path: path.into(), share });
            assert_eq!(parsed.blocks(128), blocks);
        };
        check("code.txt", "code.txt", 0.125, 16);
        check("code.txt=0.25", "code.txt", 0.25, 32);
        check("code.txt=0", "code.txt", 0.0, 0);
        check("code.txt=0.0001", "code.txt", 0.0001, 1);
        check("a=b.txt=1", "a=b.txt", 1.0, 128);
        for text in ["code.txt=much", "code.txt=-1", "code.txt=1.5", "code.txt=NaN"] {
            assert!(text.parse::<RepairText>().is_err(), "{text}");
        }
    }
}
