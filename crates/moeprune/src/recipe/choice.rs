//! Choices of a recipe that are one of a few names.

use std::fmt;

use moeprune_core::ExtraPolicy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One of a few values, each with a name and a sentence about it: what a command line lists.
pub trait Choice: Copy + PartialEq + 'static {
    /// Every value with its name, as recipes spell it, and what it means.
    const ALL: &'static [(Self, &'static str, &'static str)];

    /// The value with this name.
    #[must_use]
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, other, _)| *other == name).map(|(value, ..)| *value)
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($variant:ident, $text:literal, $about:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[non_exhaustive]
        pub enum $name { $(#[doc = $about] #[serde(rename = $text)] $variant),+ }

        impl Choice for $name {
            const ALL: &'static [(Self, &'static str, &'static str)] =
                &[$((Self::$variant, $text, $about)),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),+ })
            }
        }
    };
}

choice! {
    /// How removed experts are spread over the layers.
    Budget {
        Uniform, "uniform", "Every layer keeps the same number: what serving engines can load";
        Global, "global", "One threshold over all layers, as in the published code";
    }
}
choice! {
    /// How several observations are weighed against each other.
    Domains {
        Blend, "blend", "By the weights given with them";
        MaxMin, "max-min", "So that the text of which the survivors keep least keeps most";
    }
}
choice! {
    /// How a row's share is rounded to whole weights.
    RowRounding {
        Exact, "exact", "Rows round so that the matrix meets its ratio";
        Floor, "floor", "Every row rounds down, as in the published code";
    }
}
choice! {
    /// What an expert gets that no calibration token reached.
    IdleExperts {
        Magnitude, "magnitude", "Pruned by magnitude at the same ratio";
        Dense, "dense", "Left as it is, so the total is missed";
    }
}
choice! {
    /// Where input statistics come from.
    Statistics {
        Sequential, "sequential", "Inputs that went through the pruned layers before";
        Stored, "stored", "An observation of the unpruned model";
    }
}
choice! {
    /// What sums experts are chosen by.
    ExpertStatistics {
        Independent, "independent", "Those of the model as it is";
        Sequential, "sequential", "Of each layer those on inputs that went through the layers before it without the experts that these lost";
    }
}

impl ExpertStatistics {
    /// Whether it is what recipes mean that do not say it.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::Independent
    }

    pub(super) fn default_choice() -> Self {
        Self::Independent
    }
}

choice! {
    /// What becomes of layers behind the decoder's (multi-token prediction).
    Mtp {
        Prune, "prune", "They lose experts until they have as many as the decoder's layers, by router distance";
        Keep, "keep", "They are copied as they are; refused where engines could not load that";
        Drop, "drop", "They are left out, and the config says that there are none";
    }
}

impl From<Mtp> for ExtraPolicy {
    fn from(mtp: Mtp) -> Self {
        match mtp {
            Mtp::Prune => Self::Prune,
            Mtp::Keep => Self::Keep,
            Mtp::Drop => Self::Drop,
        }
    }
}
