//! Names of the tensors in an observation file.

use std::fmt;

use moeprune_core::LinearId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) layer: usize,
    pub(super) field: Field,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Routing(RoutingField),
    Input(LinearId, InputField),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RoutingField {
    Tokens,
    TopK,
    Counts,
    Coactivation,
    GateSums,
    GatedOutputNorms,
    OutputNorms,
    OutputPeaks,
    OutputSums,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum InputField {
    Tokens,
    Calls,
    SumSquares,
}

impl RoutingField {
    pub(super) const ALL: [Self; 9] = [
        Self::Tokens,
        Self::TopK,
        Self::Counts,
        Self::Coactivation,
        Self::GateSums,
        Self::GatedOutputNorms,
        Self::OutputNorms,
        Self::OutputPeaks,
        Self::OutputSums,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::TopK => "top_k",
            Self::Counts => "counts",
            Self::Coactivation => "coactivation",
            Self::GateSums => "gate_sums",
            Self::GatedOutputNorms => "gated_output_norms",
            Self::OutputNorms => "output_norms",
            Self::OutputPeaks => "output_peaks",
            Self::OutputSums => "output_sums",
        }
    }
}

impl InputField {
    const ALL: [Self; 3] = [Self::Tokens, Self::Calls, Self::SumSquares];

    fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Calls => "calls",
            Self::SumSquares => "sum_squares",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, field } = self;
        match field {
            Field::Routing(field) => write!(f, "layer.{layer}.routing.{}", field.as_str()),
            Field::Input(site, field) => write!(f, "layer.{layer}.input.{site}.{}", field.as_str()),
        }
    }
}

impl Name {
    /// Only the one spelling that [`Display`](fmt::Display) gives.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (layer, rest) = name.strip_prefix("layer.")?.split_once('.')?;
        let (part, rest) = rest.split_once('.')?;
        let field = match part {
            "routing" => {
                Field::Routing(RoutingField::ALL.into_iter().find(|f| f.as_str() == rest)?)
            }
            "input" => {
                let (site, field) = rest.rsplit_once('.')?;
                let site: LinearId = site.parse().ok()?;
                let field = InputField::ALL.into_iter().find(|f| f.as_str() == field)?;
                Field::Input(site, field)
            }
            _ => return None,
        };
        let parsed = Self { layer: layer.parse().ok()?, field };
        (parsed.to_string() == name).then_some(parsed)
    }
}
