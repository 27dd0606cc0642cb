/*!
Prunes mixture-of-experts language models: experts first, weights next, and measures what was
lost.

# Brief overview

The method is STUN (structured, then unstructured; arXiv 2409.06211). [`prune()`] does the whole
job; [`Job::observe`], [`plan()`], [`apply()`] and [`evaluate()`] are its steps, and what passes between
them are files that can be kept and looked at. The stages inside are traits of
[`core`], held by a [`Pipeline`]; a [`Recipe`] names the built-in ones. This crate
wires them and adds nothing else.

# Example

```no_run
use std::path::Path;
use moeprune::{
    Execution, FromRecipe, Job, OutputPlace, Pipeline, Recipe, Resume, Silent,
    checkpoint::Checkpoint, prune,
};

let model = Checkpoint::open(Path::new("snowflake-arctic-instruct"))?;
let recipe = Recipe::arctic();
let mut job = Job {
    model: &model,
    pipeline: &Pipeline::from_recipe(&recipe)?,
    execution: &Execution::cpu(),
    progress: &mut Silent,
};
let to = OutputPlace { origin: &model, path: Path::new("arctic-stun-40"), resume: Resume::Yes };
let report = prune(&mut job, to, Path::new("c4-train.00000-of-01024.json.gz"), &recipe)?;
// `WithCard { place: to, card: Card::LeftOut }` in place of `to` writes no README.md.
assert!((report.sparsity.achieved.linears - 0.4).abs() < 5e-4);
# Ok::<(), Box<dyn std::error::Error>>(())
```

# Why it is so

Each crate underneath can be used alone, and none of them knows of another. They are re-exported
here under short names: [`core`], [`checkpoint`], [`model`], [`capture`], [`similarity`],
[`saliency`], [`cluster`], [`select`], [`repair`], [`score`], [`eval`].
*/

mod card;
pub mod compare;
mod default_repair;
mod domains;
mod error;
mod estimates;
pub mod evaluation;
mod join;
mod keep_list;
mod plan_file;
mod planning;
mod prune;
pub mod recipe;
pub mod registry;
pub mod report;
pub mod search;
pub mod serving;
mod streamed;
mod study;
mod whole_experts;

pub use moeprune_capture as capture;
pub use moeprune_checkpoint as checkpoint;
pub use moeprune_cluster as cluster;
pub use moeprune_core as core;
pub use moeprune_endpoint as endpoint;
pub use moeprune_engine as engine;
pub use moeprune_eval as eval;
pub use moeprune_files as files;
pub use moeprune_gguf as gguf;
pub use moeprune_model as model;
pub use moeprune_repair as repair;
pub use moeprune_saliency as saliency;
pub use moeprune_score as score;
pub use moeprune_select as select;
pub use moeprune_similarity as similarity;
pub use moeprune_text as text;

pub use card::{Card, WithCard};
pub use default_repair::{
    Said, check_repair, experts_before_repair, note_of_recipe_without_repair, repair_by_default,
};
pub use domains::{Coverage, Domain, blend, check_by_observations, coverage, plan_domains};
pub use error::Error;
pub use estimates::Estimates;
pub use evaluation::{
    AskOptions, Evaluation, evaluate, evaluate_all, evaluate_all_by, evaluate_all_kept,
};
pub use join::join;
pub use keep_list::read_keep_list;
#[cfg(target_os = "linux")]
pub use moeprune_engine::timed;
pub use moeprune_engine::{
    Calibration, ChatOptions, ComputeType, DeviceChoice, Estimate, Execution, ExpertStage, Grouped,
    ImatrixFile, Inputs, Job, KeepList, LayerKey, LayerStage, MemoryNeed, Model, ObservationPlace,
    OtherText, PLAN_FORMAT, PartPlace, Parts, Pipeline, PlanInputs, Progress, Rates, Remedy,
    Resume, Run, RunKind, Scored, Silent, Stage, TextFiles, TextSize, WeightStage, Work,
    WrittenPart, available_memory, load_tokenizer, observe_imatrix, shortened,
};
pub use plan_file::read_plan;
pub use planning::{check_request, plan};
pub use prune::{
    CalibrationTexts, OutputPlace, SearchedRecipe, apply, prune, prune_by_domain, prune_listed,
    prune_observed,
};
pub use recipe::Recipe;
pub use registry::{FromRecipe, Registry};
pub use report::Report;
pub use study::Study;
pub use whole_experts::{check_is_run, check_whole_experts, whole_experts_by_default};
