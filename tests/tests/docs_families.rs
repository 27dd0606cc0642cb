//! `docs/families.md` is what `cargo xtask families` makes.

#[path = "../../xtask/src/families/table.rs"]
mod table;

use std::{fs, path::Path};

#[test]
fn the_table_of_families_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/families.md");
    let there = fs::read_to_string(path).expect("there is a table");
    assert_eq!(there, table::page(), "run `cargo xtask families --write`");
}

/// README.md lists the families in words, and refers to the table.
#[test]
fn the_readme_names_every_family() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(path).expect("there is one");
    let row = readme.lines().find(|line| line.starts_with("| families |")).expect("there is a row");
    for family in moeprune::checkpoint::Family::builtins() {
        let name = format!("`{}`", family.name());
        assert!(row.contains(&name), "README.md, \"Families and formats\": {name} is missing");
    }
    assert!(readme.contains("(docs/families.md)"));
}
