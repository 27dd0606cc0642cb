//! Which model an observation or a plan is of.

use std::{fmt, str::FromStr};

use crate::Error;

/// Hashes of what a model is, and of how it is stored.
///
/// As text they stand one after the other with a `+` between, each `sha256:` and 64 hexadecimal
/// digits; that of the routers alone is last, with `routers:` in place of `sha256:`. The first decides whether
/// an observation or a plan belongs to a model; a third, where there is one, tells routers that differ by
/// rounding from others. Routers alone tell a model in a format that names its other tensors differently
/// (GGUF). Version 0.1.0 wrote a single hash; only the checkpoint itself can tell whether that is its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "the parts there are")]
pub struct Fingerprint {
    /// Of all parts with their shapes, and of the routers' values.
    pub model: String,
    /// Of tensor names, element types and the routers' bytes.
    pub storage: String,
    /// As `model`, with the routers' values rounded to bf16; `None` if that changes nothing.
    pub rounded: Option<String>,
    /// Of nothing but the routers' places, shapes, and values rounded to bf16; `None` in files of versions
    /// that did not write it.
    pub routers: Option<String>,
}

/// What the text of the routers' hash begins with.
const ROUTERS: &str = "routers:";

/// How two fingerprints compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "all outcomes")]
pub enum SameModel {
    /// One model, stored alike.
    Yes,
    /// One model, stored under other names or in other element types.
    StoredOtherwise,
    /// One model but for the routers, whose values are the same only when rounded to bf16.
    RoutersRounded,
    /// Models whose routers are the same in number, shape and, rounded to bf16, values, and whose other parts
    /// are named or shaped otherwise: one of them may be in a format that does so.
    RoutersAlike,
    /// Different models.
    No,
}

impl Fingerprint {
    /// Compares two fingerprints as files hold them.
    #[must_use]
    pub fn compare(a: &str, b: &str) -> SameModel {
        if a == b {
            return SameModel::Yes;
        }
        match (a.parse::<Self>(), b.parse::<Self>()) {
            (Ok(a), Ok(b)) => a.compare_with(&b),
            _ => SameModel::No,
        }
    }

    fn compare_with(&self, other: &Self) -> SameModel {
        let rounded = |of: &Self| of.rounded.clone().unwrap_or_else(|| of.model.clone());
        match (self.model == other.model, self.storage == other.storage) {
            (true, true) => SameModel::Yes,
            (true, false) => SameModel::StoredOtherwise,
            (false, _) if rounded(self) == rounded(other) => SameModel::RoutersRounded,
            (false, _) if self.routers.is_some() && self.routers == other.routers => {
                SameModel::RoutersAlike
            }
            (false, _) => SameModel::No,
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.model, self.storage)?;
        self.rounded.iter().try_for_each(|rounded| write!(f, "+{rounded}"))?;
        self.routers.iter().try_for_each(|routers| write!(f, "+{ROUTERS}{routers}"))
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let all = text.rsplit_once('+').and_then(|(all, last)| Some((all, last.strip_prefix(ROUTERS)?)));
        let (hashes, routers) = all.map_or((text, None), |(all, last)| (all, Some(last.to_owned())));
        let mut parts = hashes.split('+');
        let mut part = || parts.next().map(str::to_owned);
        let (model, storage, rounded) = (part(), part(), part());
        match (model, storage, part()) {
            (Some(model), Some(storage), None) if !model.is_empty() => {
                Ok(Self { model, storage, rounded, routers })
            }
            _ => Err(Error::Fingerprint(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(a: &str, b: &str, expected: SameModel) {
        assert_eq!(Fingerprint::compare(a, b), expected, "{a} {b}");
        assert_eq!(Fingerprint::compare(b, a), expected, "{b} {a}");
    }

    #[test]
    fn the_model_part_decides() {
        check("m+s", "m+s", SameModel::Yes);
        check("m+s", "m+t", SameModel::StoredOtherwise);
        check("m+s", "n+s", SameModel::No);
        check("m", "m", SameModel::Yes);
        check("m", "m+s", SameModel::No);
        check("", "+s", SameModel::No);
        check("m+s+r", "m+s", SameModel::Yes);
        check("m+s+r", "m+t", SameModel::StoredOtherwise);
        check("m+s+r", "n+t+r", SameModel::RoutersRounded);
        check("m+s+r", "r+s", SameModel::RoutersRounded);
        check("m+s+r", "n+s+q", SameModel::No);
        check("m+s+r", "n+s", SameModel::No);
        check("m+s+routers:x", "m+s", SameModel::Yes);
        check("m+s+routers:x", "n+t+routers:x", SameModel::RoutersAlike);
        check("m+s+r+routers:x", "n+t+r+routers:x", SameModel::RoutersRounded);
        check("m+s+routers:x", "n+t+routers:y", SameModel::No);
        check("m+s+routers:x", "n+t", SameModel::No);
    }

    #[test]
    fn text_and_back() {
        for (rounded, routers) in [(None, None), (Some("r"), None), (None, Some("x")), (Some("r"), Some("x"))] {
            let own = |text: Option<&str>| text.map(str::to_owned);
            let (model, storage) = ("m".to_owned(), "s".to_owned());
            let fingerprint =
                Fingerprint { model, storage, rounded: own(rounded), routers: own(routers) };
            assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
        }
        for bad in ["m", "+s", "m+s+t+u", "m+routers:x"] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
