//! Which model an observation or a plan is of.

use std::{fmt, str::FromStr};

use crate::Error;

/// Two hashes: of what a model is, and of how it is stored.
///
/// As text they stand one after the other with a `+` between, each `sha256:` and 64 hexadecimal
/// digits. The first decides whether an observation or a plan belongs to a model. Version 0.1.0
/// wrote a single hash; only the checkpoint itself can tell whether that is its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "the two parts there are")]
pub struct Fingerprint {
    /// Of all parts with their shapes, and of the routers' values.
    pub model: String,
    /// Of tensor names, element types and the routers' bytes.
    pub storage: String,
}

/// How two fingerprints compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "all outcomes")]
pub enum SameModel {
    /// One model, stored alike.
    Yes,
    /// One model, stored under other names or in other element types.
    StoredOtherwise,
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
            (Ok(a), Ok(b)) if a.model == b.model => SameModel::StoredOtherwise,
            _ => SameModel::No,
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.model, self.storage)
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('+') {
            Some((model, storage)) if !model.is_empty() && !storage.contains('+') => {
                Ok(Self { model: model.to_owned(), storage: storage.to_owned() })
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
    }

    #[test]
    fn text_and_back() {
        let fingerprint = Fingerprint { model: "m".into(), storage: "s".into() };
        assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
        assert!("m+s+t".parse::<Fingerprint>().is_err());
    }
}
