//! Where the reports of a run lie.

use std::path::{Path, PathBuf};

use moeprune_core::{REPORT_FILE, REPORT_TEXT_FILE};

/// The names of reports in a folder, and the places where those of a single file lie.
pub(crate) fn reports_beside(file: &Path) -> [(&'static str, PathBuf); 2] {
    let beside = |ending: &str| {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        file.with_file_name(name)
    };
    [(REPORT_FILE, beside(".report.json")), (REPORT_TEXT_FILE, beside(".report.md"))]
}
