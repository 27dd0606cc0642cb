//! When two answers count as the same.

/// Whether a prediction and a reference agree once both are normalised as GSM8K's harness task
/// has it: delete every `,`, then every `$`, then all up to and including the last `#### `, then
/// one final full stop; lower-case; compare as strings.
///
/// Strings, not numbers: `18.0` is not `18`, and `018` is not either.
///
/// ```
/// # use moeprune_eval::exact_match;
/// assert!(exact_match("$1,000.", "10 * 100 = 1000\n#### 1,000"));
/// assert!(!exact_match("18.0", "#### 18"));
/// ```
pub fn exact_match(prediction: &str, reference: &str) -> bool {
    normalise(prediction) == normalise(reference)
}

fn normalise(text: &str) -> String {
    // The order matters: a comma or a dollar sign within `#### ` must be gone before it is sought.
    let bare = text.replace([',', '$'], "");
    let answer = match bare.rfind(MARKER) {
        Some(start) => &bare[start + MARKER.len()..],
        None => &bare,
    };
    without_final_stop(answer).to_lowercase()
}

const MARKER: &str = "#### ";

/// Python's `\.$` also matches a full stop before a final newline, and leaves the newline.
fn without_final_stop(text: &str) -> String {
    let (line, newline) = match text.strip_suffix('\n') {
        Some(line) => (line, "\n"),
        None => (text, ""),
    };
    match line.strip_suffix('.') {
        Some(line) => format!("{line}{newline}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(normalise(text), expected, "{text:?}");
    }

    #[test]
    fn normalises_as_the_harness_does() {
        check("18", "18");
        check("$1,234.", "1234");
        check("18..", "18.");
        check("18.\n", "18\n");
        check("18.\n\n", "18.\n\n");
        check("18\n.", "18\n");
        check(".", "");
        check("", "");
        check("9 + 9 = 18\n#### 18", "18");
        check("#### 1\n#### 2", "2");
        check("##,## 18", "18");
        check("####$ 18", "18");
        check("###### 18", "18");
        check("####18", "####18");
        check("[INVALID]", "[invalid]");
        check("#### ", "");
    }
}
