//! What a family's descriptor says before any model is opened.

use moeprune_core::ExtraPolicy;

use super::Family;

/// What a family's descriptor says of its models, as far as it is the same for all of them.
///
/// ```
/// use moeprune_checkpoint::{ExpertStorage, Family};
///
/// let facts = Family::builtin("gpt_oss").expect("built in").facts();
/// assert_eq!(facts.attention, ["grouped"]);
/// assert_eq!(facts.router, "softmax");
/// assert_eq!(facts.storage, ExpertStorage::Fused);
/// assert!(facts.runs());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FamilyFacts {
    /// The kinds of attention, as descriptors name them, each once; several if layers may differ.
    pub attention: Vec<&'static str>,
    /// The kind of router, as descriptors name it.
    pub router: &'static str,
    /// Whether the router may select groups of experts first.
    pub groups: bool,
    /// Whether the activation of MLPs is known.
    pub activation: bool,
    /// How files hold the experts of a layer.
    pub storage: ExpertStorage,
    /// Whether every token goes through shared experts too.
    pub shared: bool,
    /// Whether there may be layers without experts.
    pub dense: bool,
    /// Whether there may be an MLP beside the experts.
    pub residual: bool,
    /// What pruning does with layers behind the decoder's; `None` if the family has none.
    pub extra: Option<ExtraPolicy>,
}

/// How files hold the experts of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "what a descriptor can say")]
pub enum ExpertStorage {
    /// A tensor for each matrix of each expert.
    Separate,
    /// All experts of a layer in one tensor for each kind of matrix.
    Fused,
    /// Either of the two, as the files of a model have it.
    Either,
}

impl FamilyFacts {
    /// Whether models can be run, and not only cut.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.activation && self.router != "opaque" && !self.attention.contains(&"opaque")
    }
}

impl Family {
    /// What the descriptor says of every model of the family.
    #[must_use]
    pub fn facts(&self) -> FamilyFacts {
        let family = &self.descriptor;
        let experts = &family.experts;
        FamilyFacts {
            attention: family.attention.kinds(),
            router: family.router.kind(),
            groups: family.router.has_groups(),
            activation: family.model.activation.is_some(),
            storage: match (&experts.tensors, &experts.fused) {
                (Some(_), Some(_)) => ExpertStorage::Either,
                (None, Some(_)) => ExpertStorage::Fused,
                (_, None) => ExpertStorage::Separate,
            },
            shared: !family.shared.is_empty(),
            dense: family.dense.is_some(),
            residual: family.residual.is_some(),
            extra: family.extra.as_ref().map(|extra| extra.policy.into()),
        }
    }
}
