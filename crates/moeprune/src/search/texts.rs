//! What candidates are made of, and what they are scored on.

use moeprune_capture::{BlockOrigin, TokenBlocks};
use moeprune_core::CorpusTag;
use moeprune_engine::{Calibration, RepairBlocks, RepairCalibration};

use crate::Error;

/// Of how many calibration blocks candidates are scored on one.
const PER_SCORED: usize = 4;

/// The calibration text of a search. No token that a candidate is made of is one that it is scored on.
///
/// [`CalibrationTexts::read_for_search`](crate::CalibrationTexts::read_for_search) draws it.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct SearchTexts {
    /// What candidates are made of, as the run of the chosen one is.
    pub calibration: Calibration,
    /// What they are scored on.
    pub scored: TokenBlocks,
}

impl SearchTexts {
    /// Blocks that candidates are scored on, of so many calibration blocks.
    pub(crate) fn scored_of(samples: usize) -> usize {
        (samples / PER_SCORED).max(1)
    }

    /// A calibration with what was drawn beside it, of `wanted` blocks; with its own last ones if it is of
    /// ready-made blocks and there are too few others.
    pub(crate) fn new(
        calibration: Calibration,
        scored: TokenBlocks,
        wanted: usize,
    ) -> Result<Self, Error> {
        let found = scored.blocks().len();
        match calibration.blocks.origin() {
            BlockOrigin::Given { .. } if found < wanted => Self::split(calibration),
            _ if found == 0 => Err(Error::Request(format!(
                "a search scores candidates on blocks that share no token with those that they are made of, \
                 and {} is too short for any beside its {} calibration blocks; lower --samples or use more \
                 text",
                calibration.tag.name,
                calibration.blocks.blocks().len()
            ))),
            _ => Ok(Self { calibration, scored }),
        }
    }

    /// The last blocks of a calibration are those to score on, and the others to make candidates of.
    fn split(calibration: Calibration) -> Result<Self, Error> {
        let Calibration { blocks, tag, repair } = calibration;
        let all = blocks.blocks().len();
        let apart = all / PER_SCORED;
        if apart == 0 {
            return Err(Error::Request(format!(
                "a search keeps a quarter of the calibration blocks apart, and there are only {all}; ask for 4 \
                 or more with --samples"
            )));
        }
        let (blocks, scored) = blocks.split_at(all - apart);
        let tag = CorpusTag { samples: (all - apart) as u64, ..tag };
        let repair = repair.map(|repair| fitted_to(repair, &blocks));
        Ok(Self { calibration: Calibration { blocks, tag, repair }, scored })
    }
}

/// A repair that is fitted to these blocks of the calibration text, and to the same of the others.
fn fitted_to(mut repair: RepairCalibration, blocks: &TokenBlocks) -> RepairCalibration {
    if let Some(RepairBlocks { tag, fitted, held_out }) = repair.texts.first_mut() {
        let apart = held_out.as_ref().map_or(0, |blocks| blocks.blocks().len());
        tag.samples = (blocks.blocks().len() + apart) as u64;
        *fitted = Some(blocks.clone());
    }
    repair
}
