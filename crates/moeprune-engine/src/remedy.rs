//! What to do about an error.

use std::fmt;

use crate::BudgetSpread;

/// What would make a request that was refused possible.
///
/// As text it speaks of this library. A program with options of its own says which of them to set: the
/// command line has a sentence with its flags for each.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Remedy {
    /// Removing a smaller share of the experts.
    FewerExperts {
        /// The largest that works, if it is known.
        at_most: Option<f64>,
    },
    /// Removing a larger share of the experts.
    MoreExperts {
        /// The smallest that removes any.
        at_least: f64,
    },
    /// Removing fewer experts, or not protecting super experts.
    FewerExpertsOrNoProtection,
    /// A larger total, fewer experts, or the same share of both.
    LargerTotal,
    /// Spreading the removed experts over the layers in this way.
    Spread(BudgetSpread),
    /// Allowing more subsets, or choosing experts in another way.
    MoreSubsets,
    /// Pruning layers behind the decoder's, or dropping them.
    PruneOrDropExtra,
    /// Dropping layers behind the decoder's.
    DropExtra,
    /// Removing whole experts only, with nothing that is run.
    WholeExperts,
    /// A list of the experts that stay.
    KeepList,
    /// Leaving the repair out.
    NoRepair,
    /// Having new weights written in the encoding that they are stored in, or leaving the repair out.
    Requantise,
    /// Zeroing weights without changing others.
    MaskOnly,
    /// Keeping one expert of each group.
    SelectOne,
    /// Zeroing weights by a score, the others as they are, or writing the model.
    ScoreOrWrite,
    /// Calibration text.
    Calibration,
    /// Choosing experts by sums of the model as it is, before any layer has lost experts.
    IndependentStatistics,
    /// An observation of the model.
    Observation,
    /// Calibration text, or an observation for statistics of the unpruned model.
    Statistics,
    /// Leaving the type that is computed in to the device.
    DefaultType,
    /// So many blocks in a micro-batch.
    MicroBatch(usize),
    /// With a micro-batch of one block, this percentage of the calibration tokens.
    FewerTokens {
        /// Of those that were asked for.
        percent: f64,
    },
    /// Shorter blocks, a larger device or the CPU.
    LargerDevice {
        /// Bytes that one expert at a time and a single block take.
        needed: u64,
    },
    /// The CPU, or an engine that spreads a model over several devices.
    NotOneDevice,
    /// An observation of the model in place of calibration text, or writing the model in one piece.
    ObservationOrNoParts,
    /// Writing the model in one piece.
    NoParts,
    /// Resuming the interrupted run, or deleting the folder with what it finished.
    ResumeOrDelete,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FewerExperts { at_most: Some(share) } => {
                write!(f, "remove a share of the experts of at most {share:.4}")
            }
            Self::MoreExperts { at_least } => {
                write!(f, "remove a share of the experts, and in total, of at least {at_least:.4}")
            }
            Self::MicroBatch(blocks) => write!(f, "a micro-batch of {blocks} would fit"),
            Self::FewerTokens { percent } => write!(
                f,
                "with a micro-batch of 1, hidden states of {percent:.0} % as many tokens would fit: \
                 use fewer or shorter calibration blocks"
            ),
            Self::LargerDevice { needed } => write!(
                f,
                "one expert at a time with a single block already needs {:.1} GB: use shorter \
                 calibration blocks, a larger device, or the CPU",
                needed as f64 / 1e9
            ),
            fixed => f.write_str(fixed.text()),
        }
    }
}

impl Remedy {
    /// What is the same in all cases; of a remedy with a number, what it is without.
    fn text(self) -> &'static str {
        match self {
            Self::FewerExperts { .. } => "remove fewer experts",
            Self::MoreExperts { .. } => "remove more experts",
            Self::FewerExpertsOrNoProtection => {
                "remove fewer experts or do not protect super experts"
            }
            Self::LargerTotal => {
                "raise the total, remove fewer experts, or give both the same share to remove \
                 experts only"
            }
            Self::Spread(BudgetSpread::Uniform) => {
                "have every layer keep the same number of experts"
            }
            Self::Spread(BudgetSpread::Global) => "let layers keep different numbers of experts",
            Self::MoreSubsets => "allow more subsets, or rank or group experts instead",
            Self::PruneOrDropExtra => "have the layers behind the decoder's pruned or dropped",
            Self::DropExtra => "have the layers behind the decoder's dropped",
            Self::WholeExperts => {
                "remove whole experts only: plan the same share of experts and in total, or by a list, \
                 and apply that"
            }
            Self::KeepList => "give the list",
            Self::NoRepair => "leave the repair out",
            Self::Requantise => {
                "have new weights requantised (requantise = true), or leave the repair out"
            }
            Self::MaskOnly => "zero weights by a score, and leave the others as they are",
            Self::SelectOne => "keep one expert of each group",
            Self::ScoreOrWrite => {
                "have a score say which weights go and the others stay as they are, or write the pruned model"
            }
            Self::MicroBatch(_) => "use a smaller micro-batch",
            Self::FewerTokens { .. } => "use fewer or shorter calibration blocks",
            Self::LargerDevice { .. } => {
                "use shorter calibration blocks, a larger device, or the CPU"
            }
            Self::Calibration => "give calibration text",
            Self::IndependentStatistics => {
                "choose experts by statistics of the model as it is (independent)"
            }
            Self::Observation => "observe the model first and give its observation",
            Self::Statistics => {
                "give calibration text, or an observation for statistics of the unpruned model"
            }
            Self::DefaultType => "ask for no other type",
            Self::NotOneDevice => {
                "evaluate on the CPU, or in an engine that spreads a model over several devices"
            }
            Self::ObservationOrNoParts => {
                "give an observation of the model, which can be made in parts, or write the model in one piece"
            }
            Self::NoParts => "write the model in one piece, on one machine",
            Self::ResumeOrDelete => "resume that run, or delete that folder",
        }
    }
}
