//! Which model an observation or a plan is of.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::Error;

/// Hashes of what a model is, and of how it is stored.
///
/// As text they stand one after the other with a `+` between, each `sha256:` and 64 hexadecimal
/// digits; that of the routers alone is last, with `routers:` in place of `sha256:`, or `routers-only:` of a model
/// in a format that names its other tensors differently (GGUF), which is known to others by these. `stored:` and the
/// number of tensors per element type stand between, for people. The first
/// decides whether an observation or a plan belongs to a model; a third, where there is one, tells routers that
/// differ by rounding from others. Version 0.1.0 wrote a single hash; only the checkpoint itself can tell whether that is its own.
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
    pub routers: Option<RoutersHash>,
    /// In which element types the tensors are; `None` in files of versions that did not write it. It decides
    /// nothing.
    pub stored: Option<StoredTensors>,
}

/// How many tensors a model has in each element type, in the order of the types' names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct StoredTensors(pub BTreeMap<String, u64>);

impl StoredTensors {
    fn from_text(text: &str) -> Option<Self> {
        let all = text.split(',').filter(|entry| !entry.is_empty()).map(|entry| {
            let (dtype, count) = entry.split_once('=')?;
            Some((dtype.to_owned(), count.parse().ok()?))
        });
        all.collect::<Option<_>>().map(Self)
    }

    fn to_text(&self) -> String {
        let entries = self.0.iter().map(|(dtype, count)| format!("{dtype}={count}"));
        entries.collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for StoredTensors {
    /// `288 BF16 and 3 F32 tensors`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
        let one = self.0.values().sum::<u64>() == 1;
        let tensors = if one { "tensor" } else { "tensors" };
        match all.split_last() {
            None => write!(f, "no tensors"),
            Some((last, [])) => write!(f, "{last} {tensors}"),
            Some((last, first)) => write!(f, "{} and {last} {tensors}", first.join(", ")),
        }
    }
}

/// What a model's routers are, under any names of the rest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a hash and what it is for")]
pub struct RoutersHash {
    /// Of the routers.
    pub hash: String,
    /// Whether the model's other parts are called differently from how models in numbers or in codes call
    /// them, so that it is known by its routers.
    pub decides: bool,
}

/// What the text of the routers' hash begins with, and if they decide.
const ROUTERS: [&str; 2] = ["routers:", "routers-only:"];

/// What the text of the element types begins with.
const STORED: &str = "stored:";

impl RoutersHash {
    fn from_text(text: &str) -> Option<Self> {
        let [beside, alone] = ROUTERS.map(|begin| text.strip_prefix(begin));
        let hash = beside.or(alone)?.to_owned();
        Some(Self { hash, decides: alone.is_some() })
    }

    /// Whether one of them is of a model that is known by its routers, and these are the other's.
    fn tells(&self, other: &Self) -> bool {
        self.hash == other.hash && (self.decides || other.decides)
    }
}

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

    /// How a model that is [stored otherwise](SameModel::StoredOtherwise) differs in that from this one, to follow
    /// "the same model, ".
    ///
    /// ```
    /// # use moeprune_core::Fingerprint;
    /// let (there, here) = ("m+s+stored:BF16=9", "m+t+stored:F32=9,I64=1");
    /// let differs = Fingerprint::difference(there, here);
    /// assert_eq!(differs, "stored as 9 BF16 tensors, where this one is 9 F32 and 1 I64 tensors");
    /// ```
    #[must_use]
    pub fn difference(there: &str, here: &str) -> String {
        let stored = |text: &str| text.parse::<Self>().ok().and_then(|of| of.stored);
        match (stored(there), stored(here)) {
            (Some(there), Some(here)) if there != here => {
                format!("stored as {there}, where this one is {here}")
            }
            (Some(_), Some(_)) => "stored under other tensor names".to_owned(),
            _ => "stored under other tensor names or in other element types".to_owned(),
        }
    }

