//! The texts that a repair is fitted to and measured on, cut into blocks.

use std::path::Path;

use moeprune_capture::{BlockOrigin, SamplingOptions, TokenBlocks};
use moeprune_core::{CorpusTag, repair::RepairText};
use moeprune_model::check_runnable;

use super::{Calibration, ModelText, Sampling, TextFiles, asked_len, no_block};
use crate::{Error, Model};

/// Of how many blocks that are fitted one more is drawn and held out.
const FITTED_PER_HELD_OUT: usize = 8;

/// The texts that a repair is fitted to and measured on.
///
/// Blocks are drawn as for a [`Calibration`], and beside those that are fitted an eighth as many as the
/// calibration has, at least one, that nothing is fitted to and that share no token with those.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct RepairCalibration {
    /// The calibration text first, its fitted blocks being those of the [`Calibration`], then the others
    /// in the order in which they were given.
    pub texts: Vec<RepairBlocks>,
}

/// The blocks of one text.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct RepairBlocks {
    /// The file, and how all of its blocks were drawn, those that are held out among them.
    pub tag: CorpusTag,
    /// Those that weights are fitted to; `None` of a text on which the repair is only measured.
    pub fitted: Option<TokenBlocks>,
    /// Those that nothing is fitted to, apart from the fitted ones; `None` if the text has no such block.
    pub held_out: Option<TokenBlocks>,
}

/// A text beside the calibration's that a repair is fitted to or measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct OtherText<'a> {
    /// A file, a folder or a pattern.
    pub path: &'a Path,
    /// Blocks that weights are fitted to; 0 if the repair is only measured on it.
    pub fitted: usize,
}

impl RepairCalibration {
    /// Draws the calibration's blocks, as [`Calibration::read`] does, and beside them those that a
    /// repair needs. Each text is walked over once.
    ///
    /// # Errors
    /// As [`Calibration::read`], of any of the texts, and if two of them have the same content.
    pub fn read<'a>(
        text: impl Into<TextFiles<'a>>,
        model: &dyn Model,
        sampling: &impl Sampling,
        others: &[OtherText<'_>],
    ) -> Result<Calibration, Error> {
        Ok(Self::read_beside(text, model, sampling, others, 0)?.0)
    }

    /// [`read`](Self::read), and beside that at most `beside` blocks of the calibration text that share no
    /// token with those that are fitted or held out: none of a text that is too short for them.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_beside<'a>(
        text: impl Into<TextFiles<'a>>,
        model: &dyn Model,
        sampling: &impl Sampling,
        others: &[OtherText<'_>],
        beside: usize,
    ) -> Result<(Calibration, TokenBlocks), Error> {
        let spec = model.spec();
        check_runnable(spec)?;
        let options = sampling.options(spec.longest_streamed());
        let apart = Self::held_out_blocks_of(options.samples);
        let (text, asked) = (text.into(), (&options, asked_len(sampling)));
        let (first, beside) = RepairBlocks::read(text, model, asked, [apart, beside])?;
        let mut texts = vec![first];
        for other in others {
            let options = SamplingOptions { samples: other.fitted, ..options };
            let asked = (&options, asked_len(sampling));
            let other = TextFiles::from(other.path).with_chat(text.chat());
            let (read, _) = RepairBlocks::read(other, model, asked, [apart, 0])?;
            check_other(&read.tag, &texts)?;
            texts.push(read);
        }
        let repair = Self { texts };
        let calibration = repair.calibration().ok_or_else(no_block)?;
        Ok((Calibration { repair: Some(repair), ..calibration }, beside))
    }

    /// A repair that is fitted to a calibration alone, with nothing held out.
    #[must_use]
    pub fn of(calibration: &Calibration) -> Self {
        let Calibration { blocks, tag, .. } = calibration;
        let fitted = Some(blocks.clone());
        Self { texts: vec![RepairBlocks { tag: tag.clone(), fitted, held_out: None }] }
    }

