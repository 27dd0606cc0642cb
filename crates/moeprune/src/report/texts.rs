//! The calibration texts in a report.

use std::fmt::{self, Write as _};

use moeprune_core::{CorpusTag, ModelSpec};
use moeprune_engine::{read_in_words, warnings_of_text};

use super::Report;

/// What is to be known of some texts, each sentence once.
pub(super) fn warnings(corpora: &[CorpusTag], spec: &ModelSpec) -> Vec<String> {
    let mut warnings: Vec<String> = Vec::new();
    for warning in corpora.iter().flat_map(|corpus| warnings_of_text(corpus, spec)) {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}

/// What was read of each text and drawn from it.
pub(super) fn write(report: &Report, text: &mut String) -> fmt::Result {
    let mut words: Vec<String> = report.corpora.iter().filter_map(read_in_words).collect();
    words.dedup();
    if words.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n## Calibration text\n")?;
    for line in words.iter().chain(&report.text_warnings) {
        writeln!(text, "- {line}")?;
    }
    Ok(())
}
