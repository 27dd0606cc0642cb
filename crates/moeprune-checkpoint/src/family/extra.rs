//! `[extra]`

use moeprune_core::ExtraPolicy;
use serde::Deserialize;

use super::{
    attention::AttentionForm,
    key::{Count, Key, Sequence},
};
use crate::Error;

/// Layers behind the decoder's: those that predict several tokens at once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtraForm {
    /// What the names of all tensors of such a layer begin with, in place of `layers.prefix`; `{layer}`
    /// counts from 0. Absent: they are numbered on from the decoder's last.
    pub(crate) prefix: Option<String>,
    /// What the names of their other tensors begin with, those that are in none of them.
    #[serde(default)]
    pub(crate) besides: Vec<String>,
    /// How many there are. Of layers with a prefix, where the config does not say, those that are
    /// stored.
    #[serde(default = "nowhere")]
    pub(crate) count: Key<Count>,
    /// What is counted, where that is not single layers: a word with a letter per layer, or a list.
    pub(crate) sequence: Option<Key<Sequence>>,
    /// Their attention, a key of `attention.kinds`; absent: as of the decoder's last layer.
    pub(crate) attention: Option<String>,
    pub(crate) policy: ExtraPolicyForm,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExtraPolicyForm {
    Prune,
    Keep,
    Drop,
}

impl From<ExtraPolicyForm> for ExtraPolicy {
    fn from(form: ExtraPolicyForm) -> Self {
        match form {
            ExtraPolicyForm::Prune => Self::Prune,
            ExtraPolicyForm::Keep => Self::Keep,
            ExtraPolicyForm::Drop => Self::Drop,
        }
    }
}

fn nowhere() -> Key<Count> {
    Key::any_of(&[])
}

impl ExtraForm {
    /// Checks what types cannot: layers without a prefix of their own are counted by the config, and
    /// their attention is one of the decoder's kinds.
    pub(super) fn check(&self, attention: &AttentionForm) -> Result<(), Error> {
        let bad = |reason: String| Err(Error::Descriptor { reason });
        if self.prefix.is_none() && self.count.keys.is_empty() {
            return bad("`extra` needs a `prefix`, or keys for `count`".to_owned());
        }
        match &self.attention {
            Some(kind) if !attention.has_kind(kind) => bad(format!(
                "`extra.attention` is `{kind}`, but there is no `attention.kinds.{kind}`"
            )),
            _ => Ok(()),
        }
    }
}
