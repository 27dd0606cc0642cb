//! In which form the tensors of a module hold its weight, decoded or not.

use std::{borrow::Cow, fmt};

use serde::{Serialize, Serializer};

use super::{SharedEncoding, config::QuantConfig, module::ModuleTensors};
use crate::{Dtype, Error};

/// In which form a weight is stored, as far as its tensors say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StoredForm {
    /// One number for each weight.
    Numbers(Dtype),
    /// Codes of a format, by the name that people know it by: `NVFP4`.
    Codes(Cow<'static, str>),
    /// A form that is not known: the endings of the tensors' names.
    Unknown(String),
}

impl StoredForm {
    /// Bits of an integer code, if the form's name has them: `GPTQ INT4`.
    pub(super) fn bits(&self) -> Option<u64> {
        let Self::Codes(name) = self else { return None };
        let (_, after) = name.split_once("INT")?;
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        after[..digits].parse().ok()
    }

    /// Codes of a format.
    pub(super) const fn named(name: &'static str) -> Self {
        Self::Codes(Cow::Borrowed(name))
    }
}

impl fmt::Display for StoredForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbers(dtype) => dtype.fmt(f),
            Self::Codes(name) => f.write_str(name),
            Self::Unknown(suffixes) => write!(f, "an unknown form ({suffixes})"),
        }
    }
}

impl Serialize for StoredForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is wrong with a tensor of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Misfit {
    /// What the tensor's name has after the module's: `.weight_scale`.
    pub suffix: String,
    /// Of one that is missing, what else its name may have there in the same format.
    pub others: Vec<&'static str>,
    /// What is wrong, to be read after the tensor's name.
    pub reason: String,
}

impl Misfit {
    pub(super) fn new(suffix: &str, reason: String) -> Self {
        Self { suffix: suffix.to_owned(), others: Vec::new(), reason }
    }
}

/// A format, as its file describes it for [`detect`](super::detect()).
pub(super) struct Format {
    /// What the names of tensors with its codes have after the module's.
    pub(super) codes: &'static [&'static str],
    /// The same of tensors that are of no use without codes.
    pub(super) companions: &'static [&'static str],
    /// In which form the tensors hold a weight, and whether they fit it; `None` of another format.
    pub(super) form: fn(&Held<'_>) -> Option<Result<StoredForm, Misfit>>,
    /// The shape of the weight by the tensors alone, where it is not that of the codes.
    pub(super) shape: fn(&ModuleTensors<'_>) -> Option<Vec<usize>>,
    /// What decodes the weight, or why nothing does; `None` of another format.
    pub(super) encoding: fn(&ModuleTensors<'_>, &QuantConfig) -> Option<Recognised>,
}

/// What decodes a weight, or why nothing does.
pub(super) type Recognised = Result<SharedEncoding, Error>;

/// Tensors, held against the shape of the weight that is to be in them.
pub(super) struct Held<'a> {
    pub(super) module: &'a ModuleTensors<'a>,
    /// What the tensor with the codes is called, its type and shape.
    pub(super) main: (&'a str, Dtype, &'a [usize]),
    pub(super) expected: &'a [usize],
    pub(super) config: &'a QuantConfig,
}

impl<'a> Held<'a> {
    /// Outputs and inputs of a weight whose codes are in a tensor of this name and type.
    pub(super) fn matrix(&self, suffix: &str, dtype: Dtype) -> Option<[usize; 2]> {
        let &[outputs, inputs] = self.expected else { return None };
        (self.main.0 == suffix && self.main.1 == dtype).then_some([outputs, inputs])
    }

    /// The type and shape of a tensor that the codes cannot be read without.
    pub(super) fn needed(&self, suffix: &str) -> Result<(Dtype, &'a [usize]), Misfit> {
        self.module.get(suffix).ok_or_else(|| {
            let main = shown(self.main.0);
            let reason = format!("is missing beside `{main}`, which cannot be read without");
            Misfit::new(suffix, reason)
        })
    }

    /// Checks the shape of a tensor, if there is one of this name.
    pub(super) fn check(&self, suffix: &str, expected: &[usize]) -> Result<(), Misfit> {
        match self.module.get(suffix) {
            Some((_, shape)) if shape != expected => {
                Err(self.misshapen(suffix, &format!("config.json asks for {expected:?}")))
            }
            _ => Ok(()),
        }
    }

    /// Whether there is a tensor besides the one with the codes that is about the weight.
    pub(super) fn has_more(&self) -> bool {
        self.module.suffixes().any(|suffix| suffix != self.main.0 && !says_nothing(suffix))
    }

    pub(super) fn misshapen(&self, suffix: &str, expected: &str) -> Misfit {
        let got = self.module.get(suffix);
        let got = got.map(|(dtype, shape)| format!("{dtype} {shape:?}")).unwrap_or_default();
        Misfit::new(suffix, format!("is {got}, but {expected}"))
    }
}

/// An ending without its dot, for messages.
pub(super) fn shown(suffix: &str) -> &str {
    suffix.strip_prefix('.').unwrap_or(suffix)
}

/// Tensors that a weight can be read without: they are about activations.
const OF_ACTIVATIONS: [&str; 11] = [
    ".input_scale",
    ".activation_scale",
    ".input_global_scale",
    ".input_zero_point",
    ".output_scale",
    ".q_scale",
    ".k_scale",
    ".v_scale",
    ".kv_scale",
    ".k_zero_point",
    ".v_zero_point",
];

/// Biases are beside a weight in any form.
const BIASES: [&str; 2] = [".bias", "_bias"];

/// Whether a tensor of this name says nothing about the weight.
pub(super) fn says_nothing(suffix: &str) -> bool {
    OF_ACTIVATIONS.contains(&suffix) || BIASES.contains(&suffix)
}
