//! What can be wrong with a tokenizer's files.

/// What makes a `tokenizer.json` of any tokenizer that transformers loads.
pub(crate) const WITH_TRANSFORMERS: &str =
    "in Python, transformers.AutoTokenizer.from_pretrained(MODEL).save_pretrained(MODEL)";

/// Why a tokenizer could not be made or used. The message names the file; where the files lie, the caller knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// None of the files that a tokenizer is made of.
    #[error(
        "there is no {expected}; text needs one. Put the model's tokenizer.json there, or pass a token file: JSON lines of \
         {{\"tokens\": [..]}}"
    )]
    Missing {
        /// The names that were looked for.
        expected: &'static str,
    },
    /// A file that cannot be used.
    #[error("{file} {problem}")]
    File {
        /// Its name.
        file: &'static str,
        /// What is wrong in it, where, and what to do.
        problem: String,
    },
    /// A form of tokenizer that is not read.
    #[error(
        "{file} is {what}, which is not read here; save it once as tokenizer.json, beside it: {remedy}"
    )]
    Unsupported {
        /// The file.
        file: &'static str,
        /// What it holds.
        what: String,
        /// How to make a `tokenizer.json`.
        remedy: &'static str,
    },
    /// The tokenizer refused a text.
    #[error("the tokenizer failed at byte {at} of the text: {problem}")]
    Encode {
        /// Where in the text the part begins that it was given.
        at: u64,
        /// What it said.
        problem: String,
    },
    /// Two parts of a text do not fit together, though they did before.
    #[error(
        "the tokenizer cannot take this text in pieces: around byte {at} it gives other tokens when more text follows; pass \
         the text as one document per line of JSON"
    )]
    Joint {
        /// Where the parts meet.
        at: u64,
    },
}

impl Error {
    pub(crate) fn file(file: &'static str, problem: impl Into<String>) -> Self {
        Self::File { file, problem: problem.into() }
    }
}
