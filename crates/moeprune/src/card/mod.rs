//! The card of a pruned model: `README.md`, which the Hugging Face Hub shows.

mod base;
mod front_matter;
mod reproduction;
mod text;

use std::{
    fs,
    io::{self, ErrorKind},
};

use moeprune_checkpoint::{BASE_CARD_FILE, CARD_FILE};
use moeprune_engine::{Error as EngineError, Progress, Run, printable};

use self::{
    base::Base,
    front_matter::{BaseCard, FrontMatter},
    text::Facts,
};
use crate::Report;

/// Whether a pruned model gets a card of its own.
///
/// That is `README.md` in its folder: what was removed, by which text and how, what it saves, and what is not known. Of
/// the base's card it has licence, language and pipeline, and no scores. The base's card is `README.base.md` in any
/// case, as its scores would be taken for those of the pruned model. A model that is one file has neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_enums, reason = "to write one or not")]
pub enum Card {
    /// It gets one.
    #[default]
    Written,
    /// It gets none.
    LeftOut,
}

/// A place to write to, and whether there is a card in what is written. A place alone gets one.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct WithCard<P> {
    /// The place.
    pub place: P,
    /// Whether a card is written.
    pub card: Card,
}

impl<P> From<P> for WithCard<P> {
    fn from(place: P) -> Self {
        Self { place, card: Card::Written }
    }
}

impl Card {
    /// Writes the card into the folder of a run, or sees to it that none is there.
    pub(crate) fn save(
        self,
        run: &Run<'_>,
        report: &Report,
        progress: &mut dyn Progress,
    ) -> Result<(), EngineError> {
        if !run.makes_folder() {
            return Ok(());
        }
        let path = run.folder().join(CARD_FILE);
        // A run that was killed may have left one.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(&path)("remove", e)),
            _ => {}
        }
        if self == Self::LeftOut {
            return Ok(());
        }
        let card = BaseCard::read(&run.folder().join(BASE_CARD_FILE));
        note(&card, progress);
        let nothing = FrontMatter::default();
        let front = if let BaseCard::Read(front) = &card { front } else { &nothing };
        let base = Base::of(run.origin(), &front.ancestors);
        let facts = Facts {
            report,
            base: &base,
            front,
            has_base_card: card != BaseCard::Missing,
            is_transformers: !run.origin().describes_itself(),
        };
        fs::write(&path, facts.render()).map_err(|e| failed(&path)("write", e))
    }
}

fn failed(path: &std::path::Path) -> impl Fn(&'static str, io::Error) -> EngineError {
    move |what, error| EngineError::io(path, what, error)
}

/// Says what of the base's card is not in the new one and should be.
fn note(card: &BaseCard, progress: &mut dyn Progress) {
    match card {
        BaseCard::Unclear(why) => progress.note(&printable(&format!(
            "note: the model's {CARD_FILE} {why}; the card of the result says nothing of its licence and language, \
             and {BASE_CARD_FILE} is as it was"
        ))),
        BaseCard::Read(front) if !front.passed_over.is_empty() => progress.note(&format!(
            "note: the model's {CARD_FILE} gives {} twice, or not as text; the card of the result leaves it out",
            front.passed_over.join(", ")
        )),
        _ => {}
    }
}
