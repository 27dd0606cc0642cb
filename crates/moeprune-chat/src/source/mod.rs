/*!
A template's source made ready for the engine. Line numbers stay as they are.

* `{% generation %}` … `{% endgeneration %}`, which transformers adds, prints nothing and opens a scope: it becomes
  `{% with %}`.
* Lists, tuples and dictionaries are made by functions ([`names`]), and what is put into a variable passes through one.
  The engine's fuel counts instructions, and one instruction may compare or print a value that few steps have made
  exponentially large, or nested deeper than the stack. What these functions make is limited and counted.
* Jinja's unary plus, bare tuples in `for` and Python's escapes in strings are written so that the engine knows them, and a
  newline after `{% raw %}` stays.
*/

mod code;
mod markup;
mod rewrite;
mod strings;

pub(crate) use self::rewrite::names;

use self::markup::{Segment, segments};

/// The most tokens that a tag may have, ten times as many as are known: the engine parses long
/// expressions recursively.
const MOST_TOKENS: usize = 600;
/// How deep brackets may be nested in each other.
const MOST_BRACKETS: usize = 50;
/// The most `elif` that a template may have, ten times as many as are known.
const MOST_ELIF: usize = 200;

/// What is wrong with a source, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) line: usize,
    pub(crate) reason: String,
}

/// The source for the engine.
pub(crate) fn prepare(source: &str) -> Result<String, Problem> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut prepared = String::with_capacity(source.len() * 2);
    let (mut line, mut elifs) = (1, 0);
    for segment in segments(&source) {
        let problem = |reason| Problem { line, reason };
        match segment {
            Segment::Text(text) => prepared.push_str(text),
            Segment::Open(rest) => {
                let begin: String = rest.chars().take(20).collect();
                return Err(problem(format!("what begins with `{begin}` does not end")));
            }
            Segment::Code { open, code, close } => {
                let tokens = code::tokens(code);
                check(code, &tokens).map_err(problem)?;
                elifs += usize::from(code.trim_start().starts_with("elif"));
                if elifs > MOST_ELIF {
                    return Err(problem(format!("more than {MOST_ELIF} `elif`")));
                }
                prepared.push_str(open);
                let behind = match open.starts_with("{%") {
                    true => rewrite::tag(&tokens, &mut prepared),
                    false => rewrite::output(&tokens, &mut prepared),
                };
                prepared.push_str(close);
                for argument in behind {
                    let held = names::HELD;
                    prepared.push_str(&format!("{{%- set {argument} = {held}({argument}) {close}"));
                }
            }
            Segment::Raw { open, text, close } => {
                prepared.push_str(open);
                // The engine trims a newline here, as behind all other tags; Jinja does not.
                if text.starts_with('\n') && !open.ends_with("-%}") {
                    prepared.push('\n');
                }
                prepared.push_str(text);
                prepared.push_str(close);
            }
        }
        line += segment.lines();
    }
    Ok(prepared)
}

/// What a tag or an expression must not be.
fn check(code: &str, tokens: &[code::Token<'_>]) -> Result<(), String> {
    if tokens.len() > MOST_TOKENS {
        return Err(format!("a tag or expression of more than {MOST_TOKENS} words and signs"));
    }
    if code::depth(tokens) > MOST_BRACKETS {
        return Err(format!("brackets are nested more than {MOST_BRACKETS} deep"));
    }
    if code.contains(names::RESERVED) {
        return Err(format!("names with `{}` are reserved", names::RESERVED));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
