//! The edges between crates are the design: stages depend on the core, not on each other.

use std::{collections::BTreeMap, fs, path::Path};

/// What each crate may depend on, of ours.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    let core: &[&str] = &["moeprune-core"];
    BTreeMap::from([
        ("moeprune-core", &[] as &[&str]),
        ("moeprune-checkpoint", &["moeprune-core", "moeprune-files"]),
        ("moeprune-cluster", core),
        (
            "moeprune-engine",
            &[
                "moeprune-capture",
                "moeprune-checkpoint",
                "moeprune-core",
                "moeprune-model",
                "moeprune-saliency",
                "moeprune-score",
                "moeprune-select",
            ],
        ),
        ("moeprune-eval", &[]),
        ("moeprune-files", &[]),
        ("moeprune-page", core),
        // The engine under capture, not a stage: its sink trait carries tensors.
        ("moeprune-capture", &["moeprune-core", "moeprune-files", "moeprune-model"]),
        ("moeprune-model", core),
        ("moeprune-score", core),
        ("moeprune-select", core),
        ("moeprune-similarity", core),
        // Names of tensors come from the families' descriptors.
        ("moeprune-synthetic", &["moeprune-core", "moeprune-checkpoint"]),
    ])
}

#[test]
fn stages_do_not_depend_on_each_other() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    for (name, allowed) in allowed() {
        let manifest = fs::read_to_string(crates.join(name).join("Cargo.toml")).unwrap();
        let (_, dependencies) = manifest.split_once("\n[dependencies]\n").unwrap();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for line in dependencies.lines().filter(|line| line.starts_with("moeprune")) {
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(allowed.contains(&dependency), "{name} must not depend on {dependency}");
        }
    }
}
