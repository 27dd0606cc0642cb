//! How entries of quantisation configs select modules, as the programs that read them do.

use fancy_regex::Regex;

/// Who reads an entry, and so how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// compressed-tensors: a module's whole name, or `re:` and what `re.match` receives.
    CompressedTensors,
    /// transformers: the beginning of a name as a regular expression, or its end.
    Transformers,
    /// AutoAWQ: anything that a name contains.
    Substring,
    /// Model-Optimizer: a whole name, a module above it, or a pattern with `*`, `?` and `[…]`.
    Glob,
    /// AutoRound: a whole name, or a regular expression that is found anywhere.
    AutoRound,
    /// GPTQModel: a sign and what `re.match` receives.
    Signed,
    /// optimum: the end of a name.
    End,
    /// Quark and others: any of `re:`, a whole name, a module above it, or a pattern with `*`.
    Any,
    /// A place that no reader here is known for: whole names.
    Exact,
}

/// An entry, ready to be held against names.
#[derive(Debug)]
pub(super) enum Pattern {
    /// The whole name.
    Exact(String),
    /// The whole name, or of a module above.
    Path(String),
    /// The beginning, in which a dot is any character, or the end.
    BeginOrEnd(String),
    Contains(String),
    End(String),
    Regex(Regex),
    /// A regular expression, or the name's end.
    RegexOrEnd(Regex, String),
}

/// Whether a text is the name of a module, with nothing in it that patterns are made of.
pub(super) fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.chars().all(plain)
}

impl Dialect {
    /// The entry as a pattern.
    ///
    /// # Errors
    /// What is wrong with its regular expression.
    pub(super) fn pattern(self, entry: &str) -> Result<Pattern, String> {
        let whole = || entry.to_owned();
        Ok(match self {
            Self::Exact => Pattern::Exact(whole()),
            Self::Substring => Pattern::Contains(whole()),
            Self::End => Pattern::End(whole()),
            Self::Signed => Pattern::Regex(from_begin(entry, unsigned(entry).1)?),
            Self::CompressedTensors => match entry.strip_prefix("re:") {
                Some(regex) => Pattern::Regex(from_begin(entry, regex)?),
                None => Pattern::Exact(whole()),
            },
            Self::Transformers if is_plain(entry) => Pattern::BeginOrEnd(whole()),
            Self::Transformers => match from_begin(entry, entry) {
                Ok(regex) => Pattern::RegexOrEnd(regex, whole()),
                Err(_) => Pattern::BeginOrEnd(whole()),
            },
            Self::AutoRound if entry.contains(REGEX) => Pattern::Regex(compile(entry, entry)?),
            Self::AutoRound => Pattern::Exact(whole()),
            Self::Glob | Self::Any => match entry.strip_prefix("re:") {
                Some(regex) => Pattern::Regex(from_begin(entry, regex)?),
                None if entry.contains(['*', '?', '[']) => Pattern::Regex(glob(entry)?),
                None => Pattern::Path(whole()),
            },
        })
    }

    /// An entry that selects one module only, in place of `entry`.
    pub(super) fn one(self, entry: &str, module: &str) -> String {
        match self {
            Self::Signed => {
                let escaped = module.replace('.', "\\.");
                format!("{}^{escaped}$", unsigned(entry).0)
            }
            _ => module.to_owned(),
        }
    }
}

/// What makes a text a regular expression to AutoRound.
const REGEX: [char; 13] = ['*', '+', '?', '^', '$', '(', ')', '[', ']', '{', '}', '|', '\\'];

/// The sign of an entry, and what follows it.
fn unsigned(entry: &str) -> (&str, &str) {
    let signed = entry.starts_with("+:") || entry.starts_with("-:");
    entry.split_at(if signed { 2 } else { 0 })
}

fn from_begin(entry: &str, regex: &str) -> Result<Regex, String> {
    compile(entry, &format!(r"\A(?:{regex})"))
}

fn compile(entry: &str, regex: &str) -> Result<Regex, String> {
    Regex::new(regex).map_err(|e| {
        format!(
            "`{entry}` is no regular expression that can be read ({e}), so that it cannot be said \
             which experts it means after some are gone; correct it, or name the modules"
        )
    })
}

