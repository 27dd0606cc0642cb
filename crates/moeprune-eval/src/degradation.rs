//! How texts go wrong beside being wrong: what people report of pruned models beside accuracy.

mod distinct;
mod loops;

use serde::{Deserialize, Serialize};

pub use loops::{LOOP_CHARACTERS, LOOP_REPETITIONS, ends_in_loop};

use self::distinct::Distinct;
use crate::{Answer, Ending, Estimate, EvalReport};

/// What a model's answers are as texts, right or wrong.
///
/// A pruned model may keep most of its accuracy, or its perplexity, and yet not find an end, or repeat itself until it
/// has written all that it may. Each measure is a mean over answers, as they are scored: cut at the request's stop
/// strings.
///
/// | measure | of one answer |
/// |---|---|
/// | [`ended`](Self::ended) | 1 if the model ended it: by a stop string or a token that ends a text; 0 if it was cut off |
/// | [`looping`](Self::looping) | 1 if it [ends in a loop](ends_in_loop) |
/// | [`distinct_4`](Self::distinct_4) | different groups of four words next to each other, over all such groups |
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Degradation {
    /// How many answers there are.
    pub n: usize,
    /// The share that the model ended by itself. None unless it is [known](crate::Generator::endings) of each.
    pub ended: Option<Estimate>,
    /// The share that ends in a loop.
    pub looping: Estimate,
    /// The mean share of different groups of four words, over the answers that have four words; 1 where nothing is
    /// repeated. None if no answer has.
    pub distinct_4: Option<Estimate>,
    /// The same of all answers together, a group in two answers being the same one. It falls with the number of answers,
    /// so that only equally many compare. This is how Li et al. (2016, "A Diversity-Promoting Objective Function for
    /// Neural Conversation Models") count, who divide by the number of words.
    pub distinct_4_pooled: Option<f64>,
}

impl Degradation {
    /// The measures of some answers; nothing if there are none.
    ///
    /// ```
    /// # use moeprune_eval::{Degradation, Ending};
    /// let looping = "and so on ".repeat(10);
    /// let texts = [("It is 18 eggs, I think", Some(Ending::EndOfText)), (&looping, Some(Ending::Length))];
    /// let found = Degradation::of(texts).unwrap();
    /// assert_eq!((found.ended.unwrap().mean, found.looping.mean), (0.5, 0.5));
    /// // 3 of 3 groups, and 3 of 27.
    /// assert!((found.distinct_4.unwrap().mean - (1.0 + 3.0 / 27.0) / 2.0).abs() < 1e-12);
    /// ```
    pub fn of<'a>(answers: impl IntoIterator<Item = (&'a str, Option<Ending>)>) -> Option<Self> {
        let share = |is: bool| f64::from(u8::from(is));
        let (mut ended, mut looping, mut distinct) = (Some(Vec::new()), Vec::new(), Vec::new());
        let mut pooled = Distinct::<4>::default();
        for (text, ending) in answers {
            match (&mut ended, ending) {
                (Some(ended), Some(ending)) => ended.push(share(ending.is_by_itself())),
                _ => ended = None,
            }
            looping.push(share(ends_in_loop(text)));
            let mut own = Distinct::<4>::default();
            own.add(text);
            distinct.extend(own.share());
            pooled.add(text);
        }
        Some(Self {
            n: looping.len(),
            looping: Estimate::of(&looping)?,
            ended: ended.as_deref().and_then(Estimate::of),
            distinct_4: Estimate::of(&distinct),
            distinct_4_pooled: pooled.share(),
        })
    }
}

impl EvalReport {
    /// What the answers are as texts; nothing of a report without answers that a model wrote, as of multiple choice.
    pub fn degradation(&self) -> Option<Degradation> {
        let written = self.answers.iter().filter(|answer| answer.choices.is_empty());
        Degradation::of(written.map(|Answer { output, ended, .. }| (&**output, *ended)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        answers: &[(&str, Option<Ending>)],
        expected: Option<(Option<f64>, f64, Option<f64>)>,
    ) {
        let found = Degradation::of(answers.iter().copied()).map(|found| {
            assert_eq!(found.n, answers.len());
            let mean = |estimate: Estimate| estimate.mean;
            (found.ended.map(mean), found.looping.mean, found.distinct_4.map(mean))
        });
        assert_eq!(found, expected, "{answers:?}");
    }

    #[test]
    fn measures_of_answers() {
        use Ending::{EndOfText, Length, Stop};
        let looping = "no way out ".repeat(8);
        check(&[], None);
        check(&[("", None)], Some((None, 0.0, None)));
        check(&[("18", Some(Stop)), ("17", Some(EndOfText))], Some((Some(1.0), 0.0, None)));
        check(&[("18", Some(Stop)), ("17", Some(Length))], Some((Some(0.5), 0.0, None)));
        // One that is not known leaves the share open.
        check(&[("18", Some(Stop)), ("17", None)], Some((None, 0.0, None)));
        check(&[(&looping, Some(Length))], Some((Some(0.0), 1.0, Some(3.0 / 21.0))));
        check(&[("a b c d", Some(Stop)), ("a", Some(Stop))], Some((Some(1.0), 0.0, Some(1.0))));
    }

    #[test]
    fn answers_that_are_alike_count_once_in_all() {
        let texts = ["a b c d", "a b c d", "a b c d e"];
        let found = Degradation::of(texts.map(|text| (text, None))).unwrap();
        assert_eq!(found.distinct_4.map(|share| share.mean), Some(1.0));
        assert_eq!(found.distinct_4_pooled, Some(0.5));
    }
}
