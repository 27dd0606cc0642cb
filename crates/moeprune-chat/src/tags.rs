//! Tags that the engine does not know, taken out of a template's source.
//!
//! transformers adds `{% generation %}` … `{% endgeneration %}` around what an assistant wrote. The
//! tags print nothing and open a scope, as `{% with %}` does, so they become that. All else,
//! line numbers included, stays as it is.

/// Rewrites the tags that are to be ignored.
pub(crate) fn without_generation(source: &str) -> String {
    let mut rewritten = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        let (text, tail) = rest.split_at(start);
        rewritten.push_str(text);
        let length = length_of_markup(tail);
        let (markup, after) = tail.split_at(length);
        match name_in_tag(markup) {
            Some("generation") => rewritten.push_str(&markup.replacen("generation", "with", 1)),
            Some("endgeneration") => {
                rewritten.push_str(&markup.replacen("endgeneration", "endwith", 1));
            }
            Some("raw") => {
                rewritten.push_str(markup);
                let raw = length_of_raw(after);
                rewritten.push_str(&after[..raw]);
                rest = &after[raw..];
                continue;
            }
            _ => rewritten.push_str(markup),
        }
        rest = after;
    }
    rewritten.push_str(rest);
    rewritten
}

/// How long the tag, expression or comment is that begins here; 1 if none does.
fn length_of_markup(source: &str) -> usize {
    match source.as_bytes().get(1) {
        Some(b'#') => source[2..].find("#}").map_or(source.len(), |end| end + 4),
        Some(b'%') => length_of_code(source, "%}"),
        Some(b'{') => length_of_code(source, "}}"),
        _ => 1,
    }
}

/// Up to the end mark that is neither in a string nor in brackets.
fn length_of_code(source: &str, end: &str) -> usize {
    let bytes = source.as_bytes();
    let (mut at, mut depth) = (2, 0_usize);
    while at < bytes.len() {
        if depth == 0 && source[at..].starts_with(end) {
            return at + 2;
        }
        match bytes[at] {
            quote @ (b'"' | b'\'') => at += length_of_string(&bytes[at..], quote),
            b'(' | b'[' | b'{' => {
                depth += 1;
                at += 1;
            }
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += source[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    source.len()
}

fn length_of_string(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    // A backslash may be the last byte, or stand before a character of several.
    (at + 1).min(bytes.len())
}

/// The only word of a tag, if it has one alone.
fn name_in_tag(markup: &str) -> Option<&str> {
    let inner = markup.strip_prefix("{%")?.strip_suffix("%}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    Some(inner.trim())
}

/// How long the text is up to the tag that ends it, without that tag.
fn length_of_raw(source: &str) -> usize {
    let mut tags = source.match_indices("{%").map(|(start, _)| start);
    tags.find(|&start| ends_raw(&source[start + 2..])).unwrap_or(source.len())
}

fn ends_raw(tag: &str) -> bool {
    let tag = tag.strip_prefix(['-', '+']).unwrap_or(tag).trim_start();
    let Some(tag) = tag.strip_prefix("endraw") else { return false };
    let tag = tag.trim_start();
    tag.strip_prefix(['-', '+']).unwrap_or(tag).starts_with("%}")
}

#[cfg(test)]
mod tests {
    use super::without_generation;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(without_generation(source), expected);
    }

    #[test]
    fn rewritten() {
        check("a{% generation %}b{% endgeneration %}c", "a{% with %}b{% endwith %}c");
        check("{%- generation -%}\n{%-endgeneration+%}", "{%- with -%}\n{%-endwith+%}");
        check("{%generation%}é{%\nendgeneration\n%}", "{%with%}é{%\nendwith\n%}");
    }

    #[test]
    fn left_alone() {
        for source in [
            "generation {generation} { % generation % }",
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{% endraw %}",
            "{{ '{% generation %}' }}",
            "{% set x = \"%}{% generation %}\" %}",
            "{% if generation %}{% endif %}",
            "{{ {'a': {'}}{% generation %}': 1}} }}",
            "{% generation",
            "{{ 'é\\",
            "{{ '\\é' }}",
            "{#}{% generation %}#}",
            "{% raw %}{%{%- endraw -%}",
            "{",
        ] {
            check(source, source);
        }
    }
}