/// A pattern of Python's `fnmatch`.
fn glob(entry: &str) -> Result<Regex, String> {
    let mut regex = String::from(r"\A");
    let mut rest = entry.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' if rest.as_str().chars().skip(1).any(|c| c == ']') => {
                let set: String = rest.by_ref().take_while(|&c| c != ']').collect();
                let set =
                    set.strip_prefix('!').map_or_else(|| set.clone(), |rest| format!("^{rest}"));
                regex.push_str(&format!("[{}]", set.replace('\\', r"\\")));
            }
            c if c.is_ascii_alphanumeric() || c == '_' => regex.push(c),
            c => regex.extend(['\\', c]),
        }
    }
    regex.push_str(r"\z");
    compile(entry, &regex)
}

impl Pattern {
    /// Whether it selects a module of this name.
    ///
    /// # Errors
    /// If a regular expression takes too long.
    pub(super) fn selects(&self, name: &str) -> Result<bool, String> {
        let is = |regex: &Regex| {
            regex.is_match(name).map_err(|e| format!("`{}` on `{name}`: {e}", regex.as_str()))
        };
        Ok(match self {
            Self::Exact(entry) => name == entry,
            Self::Path(entry) => name
                .strip_prefix(entry.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
            Self::BeginOrEnd(entry) => begins(name, entry) || name.ends_with(entry.as_str()),
            Self::Contains(entry) => name.contains(entry.as_str()),
            Self::End(entry) => name.ends_with(entry.as_str()),
            Self::Regex(regex) => is(regex)?,
            Self::RegexOrEnd(regex, end) => name.ends_with(end.as_str()) || is(regex)?,
        })
    }
}

/// Whether a name begins with another in which a dot is any character.
fn begins(name: &str, with: &str) -> bool {
    let same = |(name, with): (u8, u8)| name == with || with == b'.';
    name.len() >= with.len() && name.bytes().zip(with.bytes()).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(dialect: Dialect, entry: &str, name: &str, expected: bool) {
        let pattern = dialect.pattern(entry).expect("is a pattern");
        assert_eq!(pattern.selects(name), Ok(expected), "{dialect:?} {entry}: {name}");
    }

    const UP: &str = "model.layers.1.mlp.experts.12.up_proj";

    #[test]
    fn each_reader_has_its_own_rule() {
        use Dialect::{
            Any, AutoRound, CompressedTensors, End, Exact, Glob, Signed, Substring, Transformers,
        };
        check(CompressedTensors, UP, UP, true);
        check(CompressedTensors, "model.layers.1.mlp", UP, false);
        check(CompressedTensors, "re:.*experts", UP, true);
        check(CompressedTensors, "re:experts", UP, false);
        check(CompressedTensors, "re:(?!.*experts).*", UP, false);
        check(CompressedTensors, "re:(?!.*router).*", UP, true);
        check(Transformers, "model.layers.1", UP, true);
        check(Transformers, "model.layers.1.mlp.experts.1", UP, true);
        check(Transformers, "up_proj", UP, true);
        check(Transformers, "mlp.experts", UP, false);
        check(Transformers, "*up_proj", UP, false);
        check(Transformers, "model.layers.*.up", UP, true);
        check(Substring, "experts.12", UP, true);
        check(Substring, "experts.2", UP, false);
        check(Glob, "model.layers.1.mlp*", UP, true);
        check(Glob, "model.layers.1.mlp.experts", UP, true);
        check(Glob, "model.layers.1.ml", UP, false);
        check(Glob, "*experts.[!2]?.*", UP, true);
        check(Glob, "*experts.[2-9]?.*", UP, false);
        check(Glob, "*[", UP, false);
        check(AutoRound, "experts", UP, false);
        check(AutoRound, r"experts\.1", UP, true);
        check(Signed, "-:.*experts", UP, true);
        check(Signed, "experts", UP, false);
        check(End, "12.up_proj", UP, true);
        check(Any, "model.layers.1", UP, true);
        check(Any, "re:.*up", UP, true);
        check(Exact, "model.layers.1", UP, false);
    }

    #[test]
    fn expressions_that_are_none() {
        let check = |dialect: Dialect, entry: &str| {
            let message = dialect.pattern(entry).expect_err("is none");
            assert!(message.contains(&format!("`{entry}`")), "{message}");
        };
        check(Dialect::CompressedTensors, "re:(experts");
        check(Dialect::Signed, "-:*experts");
        check(Dialect::AutoRound, "experts[");
        check(Dialect::Any, "re:[");
    }
}
