//! Words and signs of Jinja's expressions.

use super::markup::length_of_string;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or a keyword.
    Name,
    /// A string or a number.
    Literal,
    /// An opening bracket.
    Open,
    /// A closing bracket.
    Close,
    /// Any other sign.
    Sign,
}

/// A token, and the white space before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) space: &'a str,
    pub(super) kind: Kind,
    pub(super) text: &'a str,
}

const SIGNS_OF_TWO: [&str; 6] = ["==", "!=", ">=", "<=", "//", "**"];

/// The tokens of code. White space at its end is a sign without text.
pub(super) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while !rest.is_empty() {
        let body = rest.trim_start();
        let (space, _) = rest.split_at(rest.len() - body.len());
        let (kind, length) = token(body);
        let (text, after) = body.split_at(length);
        tokens.push(Token { space, kind, text });
        rest = after;
    }
    tokens
}

fn token(body: &str) -> (Kind, usize) {
    let Some(first) = body.chars().next() else { return (Kind::Sign, 0) };
    match first {
        '"' | '\'' => (Kind::Literal, length_of_string(body.as_bytes(), first as u8)),
        '(' | '[' | '{' => (Kind::Open, 1),
        ')' | ']' | '}' => (Kind::Close, 1),
        '0'..='9' => (Kind::Literal, length_of_number(body)),
        _ if is_word(first) => (Kind::Name, body.find(|c: char| !is_word(c)).unwrap_or(body.len())),
        _ if SIGNS_OF_TWO.iter().any(|sign| body.starts_with(sign)) => (Kind::Sign, 2),
        _ => (Kind::Sign, first.len_utf8()),
    }
}

fn is_word(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

/// A number with what belongs to it: `1.5`, `1e-3`, but not `1.items`.
fn length_of_number(body: &str) -> usize {
    let bytes = body.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let next_is_digit = bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        let exponent = matches!(byte, b'+' | b'-') && matches!(bytes[at - 1], b'e' | b'E');
        let goes_on = byte.is_ascii_alphanumeric()
            || byte == b'_'
            || (byte == b'.' && next_is_digit)
            || (exponent && next_is_digit && !body.starts_with("0x"));
        if !goes_on {
            break;
        }
        at += 1;
    }
    at
}

/// For each bracket, where the other one is; for all else, and brackets without one, itself.
pub(super) fn partners(tokens: &[Token<'_>]) -> Vec<usize> {
    let mut partners: Vec<usize> = (0..tokens.len()).collect();
    let mut open: Vec<usize> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Open => open.push(at),
            Kind::Close => {
                if let Some(other) = open.pop() {
                    partners[other] = at;
                    partners[at] = other;
                }
            }
            _ => {}
        }
    }
    partners
}

/// How deep brackets are nested, with those that are not closed.
pub(super) fn depth(tokens: &[Token<'_>]) -> usize {
    let (mut depth, mut most) = (0_usize, 0);
    for token in tokens {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    most
}
