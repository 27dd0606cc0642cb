//! Python's idea of white space.

fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// What `str.strip()` leaves in Python, which also counts the separators U+001C to U+001F.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// What `str.lstrip()` leaves in Python.
pub(crate) fn strip_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// What `str.rstrip()` leaves in Python.
pub(crate) fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(strip(text), expected, "{text:?}");
    }

    #[test]
    fn strips_what_python_strips() {
        check("", "");
        check(" \t\r\n\u{b}\u{c}18 \n", "18");
        check("\u{1c}\u{1d}18\u{1e}\u{1f}", "18");
        check("\u{85}\u{a0}\u{2003}18\u{3000}", "18");
        check("1 8", "1 8");
        check("\u{200b}18\u{feff}", "\u{200b}18\u{feff}"); // neither language counts these
        check("\0 18", "\0 18");
    }
}
