//! Among which weights the lowest scores go.

use std::{fmt, str::FromStr};

use moeprune_score::{MaskPattern, NOfM, PerRow};
use serde::{Deserialize, Serialize};

/// The mask pattern: `row`, or `N:M` as in `2:4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[expect(clippy::exhaustive_enums, reason = "the two patterns there are")]
pub enum Pattern {
    /// The lowest of each output row.
    #[default]
    Row,
    /// The `n` lowest of every `m` neighbours, at any requested ratio.
    NOfM(NOfM),
}

impl Pattern {
    /// The stage that marks weights so.
    #[must_use]
    pub fn stage(self) -> Box<dyn MaskPattern> {
        match self {
            Self::Row => Box::new(PerRow),
            Self::NOfM(pattern) => Box::new(pattern),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row => f.write_str("row"),
            Self::NOfM(pattern) => write!(f, "{}:{}", pattern.n(), pattern.m()),
        }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "row" {
            return Ok(Self::Row);
        }
        let bad = || format!("`{text}` is no pattern; write row, or N:M as in 2:4");
        let (n, m) = text.split_once(':').ok_or_else(bad)?;
        let (n, m) = (n.parse().map_err(|_| bad())?, m.parse().map_err(|_| bad())?);
        NOfM::new(n, m).map(Self::NOfM).map_err(|e| e.to_string())
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl schemars::JsonSchema for Pattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^(row|[1-9][0-9]*:[1-9][0-9]*)$" })
    }
}
