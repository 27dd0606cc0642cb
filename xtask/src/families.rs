//! `cargo xtask families`: `docs/families.md`, made from the built-in descriptors.

mod table;

use std::fs;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::embedded;

/// Print the table of built-in families, as docs/families.md has it
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Put it into docs/families.md
    #[arg(long)]
    write: bool,
    /// Fail if docs/families.md has another
    #[arg(long, conflicts_with = "write")]
    check: bool,
}

pub(crate) fn run(args: &Arguments) -> Result<()> {
    let path = embedded::root().join("docs/families.md");
    let page = table::page();
    if args.write {
        return fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()));
    }
    if !args.check {
        return Ok(moeprune_cli::print(&page)?);
    }
    let there = fs::read_to_string(&path);
    if there.with_context(|| format!("cannot read {}", path.display()))? != page {
        bail!("{} is not current: run `cargo xtask families --write`", path.display());
    }
    Ok(())
}
