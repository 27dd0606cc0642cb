//! How a choice is made of log-likelihoods.

use crate::LogLikelihood;

/// A rule for which choice is the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChoiceMetric {
    /// `acc`: the likeliest.
    Likeliest,
    /// `acc_norm`: the likeliest by character.
    PerCharacter,
    /// `acc_bytes`: the likeliest by byte of UTF-8.
    PerByte,
}

impl ChoiceMetric {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Likeliest, Self::PerCharacter, Self::PerByte];

    /// The harness's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Likeliest => "acc",
            Self::PerCharacter => "acc_norm",
            Self::PerByte => "acc_bytes",
        }
    }

    /// Which choice it is; the first among equals. Lengths are those of the choices' texts, without the delimiter.
    pub(super) fn chosen(self, choices: &[String], scores: &[LogLikelihood]) -> usize {
        let length = |text: &String| match self {
            Self::Likeliest => 1,
            Self::PerCharacter => text.chars().count(),
            Self::PerByte => text.len(),
        };
        let values =
            choices.iter().zip(scores).map(|(text, score)| score.sum / length(text) as f64);
        let mut best = (0, f64::NEG_INFINITY);
        for (index, value) in values.enumerate() {
            if value > best.1 {
                best = (index, value);
            }
        }
        best.0
    }
}
