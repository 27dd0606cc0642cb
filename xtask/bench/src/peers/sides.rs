//! Who else prunes, and how.

use clap::ValueEnum;

/// Who else prunes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Peer {
    /// llm-compressor, from PyPI.
    LlmCompressor,
    /// What the authors of REAP published, from a checkout.
    Reap,
}

/// How a model is pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Method {
    /// A share of the experts by REAP.
    Reap,
    /// A share of each row by Wanda.
    Wanda,
    /// A share by SparseGPT.
    Sparsegpt,
}

impl Peer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::LlmCompressor => "llm-compressor",
            Self::Reap => "reap",
        }
    }

    pub(super) fn script(self) -> &'static str {
        match self {
            Self::LlmCompressor => include_str!("llm_compressor.py"),
            Self::Reap => include_str!("reap_observer.py"),
        }
    }

    pub(super) fn has(self, method: Method) -> bool {
        self == Self::LlmCompressor || method == Method::Reap
    }
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reap => "reap",
            Self::Wanda => "wanda",
            Self::Sparsegpt => "sparsegpt",
        }
    }

    /// Ways in which this program does it: a name, and options.
    pub(super) fn ours(self, share: f64) -> Vec<(&'static str, Vec<String>)> {
        let text = |options: String| options.split(' ').map(str::to_owned).collect();
        let experts = |statistics| {
            text(format!(
                "--recipe reap --repair none --sparsity {share} --expert-sparsity {share} --expert-statistics {statistics}"
            ))
        };
        let weights = |scorer| {
            text(format!(
                "--repair none --sparsity {share} --expert-sparsity 0 --scorer {scorer} --allocation uniform"
            ))
        };
        match self {
            Self::Reap => {
                vec![("independent", experts("independent")), ("sequential", experts("sequential"))]
            }
            Self::Wanda => vec![("sequential", weights("wanda"))],
            Self::Sparsegpt => vec![("sequential", weights("sparsegpt"))],
        }
    }
}
