//! `moeprune verify`

use std::path::PathBuf;

use clap::Args;

use crate::options::FamilyArgs;
use moeprune::{Error, read_plan};

/// Options of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  moeprune verify pruned --source mixtral-8x7b --plan plan.json")]
pub(crate) struct VerifyArgs {
    /// The pruned checkpoint
    out: PathBuf,
    /// The model it was made from
    #[arg(long, value_name = "MODEL")]
    source: PathBuf,
    /// The plan it was made with
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    family: FamilyArgs,
}

/// Prints every check; false if one failed.
pub(crate) fn verify(args: &VerifyArgs) -> Result<bool, Error> {
    let source = args.family.open(&args.source)?;
    let plan = args.plan.as_deref().map(read_plan).transpose()?;
    let report = moeprune_checkpoint::verify(&args.out, &source, plan.as_ref())?;
    if args.json {
        line!("{}", crate::print::json(&report)?)?;
    } else {
        for check in &report.checks {
            let mark = if check.passed { "ok    " } else { "FAILED" };
            line!("{mark}  {}: {}", check.name, check.detail)?;
        }
    }
    Ok(report.checks.iter().all(|check| check.passed))
}
