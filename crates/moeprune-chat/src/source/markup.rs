//! A template cut into text, tags and expressions.

/// A piece of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    /// Text, comments, and what is no template.
    Text(&'a str),
    /// A tag or an expression, between its marks, whose signs for white space belong to them.
    Code { open: &'a str, code: &'a str, close: &'a str },
    /// What begins as code or a comment, or as raw text, and does not end.
    Open(&'a str),
    /// Text between `{% raw %}` and `{% endraw %}`.
    Raw { open: &'a str, text: &'a str, close: &'a str },
}

impl Segment<'_> {
    /// How many lines end in it.
    pub(super) fn lines(&self) -> usize {
        let all = match self {
            Self::Text(text) | Self::Open(text) => [*text, "", ""],
            Self::Code { open, code, close } => [*open, *code, *close],
            Self::Raw { open, text, close } => [*open, *text, *close],
        };
        all.iter().map(|part| part.matches('\n').count()).sum()
    }
}

/// The pieces in order.
pub(super) fn segments(source: &str) -> Vec<Segment<'_>> {
    let mut segments = Vec::new();
    let (mut begun, mut at) = (0, 0);
    while let Some(start) = source[at..].find('{').map(|found| at + found) {
        let rest = &source[start..];
        let segment = match rest.as_bytes().get(1) {
            Some(b'#') => comment(rest),
            Some(b'%') => code(rest, "%}"),
            Some(b'{') => code(rest, "}}"),
            _ => {
                at = start + 1;
                continue;
            }
        };
        let (segment, length) = match segment {
            Some((segment, length)) if is_raw(segment) => raw(rest, length),
            Some(closed) => closed,
            None => (Segment::Open(rest), rest.len()),
        };
        if begun < start {
            segments.push(Segment::Text(&source[begun..start]));
        }
        segments.push(segment);
        at = start + length;
        begun = at;
    }
    if begun < source.len() {
        segments.push(Segment::Text(&source[begun..]));
    }
    segments
}

fn is_raw(segment: Segment<'_>) -> bool {
    matches!(segment, Segment::Code { open, code, .. } if open.starts_with("{%") && code.trim() == "raw")
}

/// The comment that begins here, and how long it is.
fn comment(rest: &str) -> Option<(Segment<'_>, usize)> {
    let end = rest[2..].find("#}")? + 4;
    Some((Segment::Text(&rest[..end]), end))
}

/// The code that begins here, up to the mark that is neither in a string nor in brackets, and how
/// long it is with its marks.
fn code<'a>(rest: &'a str, end: &str) -> Option<(Segment<'a>, usize)> {
    let bytes = rest.as_bytes();
    let (mut at, mut depth) = (2, 0_usize);
    while at < bytes.len() {
        if depth == 0 && rest.is_char_boundary(at) && rest[at..].starts_with(end) {
            return Some((marked(&rest[..at + 2]), at + 2));
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
            _ => at += 1,
        }
    }
    None
}

/// How many bytes a string takes, or as many as there are if it has no end.
pub(super) fn length_of_string(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Code with its marks, cut at them.
fn marked(whole: &str) -> Segment<'_> {
    let is_sign = |at: usize| matches!(whole.as_bytes().get(at), Some(b'-' | b'+'));
    let length = whole.len();
    let open = if is_sign(2) && length > 4 { 3 } else { 2 };
    // A plus before `}}` is an operator without a right side, for Jinja too.
    let sign =
        is_sign(length - 3) && (whole.starts_with("{%") || whole.as_bytes()[length - 3] == b'-');
    let close = if sign && length - 3 >= open { length - 3 } else { length - 2 };
    let plus_opens_output = whole.starts_with("{{+");
    let open = if plus_opens_output { 2 } else { open };
    Segment::Code { open: &whole[..open], code: &whole[open..close], close: &whole[close..] }
}

/// Everything up to the end of `{% endraw %}`, and how long it is.
fn raw(rest: &str, open: usize) -> (Segment<'_>, usize) {
    let inner = &rest[open..];
    let mut tags = inner.match_indices("{%").map(|(start, _)| start);
    let found = tags.find_map(|start| Some((start, length_of_end(&inner[start + 2..])? + 2)));
    let Some((text, close)) = found else { return (Segment::Open(rest), rest.len()) };
    let whole = open + text + close;
    let segment = Segment::Raw {
        open: &rest[..open],
        text: &inner[..text],
        close: &inner[text..text + close],
    };
    (segment, whole)
}

/// How long the rest of `{% endraw %}` is, if this is one.
fn length_of_end(tag: &str) -> Option<usize> {
    let rest = tag.strip_prefix(['-', '+']).unwrap_or(tag).trim_start();
    let rest = rest.strip_prefix("endraw")?.trim_start();
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
    Some(tag.len() - rest.len())
}
