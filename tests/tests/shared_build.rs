//! What `cargo xtask` compiles serves `cargo test`: the same packages with the same features, in one profile.

use std::{collections::BTreeMap, env, path::Path, process::Command};

/// Features of each package (name and version) that a selection of the workspace builds.
fn features(selection: &[&str], edges: &str) -> BTreeMap<String, String> {
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
    printed
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter_map(|line| line.split_once('\t'))
        .filter(|(package, _)| !OURS_THAT_DIFFER.iter().any(|ours| package.starts_with(ours)))
        .map(|(package, features)| (package.to_owned(), features.trim().to_owned()))
        .collect()
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
        assert_eq!(
            second.get(package),
            Some(features),
            "`cargo test` compiles {package} again, and what depends on it: name the features in xtask/Cargo.toml"
        );
    }
    for name in NOT_IN_THE_WAY {
        let found = first.keys().find(|package| package.split(' ').next() == Some(name));
        assert_eq!(found, None, "`cargo xtask` compiles it before anything runs");
    }
}
