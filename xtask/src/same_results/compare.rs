//! A record held to another, file by file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{difference::Difference, json, record, tensors};

/// Which files of a record are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// Those that are made from observations and plans, which may be another record's.
    MadeFromFiles,
}

impl Scope {
    /// `file` is relative to the record: model, recipe, file.
    fn has(self, file: &Path) -> bool {
        let parts: Vec<_> = file.iter().filter_map(|part| part.to_str()).collect();
        match (self, parts.as_slice()) {
            (Self::All, _) => true,
            (Self::MadeFromFiles, [_, name]) => *name == record::BLENDED,
            (Self::MadeFromFiles, [_, _, name, ..]) => {
                [record::PLAN, record::APPLIED, record::APPLIED_VERIFIED].contains(name)
            }
            _ => false,
        }
    }
}

/// How a file is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Bytes,
    /// Byte for byte, with a tensor named if one differs.
    Weights,
    /// Value for value.
    Json,
    /// Tensor for tensor.
    Observation,
    /// For people; the JSON beside it has what it says.
    Ignored,
}

impl Rule {
    fn of(name: &str) -> Self {
        match name {
            record::PLAN | record::APPLIED_VERIFIED | record::PRUNED_VERIFIED => Self::Json,
            "moeprune-report.json" => Self::Json,
            "moeprune-report.md" => Self::Ignored,
            record::OBSERVATION | record::OTHER | record::BLENDED => Self::Observation,
            _ if name.ends_with(".safetensors") => Self::Weights,
            _ => Self::Bytes,
        }
    }
}

/// What was found in one case.
#[derive(Debug)]
pub(super) struct CaseResult {
    /// Model and recipe, or only the model for what its recipes share.
    pub(super) case: String,
    /// Files compared.
    pub(super) files: usize,
    /// What is not as expected.
    pub(super) differences: Vec<Difference>,
}

/// Holds the record `b` to the record `a`. A file that only one of them has is a difference.
pub(super) fn records(a: &Path, b: &Path, scope: Scope) -> Result<Vec<CaseResult>> {
    let mut files = BTreeSet::new();
    for record in [a, b] {
        ensure!(record.is_dir(), "no record at {}", record.display());
        collect(record, Path::new(""), &mut files)?;
    }
    let mut cases: BTreeMap<String, CaseResult> = BTreeMap::new();
    for file in files.iter().filter(|file| scope.has(file)) {
        let rule = Rule::of(&file.file_name().unwrap_or_default().to_string_lossy());
        if rule == Rule::Ignored {
            continue;
        }
        let parents: Vec<_> = file.parent().into_iter().flatten().take(2).collect();
        let case = parents.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>().join("/");
        let result = cases.entry(case.clone()).or_insert_with(|| CaseResult {
            case,
            files: 0,
            differences: Vec::new(),
        });
        result.files += 1;
        let found = file_differences(rule, &a.join(file), &b.join(file))
            .with_context(|| format!("cannot compare {}", file.display()))?;
        result.differences.extend(found.into_iter().map(|difference| difference.in_file(file)));
    }
    ensure!(!cases.is_empty(), "nothing to compare in {}", a.display());
    Ok(cases.into_values().collect())
}

/// All files of a folder below a record, relative to the record.
fn collect(record: &Path, folder: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    let path = record.join(folder);
    for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
        let entry = entry?;
        let below = folder.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => collect(record, &below, files)?,
            false => _ = files.insert(below),
        }
    }
    Ok(())
}

fn file_differences(rule: Rule, a: &Path, b: &Path) -> Result<Vec<Difference>> {
    let (expected, got) = match (a.exists(), b.exists()) {
        (true, true) => (fs::read(a)?, fs::read(b)?),
        (true, false) => return Ok(vec![Difference::new("", "a file", "none")]),
        (false, _) => return Ok(vec![Difference::new("", "no file", "one")]),
    };
    if expected == got {
        return Ok(Vec::new());
    }
    let name = b.file_name().unwrap_or_default().to_string_lossy();
    let first_byte = || tensors::byte_difference(&expected, &got).into_iter().collect();
    Ok(match rule {
        Rule::Ignored => Vec::new(),
        Rule::Bytes => first_byte(),
        Rule::Observation => tensors::differences(&name, &expected, &got)?,
        Rule::Json => {
            let expected = serde_json::from_slice(&expected).context("expected")?;
            json::differences(&name, &expected, &serde_json::from_slice(&got).context("got")?)
        }
        // Bytes may differ where no tensor does, and in a file that is no longer readable.
        Rule::Weights => match tensors::differences(&name, &expected, &got) {
            Ok(found) if !found.is_empty() => found,
            _ => first_byte(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Differences as text between records of these files.
    fn compare(scope: Scope, a: &[(&str, &str)], b: &[(&str, &str)]) -> Vec<String> {
        let write = |files: &[(&str, &str)]| {
            let record = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = record.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            record
        };
        let (a, b) = (write(a), write(b));
        let results = records(a.path(), b.path(), scope).unwrap();
        results.into_iter().flat_map(|r| r.differences).map(|d| d.to_string()).collect()
    }

    const OLD: &[(&str, &str)] = &[
        ("m/calibration.jsonl", "text"),
        ("m/r/plan.json", r#"{"tool":"1","ratio":0.5}"#),
        ("m/r/pruned/config.json", r#"{"experts":3}"#),
        ("m/r/pruned/moeprune-report.md", "for people"),
        ("m/r/pruned/model.safetensors", "damaged"),
    ];

    fn with<'a>(name: &str, text: &'a str) -> Vec<(&'a str, &'a str)> {
        let changed =
            |&(n, t): &(&'static str, &'static str)| (n, if n == name { text } else { t });
        OLD.iter().map(changed).collect()
    }

    #[test]
    fn each_file_is_compared_by_its_rule() {
        let check = |name: &str, text: &str, expected: &[&str]| {
            assert_eq!(compare(Scope::All, OLD, &with(name, text)), expected, "{name}: {text}");
        };
        check("", "", &[]);
        check("m/r/plan.json", r#"{"tool":"2","ratio":0.5,"new":1}"#, &[]);
        check(
            "m/r/plan.json",
            r#"{"tool":"2","ratio":0.6}"#,
            &["m/r/plan.json: ratio: expected 0.5, got 0.6"],
        );
        // The same value in other bytes.
        check(
            "m/r/pruned/config.json",
            r#"{"experts": 3}"#,
            &["m/r/pruned/config.json: length: expected 13 bytes, got 14 bytes"],
        );
        check("m/r/pruned/moeprune-report.md", "other words", &[]);
        check(
            "m/r/pruned/model.safetensors",
            "damagod",
            &["m/r/pruned/model.safetensors: byte 5: expected 101, got 111"],
        );
    }

    #[test]
    fn a_file_that_one_record_lacks_is_a_difference() {
        assert_eq!(
            compare(Scope::All, OLD, &OLD[1..]),
            ["m/calibration.jsonl: expected a file, got none"]
        );
        assert_eq!(
            compare(Scope::All, &OLD[1..], OLD),
            ["m/calibration.jsonl: expected no file, got one"]
        );
    }

    #[test]
    fn what_is_made_from_files_leaves_out_pruned() {
        let new = [("m/r/plan.json", r#"{"tool":"1","ratio":1.0}"#)];
        assert_eq!(
            compare(Scope::MadeFromFiles, OLD, &new),
            ["m/r/plan.json: ratio: expected 0.5, got 1.0"]
        );
    }
}
