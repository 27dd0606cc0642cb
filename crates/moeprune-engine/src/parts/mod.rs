//! A pruned model written in parts, each by a process of its own, and put together.
//!
//! A part is a range of the decoder layers; the first has what belongs to none as well. It is possible where no layer
//! depends on what became of another: whole experts go, or weights by statistics of the unpruned model. Each part
//! grows as a model does, in a hidden sibling of its folder with a journal, and writes files of its own alone, so that
//! no two processes have one file open, wherever they are. [`Parts::join`] renames these files.

mod join;
mod joining;
mod record;

pub use self::{
    join::{Joined, Leavings, Parts},
    record::PART_FILE,
};

use std::{ops::Range, path::Path, time::Instant};

use moeprune_checkpoint::{Checkpoint, DividedFiles, DividedPart, Division};
use moeprune_core::{PartOf, Plan};

use self::{joining::Joining, record::PartRecord};
use crate::{
    Error, Inputs, Job, KeptExperts, Pipeline, Remedy, Resume, Run, StageClock, apply::check_plan,
    session::RunIdentity,
};

/// Where a part of a pruned model is written, and what is done about an interrupted run to the same place.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct PartPlace<'a> {
    /// The checkpoint from which what stays as it is is copied.
    pub origin: &'a Checkpoint,
    /// The folder, missing or empty, or with this part in it, finished.
    pub path: &'a Path,
    /// Whether an interrupted run is resumed.
    pub resume: Resume,
    /// Which part.
    pub part: PartOf,
    /// When the work on it began, by which the report says how long its statistics were read.
    pub began: Instant,
}

/// A part that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrittenPart {
    /// Which.
    pub part: PartOf,
    /// Its decoder layers.
    pub layers: Range<usize>,
    /// Bytes of its tensors; `None` if it was there already.
    pub bytes: Option<u64>,
}

impl Job<'_> {
    /// Writes a part of what [`apply`](Self::apply) writes with the same plan and inputs, or finds it written: what a
    /// join has moved counts as long as it is there.
    ///
    /// # Errors
    /// As [`apply`](Self::apply) and [`Run::claim`]; of a plan or inputs for which layers depend on each other
    /// (calibration text, a repair); if there is a finished part at the place and it is another one, or not whole.
    pub fn apply_part(
        &mut self,
        to: PartPlace<'_>,
        plan: &Plan,
        inputs: Inputs<'_>,
    ) -> Result<WrittenPart, Error> {
        let PartPlace { origin, path, resume, part, began } = to;
        check_apart(plan, self.pipeline, inputs)?;
        let layers = part.range(self.model.spec().layers.len());
        let (identity, execution) = self.identity_of(plan, inputs)?;
        if find_finished(to, &identity)? {
            return Ok(WrittenPart { part, layers, bytes: None });
        }
        let mut run = Run::claim_part(path, origin, resume, (part, PART_FILE))?;
        run.clock = StageClock::since(began);
        run.end_step("reading statistics");
        let begun = (identity.clone(), execution);
        run.complete(|run| {
            DividedFiles::unmark_shares(run.folder())?;
            let applied = self.apply_as(run, plan, inputs, begun)?;
            let bytes = Some(applied.bytes_written);
            run.session.check_undisturbed()?;
            let files = files_of(origin, &applied.plan, part.of())?;
            files.mark_shares(DividedPart { part, folder: run.folder() })?;
            PartRecord::of(applied, (part, layers.start), identity).write(&run.output)?;
            Ok(WrittenPart { part, layers, bytes })
        })
    }
}

/// Refuses what makes a layer depend on what became of others.
fn check_apart(plan: &Plan, pipeline: &Pipeline, inputs: Inputs<'_>) -> Result<(), Error> {
    let in_one_piece = |problem: &str| Err(Error::refused(problem, Remedy::NoParts));
    if plan.repairs {
        return in_one_piece(
            "the plan repairs the experts that stay, by text that goes through all layers one after the other",
        );
    }
    let Some(_) = plan.unstructured else { return without_text(inputs) };
    if pipeline.refit.is_some() {
        return in_one_piece(
            "the plan refits what is left of zeroed weights, by text that goes through all layers one after the \
             other",
        );
    }
    let needs = pipeline.weights.needs();
    if needs.hessians {
        return in_one_piece(
            "the weights that stay are changed by which inputs come together, which is known only while text goes \
             through the layers one after the other",
        );
    }
    if needs.inputs && matches!(inputs, Inputs::None) {
        return Err(Error::refused(
            "the plan zeroes weights by their inputs, and nothing is known of those",
            Remedy::ObservationOrNoParts,
        ));
    }
    without_text(inputs)
}

fn without_text(inputs: Inputs<'_>) -> Result<(), Error> {
    if matches!(inputs, Inputs::Calibration(_)) {
        return Err(Error::refused(
            "sequential statistics are of text that goes through the pruned layers one after the other, so that no \
             layer can be written before those in front of it",
            Remedy::ObservationOrNoParts,
        ));
    }
    Ok(())
}

/// Whether the part is at its place, written by a run that is the same and with all its files.
fn find_finished(to: PartPlace<'_>, identity: &RunIdentity) -> Result<bool, Error> {
    let PartPlace { origin, path, part, .. } = to;
    let Some(found) = PartRecord::find(path)? else { return Ok(false) };
    if found.part() != part {
        let problem = format!(
            "holds part {} and is to hold part {part}; give each part a folder of its own",
            found.part()
        );
        return Err(Error::part(path, problem));
    }
    let changes = found.begun().changes(&identity.clone().with_part(part));
    if !changes.is_empty() {
        let problem = format!(
            "holds part {part} of another run: {}; choose another folder, or remove this one",
            changes.join("; ")
        );
        return Err(Error::part(path, problem));
    }
    let files = files_of(origin, found.plan(), part.of())
        .map_err(|e| Error::part(path, format!("its {PART_FILE}: {e}")))?;
    let written = DividedPart { part, folder: path };
    if Joining::of(path)?.is_some_and(|joining| joining.has_all_of(&files, written)) {
        return Ok(true);
    }
    files.check(written, None)?;
    Ok(true)
}

/// The files that all parts are, together, by a plan that leaves nothing open.
fn files_of(origin: &Checkpoint, plan: &Plan, parts: usize) -> Result<DividedFiles, Error> {
    check_plan(origin, plan)?;
    if let Some(open) = plan.layers.iter().find(|layer| layer.is_open()) {
        return Err(Error::Plan(format!("it leaves the survivors of layer {} open", open.layer)));
    }
    let kept = KeptExperts::new(origin, plan);
    let layout = origin.output_layout(kept.spec(), &|layer, e| kept.index_of(layer, e))?;
    let division = Division::new(kept.spec().layers.len(), parts)?;
    Ok(DividedFiles::new(origin.pruned_form(kept.spec())?, &layout, &division)?)
}
