//! Solved examples before a question, chosen as the harness chooses them.

use super::{
    ChoiceData, ChoiceTask, Record,
    description::Draw,
    question::{Question, Reader},
};
use crate::{Error, PythonRandom};

/// The harness's default seed for drawing examples.
const SEED: u64 = 1234;

impl ChoiceTask {
    /// The questions of some data as they are scored, with `shots` solved examples before each.
    ///
    /// Examples depend on the question's place: a limited run has the first questions of a full one.
    ///
    /// # Errors
    /// If there are too few examples, or a record has other fields than the task reads, or no answer among its choices.
    pub fn questions(&self, data: &ChoiceData, shots: usize) -> Result<Vec<Question>, Error> {
        self.first_questions(data, data.questions.len(), shots)
    }

    pub(super) fn first_questions(
        &self,
        data: &ChoiceData,
        limit: usize,
        shots: usize,
    ) -> Result<Vec<Question>, Error> {
        let mut random = PythonRandom::new(SEED);
        let subject = data.subject.as_deref();
        let ask = |record: &Record| {
            let reader = Reader::new(self, subject, record);
            let mut before = reader.description()?;
            for example in self.examples(data, record, shots, &mut random)? {
                before += &Reader::new(self, subject, example).texts()?.solved(self);
            }
            Ok(reader.texts()?.question(self, &before))
        };
        data.questions.iter().take(limit).map(ask).collect()
    }

    fn examples<'d>(
        &self,
        data: &'d ChoiceData,
        question: &Record,
        shots: usize,
        random: &mut PythonRandom,
    ) -> Result<Vec<&'d Record>, Error> {
        if shots == 0 {
            return Ok(Vec::new());
        }
        let all: Vec<&Record> = data.examples.iter().collect();
        let is_other =
            |record: &&Record| !self.fewshot.leave_out_question || record.fields != question.fields;
        let too_few = |needed: usize, given: usize| Error::TooFewExamples {
            task: match &data.subject {
                Some(subject) => format!("{} ({subject})", self.name),
                None => self.name.clone(),
            },
            needed,
            given,
            split: self.data.fewshot_split.as_deref().unwrap_or("train").into(),
        };
        let others = || all.iter().copied().filter(|record| is_other(record));
        if self.fewshot.draw == Draw::First {
            let first: Vec<&Record> = others().take(shots).collect();
            return if first.len() == shots { Ok(first) } else { Err(too_few(shots, first.len())) };
        }
        // The harness draws one more, so that the question itself can be left out.
        let drawn = shots + usize::from(self.fewshot.leave_out_question);
        let sample = random.sample(all.len(), drawn).ok_or_else(|| too_few(drawn, all.len()))?;
        let found: Vec<&Record> =
            sample.into_iter().map(|index| all[index]).filter(is_other).take(shots).collect();
        if found.len() == shots {
            return Ok(found);
        }
        let others: Vec<&Record> = others().collect();
        let sample =
            random.sample(others.len(), shots).ok_or_else(|| too_few(shots, others.len()))?;
        Ok(sample.into_iter().map(|index| others[index]).collect())
    }
}
