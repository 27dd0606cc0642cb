//! What `cargo xtask` compiles serves `cargo test`: the same packages with the same features, in one profile.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::Path,
    process::Command,
};

/// Features of each package (name and version) that a selection of the workspace builds; several sets where it is also
/// built for build scripts and macros.
fn features(selection: &[&str], edges: &str) -> BTreeMap<String, BTreeSet<String>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let printed = Command::new(cargo)
        .args(["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p}\t{f}"])
        .args(["--edges", edges])
        .args(selection)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed = String::from_utf8(printed.stdout).unwrap();
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    for line in printed.lines() {
        let Some((package, features)) = line.trim_end_matches(" (*)").split_once('\t') else {
            continue;
        };
        if !OURS_THAT_DIFFER.iter().any(|ours| package.starts_with(ours)) {
            found.entry(package.to_owned()).or_default().insert(features.trim().to_owned());
        }
    }
    found
}

/// Compiled for each command, so small: what only the installed binary needs is a feature.
const OURS_THAT_DIFFER: [&str; 1] = ["moeprune-cli "];

/// Costly, and of use to a single chore, to tests or to benchmarks.
const NOT_IN_THE_WAY: [&str; 7] = [
    "criterion",
    "cudarc",
    "moeprune-bench",
    "moeprune-cuda-on-cpu",
    "nano",
    "plotters",
    "proptest",
];

#[test]
fn the_first_command_compiles_what_the_second_needs() {
    let first = features(&["--package", "xtask"], "normal,build");
    let second = features(&["--workspace"], "normal,build,dev");
    assert!(first.len() > 100, "{first:?}");
    for (package, features) in &first {
        assert!(
            second.get(package).is_some_and(|others| features.is_subset(others)),
            "`cargo test` compiles {package} again, and what depends on it: name the features in xtask/Cargo.toml"
        );
    }
    for name in NOT_IN_THE_WAY {
        let found = first.keys().find(|package| package.split(' ').next() == Some(name));
        assert_eq!(found, None, "`cargo xtask` compiles it before anything runs");
    }
}
