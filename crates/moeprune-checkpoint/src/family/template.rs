//! Tensor names with the layer and the expert left open.

use crate::Error;

/// A name such as `model.layers.{layer}.experts.{expert}.w1.weight`, in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Layer,
    Expert,
}

/// The numbers in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Indices {
    pub(super) layer: Option<usize>,
    pub(super) expert: Option<usize>,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let bad = |reason: String| Err(Error::Descriptor { reason });
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            if open > 0 {
                pieces.push(Piece::Text(rest[..open].to_owned()));
            }
            let Some(close) = rest[open..].find('}') else {
                return bad(format!("template `{text}` has a brace that is not closed"));
            };
            pieces.push(match &rest[open + 1..open + close] {
                "layer" => Piece::Layer,
                "expert" => Piece::Expert,
                other => {
                    return bad(format!(
                        "template `{text}` has `{{{other}}}`; only {{layer}} and {{expert}} exist"
                    ));
                }
            });
            rest = &rest[open + close + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        let adjacent = |pair: &[Piece]| !pair.iter().any(|p| matches!(p, Piece::Text(_)));
        if pieces.windows(2).any(adjacent) {
            return bad(format!("template `{text}` has two numbers with nothing between"));
        }
        Ok(Self { pieces })
    }

    /// Checks that each placeholder is there exactly once, or not at all.
    pub(super) fn check(&self, layer: bool, expert: bool) -> Result<(), Error> {
        for (piece, what, wanted) in
            [(Piece::Layer, "{layer}", layer), (Piece::Expert, "{expert}", expert)]
        {
            let got = self.pieces.iter().filter(|p| **p == piece).count();
            if got != usize::from(wanted) {
                let shown = self.shown();
                let often = if wanted { "once" } else { "not" };
                let reason = format!("template `{shown}` must have {what} {often}, has it {got}x");
                return Err(Error::Descriptor { reason });
            }
        }
        Ok(())
    }

    /// The name with the numbers filled in.
    pub(super) fn name(&self, indices: Indices) -> String {
        let number = |n: Option<usize>| n.unwrap_or_default().to_string();
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Layer => number(indices.layer),
            Piece::Expert => number(indices.expert),
        };
        self.pieces.iter().map(text).collect()
    }

    /// The numbers that make this name of the template. Numbers are as they would be written:
    /// no leading zeros, no sign.
    pub(super) fn indices(&self, name: &str) -> Option<Indices> {
        let mut indices = Indices::default();
        self.take(name, &mut indices)?.is_empty().then_some(indices)
    }

    /// Takes the template off the beginning of a name and returns what follows.
    fn take<'a>(&self, name: &'a str, indices: &mut Indices) -> Option<&'a str> {
        let mut rest = name;
        for piece in &self.pieces {
            let place = match piece {
                Piece::Text(text) => {
                    rest = rest.strip_prefix(text.as_str())?;
                    continue;
                }
                Piece::Layer => &mut indices.layer,
                Piece::Expert => &mut indices.expert,
            };
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let digits = &rest[..end];
            if digits.len() > 1 && digits.starts_with('0') {
                return None;
            }
            *place = Some(digits.parse().ok()?);
            rest = &rest[end..];
        }
        Some(rest)
    }

    /// The beginning of the template up to the expert's number; `None` if it has none.
    pub(super) fn up_to_expert(&self) -> Option<Self> {
        let end = self.pieces.iter().position(|piece| *piece == Piece::Expert)?;
        Some(Self { pieces: self.pieces[..=end].to_vec() })
    }

    /// The numbers that make this template of the beginning of a name, and what follows.
    pub(super) fn begins<'a>(&self, name: &'a str) -> Option<(Indices, &'a str)> {
        let mut indices = Indices::default();
        let rest = self.take(name, &mut indices)?;
        Some((indices, rest))
    }

    fn shown(&self) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Layer => "{layer}".to_owned(),
            Piece::Expert => "{expert}".to_owned(),
        };
        self.pieces.iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, name: &str, expected: Option<(Option<usize>, Option<usize>)>) {
        let template = Template::parse(template).expect("parses");
        let got = template.indices(name);
        assert_eq!(got.map(|i| (i.layer, i.expert)), expected, "{name}");
        if let Some(indices) = got {
            assert_eq!(template.name(indices), name);
        }
    }

    #[test]
    fn names_are_taken_apart() {
        let t = "l.{layer}.e.{expert}.w";
        check(t, "l.0.e.12.w", Some((Some(0), Some(12))));
        check(t, "l.10.e.0.w", Some((Some(10), Some(0))));
        check(t, "l.01.e.0.w", None);
        check(t, "l.+1.e.0.w", None);
        check(t, "l..e.0.w", None);
        check(t, "l.1.e.0.w2", None);
        check(t, "l.1.e.0.", None);
        check(t, "l.99999999999999999999999.e.0.w", None);
        check(t, "l.é.e.0.w", None);
        check("a.weight", "a.weight", Some((None, None)));
        check("a.weight", "b.weight", None);
        check("{layer}", "7", Some((Some(7), None)));
    }

    #[test]
    fn bad_templates_are_refused() {
        for bad in ["a.{layer", "a.{lay}", "{layer}{expert}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        let t = Template::parse("a.{layer}.{layer}").expect("parses");
        let message = t.check(true, false).expect_err("twice").to_string();
        assert!(message.contains("must have {layer} once, has it 2x"), "{message}");
    }
}
