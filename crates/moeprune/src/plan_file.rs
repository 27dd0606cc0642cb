//! A plan, read from its file.

use std::{fs::File, io::Read, path::Path};

use moeprune_core::{Plan, Sparsity, UnstructuredPlan};
use moeprune_files::StandIn;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, PLAN_FORMAT, Recipe};

/// Reads a plan. Whether it fits a model, [`apply`](crate::apply()) checks.
///
/// # Errors
/// If the file cannot be read, is too large to be a plan, or is none.
pub fn read_plan(path: &Path) -> Result<Plan, Error> {
    let bad = |reason: String| Error::Plan(format!("{} {reason}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let read = file.take(LONGEST_PLAN + 1).read_to_string(&mut text);
    read.map_err(|e| Error::io(path, "read", e))?;
    if text.len() as u64 > LONGEST_PLAN {
        return Err(bad(format!("is longer than {LONGEST_PLAN} bytes; not a plan")));
    }
    let beginning = &text.as_bytes()[..text.len().min(StandIn::BYTES)];
    if let Some(stand_in) = StandIn::pointer(beginning) {
        return Err(bad(stand_in.to_string()));
    }
    let text = text.trim_start_matches('\u{feff}');
    let not_a_plan = |e: serde_json::Error| bad(format!("is not a plan: {e}"));
    let Head { format, recipe } = serde_json::from_str(text).map_err(not_a_plan)?;
    if format != PLAN_FORMAT {
        return Err(bad(format!("has format {format}, not {PLAN_FORMAT}; make the plan again")));
    }
    let _: Recipe = serde_json::from_str(recipe.get())
        .map_err(|e| bad(format!("is not a plan: its recipe: {e}")))?;
    let plan: Plan = serde_json::from_str(text).map_err(not_a_plan)?;
    if let Some(UnstructuredPlan { total_sparsity, ratio, layer_ratios, expert_ratios, .. }) =
        &plan.unstructured
    {
        let of_experts = expert_ratios.iter().map(|expert| &expert.ratio);
        let mut shares = [total_sparsity, ratio].into_iter().chain(layer_ratios).chain(of_experts);
        shares
            .try_for_each(|&share| Sparsity::new(share).map(drop))
            .map_err(|e| bad(format!("is not a plan: unstructured: {e}")))?;
    }
    Ok(plan)
}

/// Thousands of experts in hundreds of layers fit.
const LONGEST_PLAN: u64 = 100_000_000;

/// What is looked at first. A recipe becomes a part of a [`Plan`] as JSON of any kind, which takes
/// tens of times the memory of its text, and nests deeper than it looks where JSON stands in a
/// string; so it must be a recipe.
#[derive(Deserialize)]
struct Head<'a> {
    format: u32,
    #[serde(borrow)]
    recipe: &'a RawValue,
}
