/*!
Plans the pruning of a mixture-of-experts model and carries it out, one layer in memory at a time.

# Brief overview

The stages of a pruning are traits of [`moeprune_core`]; a [`Pipeline`] holds one implementation of
each, and this crate runs them over a model:

| step | item |
|---|---|
| run the model over calibration text and sum what it does | [`Job::observe`], [`Job::observe_to`] |
| decide which experts go and how sparse the rest becomes | [`Job::plan`] |
| choose the survivors that a plan leaves open | [`Job::choose_survivors`] |
| write the pruned checkpoint | [`Run`], [`Job::apply`] |
| all of it | [`Job::prune`] |

A [`Job`] works on any [`Model`]; writing takes the [`Checkpoint`](moeprune_checkpoint::Checkpoint)
besides, from which files are copied that stay as they are. The request is a [`PruneRequest`]. Where it runs is an [`Execution`]; a [`Run`] or a session keeps
what is done, so that a process that was killed can be resumed.

# Why it is so

This crate knows no recipe, no registry of names and no report. Requests are plain structs, and what
was done comes back as [`Applied`]; `moeprune` makes the one from a recipe and a report from the other.
*/

mod answering_need;
mod apply;
mod calibration;
mod cgroup_folders;
mod clock;
mod cpu_quota;
mod device_memory;
mod error;
mod estimate;
mod execution;
mod finite;
mod imatrix;
mod imatrix_mismatch;
mod in_codes;
mod job;
mod keep_list;
mod kept_experts;
mod memory;
mod model;
mod observe;
mod on_host;
mod parts;
mod pipeline;
mod plan;
mod printable;
mod progress;
mod prune;
mod rates;
mod remedy;
mod repair;
mod request;
mod router_input;
mod run;
mod runs;
mod session;
mod stage;
mod steps;
mod streaming_estimate;
mod system_file;
mod tokenizer;
mod tool;
mod walk;

pub use answering_need::{AnsweringNeed, ExpertPlace, StreamingRoom};
#[cfg(target_os = "linux")]
pub use apply::timed;
pub use apply::{Applied, Inputs, UnwrittenModel, without_zero};
pub use calibration::{
    Calibration, ChatOptions, ModelText, OtherText, RepairBlocks, RepairCalibration, Sampling,
    TextFiles, note_of_length, note_of_streamed_length, read_in_words, shortened, warnings_of_text,
};
pub use clock::{StageClock, StageReport};
pub use cpu_quota::CpuQuota;
pub use error::Error;
pub use estimate::{Estimate, Work, active_parameters};
pub use execution::{ComputeType, DeviceChoice, Execution};
pub use finite::Finite;
pub use imatrix::{ImatrixFile, observe_imatrix};
pub use imatrix_mismatch::ImatrixMismatch;
pub use in_codes::{StoredCodes, check_reconstructs, codes_of_repaired};
pub use job::Job;
pub use keep_list::{KeepList, LayerKey};
pub use kept_experts::KeptExperts;
pub use kept_experts::repaired_parts::REPAIRABLE_ENCODINGS;
pub use memory::{AvailableMemory, MemoryLimit, MemoryNeed, RunKind, TextSize, available_memory};
pub use model::Model;
pub use observe::ObservationPlace;
pub use parts::{Joined, Leavings, PART_FILE, PartPlace, Parts, WrittenPart};
pub use pipeline::{
    ExpertNeeds, ExpertStage, Grouped, LayerStage, Pipeline, Scored, WeightNeeds, WeightStage,
};
pub use plan::{
    PLAN_FORMAT, PlanInputs, Router, check_prune, check_request, expert_budget, routers,
    stored_otherwise,
};
pub use printable::printable;
pub use progress::{Progress, Silent};
pub use rates::Rates;
pub use remedy::Remedy;
pub use repair::{Holding, RepairCost, RepairEstimate, RepairTextSize, check_repair_folder};
pub use request::{BudgetSpread, ExpertRequest, PruneRequest, WeightTarget};
pub use run::Run;
pub use runs::check_runs;
pub use session::{LayerZeros, Resume, RunIdentity, WithoutZero, WrittenLayer};
pub use stage::Stage;
pub use streaming_estimate::{AnsweringWork, StreamingEstimate};
pub use tokenizer::{first_token, load_tokenizer};
pub use tool::TOOL;
pub use walk::{AtLayer, Route, walk};
