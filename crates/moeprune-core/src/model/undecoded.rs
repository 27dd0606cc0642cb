//! Weights that are stored in a form that is not decoded.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::TensorId;

/// A weight that is not decoded, as the files have it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Undecoded {
    /// Which; `None` if that is of no matter, all being alike.
    pub part: Option<TensorId>,
    /// What the form is called: `EXL3`.
    pub form: String,
    /// What is missing, or contradicts itself, of a form that is decoded elsewhere; to be read after the form
    /// and "but".
    pub lacks: Option<String>,
}

impl Undecoded {
    /// A form that nothing decodes.
    #[must_use]
    pub fn form(form: impl Into<String>) -> Self {
        Self { part: None, form: form.into(), lacks: None }
    }

    /// What is stored so, with the verb.
    #[must_use]
    pub fn what(&self) -> String {
        match self.part {
            Some(TensorId::Layer(layer, tensor)) if tensor.expert().is_some() => {
                format!("experts of layer {layer} (first {tensor}) are")
            }
            Some(part) => format!("the {part} is"),
            None => "weights are".to_owned(),
        }
    }
}

/// The form, and why it is not decoded.
impl fmt::Display for Undecoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.lacks {
            None => write!(f, "{}, which is not decoded yet", self.form),
            Some(lacks) => write!(f, "{}, but {lacks}", self.form),
        }
    }
}

/// As the name of the form.
impl Serialize for Undecoded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.form)
    }
}
