//! From an answer's log-probabilities to one number.

use moeprune_eval::LogLikelihood;

use crate::{
    AnswerProblem, Endpoint, Error,
    answer::{Choice, LogProbabilities},
};

/// Rounding may put a certain token's log-probability this far above 0.
const ROUNDING: f64 = 1e-3;

/// A text's tokens: how many belong to the context, and how many there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Part {
    pub(super) context: usize,
    pub(super) tokens: usize,
}

/// How many tokens the prompt of a choice has by the server's count: all but the one that was generated.
pub(super) fn prompt_tokens(endpoint: &Endpoint, choice: &Choice) -> Result<usize, Error> {
    let found = match &choice.log_probabilities {
        LogProbabilities::Tokens { values, .. } if values.len() > 1 => {
            return match values[0] {
                None => Ok(values.len() - 1),
                Some(value) => {
                    Err(endpoint.wrong(AnswerProblem::First { value: value.to_string() }))
                }
            };
        }
        LogProbabilities::Tokens { .. } => "`token_logprobs` of the new token alone",
        LogProbabilities::None => "no `logprobs`",
        LogProbabilities::Other(found) => found,
    };
    let (url, found) = (endpoint.url().to_owned(), found.to_owned());
    Err(Error::NoPromptLogProbabilities { url, found })
}

/// The log-likelihood of what follows the context. The first token of a text has no log-probability, and the last
/// one is the token that was generated.
pub(super) fn sum_of(choice: &Choice, part: Part) -> Result<LogLikelihood, AnswerProblem> {
    let Part { context, tokens } = part;
    let LogProbabilities::Tokens { values, largest, .. } = &choice.log_probabilities else {
        return Err(AnswerProblem::TokenCount { found: 0, expected: tokens });
    };
    if values.len() != tokens + 1 || largest.len() != values.len() {
        return Err(AnswerProblem::TokenCount { found: values.len(), expected: tokens });
    }
    let (mut sum, mut is_greedy) = (0.0, true);
    for place in context..tokens {
        let token = place + 1;
        let value = values[place].ok_or(AnswerProblem::Null { token, tokens })?;
        if value > ROUNDING {
            return Err(AnswerProblem::AboveZero { token, tokens, value: value.to_string() });
        }
        let largest = largest[place].ok_or(AnswerProblem::NoLikeliest { token, tokens })?;
        sum += value.min(0.0);
        is_greedy &= value >= largest;
    }
    Ok(LogLikelihood::new(sum, tokens - context, is_greedy))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn choice(values: &[Option<f64>], largest: &[Option<f64>]) -> Choice {
        Choice::of_tokens(values.to_vec(), largest.to_vec())
    }

    #[test]
    fn sums_over_the_continuation() {
        let check = |context: usize,
                     values: &[Option<f64>],
                     largest: &[Option<f64>],
                     expected: (f64, bool)| {
            let part = Part { context, tokens: values.len() - 1 };
            let found = sum_of(&choice(values, largest), part).unwrap();
            let expected = LogLikelihood::new(expected.0, part.tokens - context, expected.1);
            assert_eq!(found, expected, "{values:?}");
        };
        let all = [None, Some(-1.0), Some(-2.0), Some(-4.0), Some(-8.0)];
        check(1, &all, &all, (-7.0, true));
        check(2, &all, &all, (-6.0, true));
        check(3, &all, &all, (-4.0, true));
        let best = [None, Some(-0.5), Some(-2.0), Some(-4.0), Some(-8.0)];
        check(1, &all, &best, (-7.0, false));
        check(2, &all, &best, (-6.0, true));
        // The generated token does not count, nor does rounding above 0.
        check(1, &[None, Some(1e-9), None], &[None, Some(0.0), None], (0.0, true));
    }

    #[test]
    fn what_is_not_scored() {
        let check = |values: &[Option<f64>], largest: &[Option<f64>], expected: &str| {
            let said =
                sum_of(&choice(values, largest), Part { context: 1, tokens: 2 }).unwrap_err();
            assert!(said.to_string().contains(expected), "{said}");
        };
        let good = [None, Some(-1.0), Some(-1.0)];
        check(&[None, None, Some(-1.0)], &good, "token 2 of 2 is null");
        check(&[None, Some(0.5), Some(-1.0)], &good, "token 2 of 2 is 0.5, above 0");
        check(&good, &[None, None, None], "likeliest token in place of token 2");
        check(&good[..2], &good[..2], "2 log-probabilities for a text of 2 tokens");
        check(&[None, Some(-1.0), Some(-1.0), Some(-1.0)], &[None; 4], "4 log-probabilities");
        check(&[], &[], "0 log-probabilities");
    }

    proptest! {
        #[test]
        fn any_numbers_are_summed_or_refused(
            values in prop::collection::vec(prop::option::of(any::<f64>()), 0..6),
            largest in prop::collection::vec(prop::option::of(any::<f64>()), 0..6),
            context in 0_usize..6, tokens in 0_usize..6,
        ) {
            prop_assume!(context < tokens);
            if let Ok(found) = sum_of(&choice(&values, &largest), Part { context, tokens }) {
                prop_assert!(found.sum <= 0.0);
                prop_assert_eq!(found.tokens, tokens - context);
                prop_assert_eq!(values.len(), tokens + 1);
            }
        }
    }
}
