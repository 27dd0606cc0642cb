//! Every "Invariant:" of docs/architecture.md names the test or the lint that holds it.

use std::{collections::BTreeSet, fs};

use crate::{
    sources::{root, rust_files},
    test_items::tests_of,
};

/// What holds an invariant: the paragraph's last parenthesis, "(held by `path` `name`)", where `name` is a test in that file
/// (a function under `#[test]`, a property, or an item with an example); "(held by `path`)", a file of tests; "(held by the lint `name`)", of the workspace's table; or "(held by the
/// types)".
#[derive(Debug, PartialEq)]
enum Holder<'a> {
    Test { path: &'a str, function: Option<&'a str> },
    Lint(&'a str),
    Types,
}

impl<'a> Holder<'a> {
    fn of(paragraph: &'a str) -> Option<Self> {
        let (_, holder) = paragraph.rsplit_once("(held by ")?;
        let holder = holder.split_once(')')?.0.trim();
        let names: Vec<&str> = holder.split('`').skip(1).step_by(2).collect();
        match (holder, &names[..]) {
            ("the types", []) => Some(Self::Types),
            (text, [lint]) if text.starts_with("the lint ") => Some(Self::Lint(lint)),
            (_, [path]) => Some(Self::Test { path, function: None }),
            (_, [path, function]) => Some(Self::Test { path, function: Some(function) }),
            _ => None,
        }
    }

    fn check(&self, lints: &str) -> Result<(), String> {
        match self {
            Self::Types => Ok(()),
            Self::Lint(name) => {
                let key = name.trim_start_matches("clippy::");
                let set = lints.lines().any(|line| line.starts_with(&format!("{key} = ")));
                set.then_some(()).ok_or_else(|| format!("the workspace has no lint {name}"))
            }
            Self::Test { path, function } => {
                let tests = tests_at(path)?;
                let there = function.map_or(!tests.is_empty(), |name| tests.contains(name));
                there.then_some(()).ok_or_else(|| format!("{path} has no test {function:?}"))
            }
        }
    }
}

/// The tests of a file; of the `main.rs` of several files of tests, those of all.
fn tests_at(path: &str) -> Result<BTreeSet<String>, String> {
    let full = root().join(path);
    let folder = full.parent().filter(|_| full.ends_with("main.rs"));
    let beside = folder.into_iter().flat_map(rust_files);
    let mut tests = BTreeSet::new();
    for file in [full.clone()].into_iter().chain(beside) {
        let text = fs::read_to_string(&file).map_err(|e| format!("cannot read {path}: {e}"))?;
        tests.extend(tests_of(&text).map_err(|e| format!("cannot parse {path}: {e}"))?);
    }
    Ok(tests)
}

#[test]
fn every_invariant_names_what_holds_it() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let lints = manifest.split("[workspace.lints").skip(1).collect::<String>();
    let invariants: Vec<String> = text
        .split("\n\n")
        .filter(|paragraph| paragraph.contains("**Invariant:**"))
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect();
    assert!(invariants.len() > 20, "{} invariants", invariants.len());
    let wrong: Vec<String> = invariants
        .iter()
        .filter_map(|paragraph| {
            let checked = match Holder::of(paragraph) {
                Some(holder) => holder.check(&lints),
                None => Err("names nothing that holds it".to_owned()),
            };
            checked.err().map(|problem| format!("{problem}: {paragraph}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn holders_are_read() {
    let check = |text: &str, expected: Option<Holder<'_>>| assert_eq!(Holder::of(text), expected);
    let test = |path, function| Some(Holder::Test { path, function });
    check("x (held by `a/b.rs` `name`)", test("a/b.rs", Some("name")));
    check("x (see `y`) z (held by `a/b.rs`).", test("a/b.rs", None));
    check("x (held by the lint `clippy::todo`)", Some(Holder::Lint("clippy::todo")));
    check("x (held by the types)", Some(Holder::Types));
    check("x", None);
}
