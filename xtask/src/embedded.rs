//! Where the embedded model is.

use std::path::{Path, PathBuf};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// The embedded model's directory.
pub(crate) fn model() -> PathBuf {
    root().join("assets/nano")
}

/// Its test set: 500 problems.
pub(crate) fn test_set() -> PathBuf {
    model().join("data/test.jsonl")
}

/// Its calibration text.
pub(crate) fn calibration() -> PathBuf {
    model().join("data/calibration.jsonl")
}

/// Its held-out text, for perplexity.
pub(crate) fn held_out() -> PathBuf {
    model().join("data/heldout.txt")
}
