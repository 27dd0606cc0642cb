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
