//! What is not as expected, as one line says it.

use std::{
    fmt::{self, Display},
    path::{Path, PathBuf},
};

/// Something that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// The file, relative to the record; empty until it is known.
    file: PathBuf,
    /// Key, tensor or byte; empty for the whole file.
    pub(super) at: String,
    expected: String,
    got: String,
}

impl Difference {
    pub(super) fn new(at: impl Into<String>, expected: impl Display, got: impl Display) -> Self {
        let [expected, got] = [shortened(&expected), shortened(&got)];
        Self { file: PathBuf::new(), at: at.into(), expected, got }
    }

    /// The same, in a part of the file.
    pub(super) fn below(self, part: &str) -> Self {
        Self { at: format!("{part}: {}", self.at), ..self }
    }

    pub(super) fn in_file(self, file: &Path) -> Self {
        Self { file: file.to_owned(), ..self }
    }
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, at, expected, got } = self;
        let at = if at.is_empty() { String::new() } else { format!(" {at}:") };
        write!(f, "{}:{at} expected {expected}, got {got}", file.display())
    }
}

/// A value, cut off where a line would get too long.
fn shortened(value: &impl Display) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_off() {
        assert_eq!(shortened(&"é".repeat(60)), "é".repeat(60));
        assert_eq!(shortened(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }
}