    /// What a report says of the texts.
    #[must_use]
    pub fn summary(&self) -> Vec<RepairText> {
        let text = |text: &RepairBlocks| RepairText {
            corpus: text.tag.clone(),
            fitted: count(text.fitted.as_ref()),
            held_out: count(text.held_out.as_ref()),
        };
        self.texts.iter().map(text).collect()
    }

    /// Blocks that weights are fitted to, of all texts.
    #[must_use]
    pub fn fitted_blocks(&self) -> usize {
        self.texts.iter().map(|text| count(text.fitted.as_ref())).sum()
    }

    /// Blocks that are held out of a text beside so many that the calibration has.
    #[must_use]
    pub fn held_out_blocks_of(samples: usize) -> usize {
        (samples / FITTED_PER_HELD_OUT).max(1)
    }

    /// Blocks that are held out, of all texts.
    #[must_use]
    pub fn held_out_blocks(&self) -> usize {
        self.texts.iter().map(|text| count(text.held_out.as_ref())).sum()
    }

    /// Notes about texts that have no blocks to hold out.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let without = self.texts.iter().filter(|text| text.held_out.is_none());
        without.map(RepairBlocks::note).collect()
    }

    fn calibration(&self) -> Option<Calibration> {
        let RepairBlocks { tag, fitted, .. } = self.texts.first()?;
        let blocks = fitted.clone()?;
        let tag = CorpusTag { samples: blocks.blocks().len() as u64, ..tag.clone() };
        Some(Calibration { blocks, tag, repair: None })
    }
}

impl RepairBlocks {
    /// Draws `options.samples` blocks to be fitted (`asked_len` tokens in each were asked for), those that are drawn without others, at most `apart` that are
    /// held out, and at most `beside` others. None shares a token with another of these.
    fn read(
        text: TextFiles<'_>,
        model: &dyn Model,
        (options, asked_len): (&SamplingOptions, usize),
        [apart, beside]: [usize; 2],
    ) -> Result<(Self, TokenBlocks), Error> {
        let text = ModelText::open(text, model)?;
        let (fitted, [held_out, beside]) = text.blocks_in_groups(options, [apart, beside])?;
        let tag = text.tag(&fitted, asked_len)?;
        let tag = CorpusTag { samples: tag.samples + held_out.blocks().len() as u64, ..tag };
        let some = |blocks: TokenBlocks| (!blocks.blocks().is_empty()).then_some(blocks);
        Ok((Self { tag, fitted: some(fitted), held_out: some(held_out) }, beside))
    }

    /// What is to be said of a text without blocks to hold out.
    fn note(&self) -> String {
        let CorpusTag { name, samples, .. } = &self.tag;
        let why = match self.fitted.as_ref().map(TokenBlocks::origin) {
            Some(BlockOrigin::LongDocuments { .. } | BlockOrigin::Packed { .. }) => {
                format!("{name} is too short for blocks apart from the {samples} that are fitted")
            }
            _ => format!(
                "{name} is a file of ready-made blocks, and all {samples} of them are fitted"
            ),
        };
        format!(
            "note: {why}: a repair that makes other text worse is not noticed; lower --samples or use \
             more text"
        )
    }
}

/// Refuses a text that is among those before it under this name or another.
fn check_other(tag: &CorpusTag, before: &[RepairBlocks]) -> Result<(), Error> {
    match before.iter().find(|text| text.tag.sha256 == tag.sha256) {
        None => Ok(()),
        Some(same) => Err(Error::Request(format!(
            "the texts of a repair have to differ, so that what is fitted on one is not measured on \
             another, but {} has the content of {}; give each text once (--calibration, --repair-text)",
            tag.name, same.tag.name
        ))),
    }
}

fn count(blocks: Option<&TokenBlocks>) -> usize {
    blocks.map_or(0, |blocks| blocks.blocks().len())
}
