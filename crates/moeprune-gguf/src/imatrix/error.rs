//! What can be wrong with an imatrix.

use std::io;

/// Why an imatrix is refused. The caller adds which file it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImatrixError {
    /// The file could not be read, or its copy not be written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It begins as a GGUF file, and is none that can be read.
    #[error(transparent)]
    Header(#[from] crate::Error),
    /// It is no imatrix.
    #[error("it is no imatrix: {0}; give a file that llama-imatrix wrote")]
    Other(String),
    /// It is of the older form, where that is not enough.
    #[error(
        "it is of the older form, which does not say what is of which expert; convert it with \
         `llama-imatrix --in-file FILE -o FILE.gguf`, or collect it again"
    )]
    OlderForm,
    /// It ends within an entry, or goes on after the last one.
    #[error(
        "{place}: expected {expected}, got {got}; the file is cut short or damaged: copy it again"
    )]
    Broken {
        /// Where.
        place: String,
        /// What should be there.
        expected: String,
        /// What is.
        got: String,
    },
    /// A tensor that contradicts the form.
    #[error("tensor `{tensor}`: expected {expected}, got {got}; collect the imatrix again")]
    Tensor {
        /// Which.
        tensor: String,
        /// What it must hold.
        expected: String,
        /// What it holds.
        got: String,
    },
}

impl ImatrixError {
    pub(super) fn tensor(
        tensor: impl Into<String>,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        Self::Tensor { tensor: tensor.into(), expected: expected.into(), got: got.to_string() }
    }
}
