//! The edges between crates are those of docs/architecture.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    process::Command,
};

use serde_json::Value;

use crate::sources::{crates, root};

/// What each crate depends on, of ours, without tests.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let printed = Command::new(cargo)
        .args(["metadata", "--no-deps", "--locked", "--offline", "--format-version=1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let metadata: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<String> = crates().into_iter().map(|package| package.name).collect();
    packages
        .iter()
        .map(|package| (package["name"].as_str().unwrap().to_owned(), package))
        .filter(|(name, _)| ours.contains(name))
        .map(|(name, package)| {
            let needed = package["dependencies"].as_array().unwrap().iter();
            let needed = needed
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
                .filter(|dependency| ours.contains(dependency));
            (name, needed.collect())
        })
        .collect()
}

/// The table "Dependencies" of docs/architecture.md: a crate and what it needs in each row.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let (_, section) = text.split_once("\n## Dependencies\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, needed, ..] = cells[..] else { return None };
        let name = name.strip_prefix("`moeprune")?.strip_suffix('`')?;
        let needed =
            needed.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "-");
        let full = |name: &str| match name.trim_matches('`') {
            "moeprune" | "" => "moeprune".to_owned(),
            short => format!("moeprune-{}", short.trim_start_matches("moeprune-")),
        };
        Some((full(name.trim_start_matches('-')), needed.map(full).collect()))
    };
    section.lines().filter_map(row).collect()
}

#[test]
fn crates_depend_on_what_the_documentation_says() {
    let (found, documented) = (edges(), documented());
    for (name, needed) in &found {
        let listed = documented.get(name);
        assert_eq!(
            listed,
            Some(needed),
            "docs/architecture.md, \"Dependencies\", says otherwise of {name}"
        );
    }
    assert_eq!(found.len(), documented.len(), "a crate is documented that there is not");
}

/// The stages, which know the core and not each other.
const STAGES: [&str; 7] = [
    "moeprune-cluster",
    "moeprune-repair",
    "moeprune-saliency",
    "moeprune-score",
    "moeprune-select",
    "moeprune-similarity",
    "moeprune-page",
];

#[test]
fn stages_do_not_depend_on_each_other() {
    let edges = edges();
    for stage in STAGES {
        let needed: Vec<&str> = edges[stage].iter().map(String::as_str).collect();
        assert!(
            needed.iter().all(|name| ["moeprune-core", "moeprune-linalg"].contains(name)),
            "{stage}: {needed:?}"
        );
    }
}

#[test]
fn the_library_brings_no_command_line() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let printed = Command::new(cargo)
        .args(["tree", "--package", "moeprune", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed = String::from_utf8(printed.stdout).unwrap();
    let names: BTreeSet<&str> =
        printed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 50, "{names:?}");
    for name in ["clap", "indicatif", "maud", "plotters"] {
        assert!(!names.contains(name), "{name}");
    }
}