    fn compare_with(&self, other: &Self) -> SameModel {
        let alike = || {
            let both = self.routers.as_ref().zip(other.routers.as_ref());
            both.is_some_and(|(mine, theirs)| mine.tells(theirs))
        };
        let rounded = |of: &Self| of.rounded.clone().unwrap_or_else(|| of.model.clone());
        match (self.model == other.model, self.storage == other.storage) {
            (true, true) => SameModel::Yes,
            (true, false) => SameModel::StoredOtherwise,
            (false, _) if rounded(self) == rounded(other) => SameModel::RoutersRounded,
            (false, _) if alike() => SameModel::RoutersAlike,
            (false, _) => SameModel::No,
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.model, self.storage)?;
        self.rounded.iter().try_for_each(|rounded| write!(f, "+{rounded}"))?;
        let stored = self.stored.iter();
        stored.map(StoredTensors::to_text).try_for_each(|text| write!(f, "+{STORED}{text}"))?;
        let routers = self.routers.iter();
        routers
            .map(|of| (ROUTERS[usize::from(of.decides)], &of.hash))
            .try_for_each(|(begin, hash)| write!(f, "+{begin}{hash}"))
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (hashes, routers) = last_of(text, RoutersHash::from_text);
        let (hashes, stored) =
            last_of(hashes, |last| StoredTensors::from_text(last.strip_prefix(STORED)?));
        let mut parts = hashes.split('+');
        let mut part = || parts.next().map(str::to_owned);
        let (model, storage, rounded) = (part(), part(), part());
        match (model, storage, part()) {
            (Some(model), Some(storage), None) if !model.is_empty() => {
                Ok(Self { model, storage, rounded, routers, stored })
            }
            _ => Err(Error::Fingerprint(text.to_owned())),
        }
    }
}

/// What the last part of a text is, and what stands before it; all of it if it is something else.
fn last_of<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> (&str, Option<T>) {
    let last = text.rsplit_once('+').and_then(|(before, last)| Some((before, read(last)?)));
    last.map_or((text, None), |(before, last)| (before, Some(last)))
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
        check("m+s+routers:x", "n+t+routers:x", SameModel::No);
        check("m+s+routers:x", "n+t+routers-only:x", SameModel::RoutersAlike);
        check("m+s+routers-only:x", "n+t+routers-only:x", SameModel::RoutersAlike);
        check("m+s+routers-only:x", "m+t+routers-only:x", SameModel::StoredOtherwise);
        check("m+s+r+routers:x", "n+t+r+routers:x", SameModel::RoutersRounded);
        check("m+s+routers:x", "n+t+routers-only:y", SameModel::No);
        check("m+s+routers:x", "n+t", SameModel::No);
        check("m+s+stored:BF16=1", "m+s", SameModel::Yes);
        check("m+s+stored:BF16=1", "m+s+stored:BF16=2", SameModel::Yes);
        check("m+s+stored:BF16=1+routers:x", "m+t+stored:F32=1", SameModel::StoredOtherwise);
        check("m+s+r+stored:BF16=1+routers:x", "n+t+r+routers:x", SameModel::RoutersRounded);
    }

    #[test]
    fn text_and_back() {
        let routers = [None, Some(false), Some(true)];
        for (rounded, routers) in routers.into_iter().flat_map(|r| [(None, r), (Some("r"), r)]) {
            let (model, storage) = ("m".to_owned(), "s".to_owned());
            let rounded = rounded.map(str::to_owned);
            let routers = routers.map(|decides| RoutersHash { hash: "x".into(), decides });
            for stored in [None, Some(stored(&[])), Some(stored(&[("BF16", 2), ("F32", 1)]))] {
                let (model, storage, rounded) = (model.clone(), storage.clone(), rounded.clone());
                let routers = routers.clone();
                let fingerprint = Fingerprint { model, storage, rounded, routers, stored };
                assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
            }
        }
        let bad = ["m", "+s", "m+s+t+u", "m+routers:x", "m+s+t+stored:BF16", "m+s+t+stored:F32=x"];
        for bad in bad {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }

    fn stored(counts: &[(&str, u64)]) -> StoredTensors {
        StoredTensors(counts.iter().map(|(dtype, count)| ((*dtype).to_owned(), *count)).collect())
    }

    #[test]
    fn what_is_stored_otherwise() {
        let check = |there, here, expected| {
            assert_eq!(Fingerprint::difference(there, here), expected);
        };
        check("m+s+stored:BF16=9", "m+t+stored:BF16=9", "stored under other tensor names");
        let more = "stored as 1 BF16 tensor, where this one is 1 BF16 and 1 F32 tensors";
        check("m+s+stored:BF16=1", "m+t+stored:BF16=1,F32=1+routers:x", more);
        let unknown = "stored under other tensor names or in other element types";
        check("m+s", "m+t+stored:BF16=9", unknown);
        check("m", "m+t+stored:BF16=9", unknown);
        assert_eq!(stored(&[("A", 1), ("B", 2), ("C", 3)]).to_string(), "1 A, 2 B and 3 C tensors");
    }
}
