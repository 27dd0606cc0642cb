//! How an answer ended.

use serde::{Deserialize, Serialize};

/// Why a generator wrote no more.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "what can end a text")]
pub enum Ending {
    /// It wrote one of the request's stop strings.
    Stop,
    /// It chose a token that ends a text.
    EndOfText,
    /// It wrote as many tokens as it was allowed, and would have gone on.
    Length,
}

impl Ending {
    /// Whether the model ended the answer, and not the number of tokens that it was allowed.
    pub fn is_by_itself(self) -> bool {
        self != Self::Length
    }
}
