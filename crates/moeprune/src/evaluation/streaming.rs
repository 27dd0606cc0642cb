//! Models larger than memory: how long it takes to ask them, said before it starts.

use moeprune_engine::{AnsweringWork, Progress, StreamingEstimate, StreamingRoom};
use moeprune_eval::{
    AskedQuestions, BoxError, Continuation, ContinuationScorer, EvaluateOptions, LogLikelihood,
};

use super::{
    Evaluated, Evaluation, FoundTask, answering::NativeModel, find_task, read_choice_data,
    read_questions,
};
use crate::Error;

/// Characters of a token, about.
const TOKEN_CHARS: u64 = 4;

/// What share of the tokens that an answer may have it takes, if it is short.
const SHORT: u64 = 8;

/// What receives the estimate of each task before it starts, if experts are read when they are needed.
pub type NoteEstimate<'a> = &'a mut dyn FnMut(&StreamingEstimate);

/// Says how long a task of questions will take, if experts are read when they are needed.
pub(super) fn announce_questions(
    model: Evaluated<'_>,
    what: &Evaluation<'_>,
    native: &mut NativeModel<'_>,
    (note, progress): (NoteEstimate<'_>, &mut dyn Progress),
) -> Result<(), Error> {
    let Some(room) = native.room()? else { return Ok(()) };
    announce(model, native, work(what, &room)?, (note, progress))
}

/// Says how long work will take, of which experts are read when they are needed.
pub(super) fn announce(
    model: Evaluated<'_>,
    native: &mut NativeModel<'_>,
    work: AnsweringWork,
    (note, progress): (NoteEstimate<'_>, &mut dyn Progress),
) -> Result<(), Error> {
    let Some(room) = native.room()? else { return Ok(()) };
    let (need, _) = native.place()?;
    let rates = native.execution().rates();
    let Evaluated { checkpoint, spec, .. } = model;
    let estimate = StreamingEstimate::of(checkpoint, spec, (&need, &room), work, rates);
    progress.note(&need.line(&room));
    progress.note(&estimate.line(rates));
    note(&estimate);
    Ok(())
}

/// About how often all layers are run for a task, before any text is in tokens.
fn work(what: &Evaluation<'_>, room: &StreamingRoom) -> Result<AnsweringWork, Error> {
    let limit = what.limit.unwrap_or(usize::MAX);
    match find_task(what)? {
        FoundTask::Written(task) => {
            let mut documents = read_questions(what.data)?;
            documents.truncate(limit);
            let requests = task.requests(&documents).map_err(Error::stage("questions", None))?;
            let prompts: u64 = requests.iter().map(|r| r.prompt.len() as u64 / TOKEN_CHARS).sum();
            let new = requests.iter().map(|r| r.max_new_tokens as u64).max().unwrap_or(0);
            Ok(written(requests.len() as u64, (prompts, new), what.batch as u64, room))
        }
        FoundTask::Choice(task) => {
            let shots = what.fewshot.unwrap_or_else(|| task.shots());
            let data = read_choice_data(&task, what.data, what.fewshot_data, shots)?;
            let options = EvaluateOptions::default().with_batch(what.batch).with_limit(limit);
            let asked = AskedQuestions::new(&task, what.fewshot, &data, &options)?;
            let mut lengths = Lengths::new(room.pass_tokens as u64);
            asked.evaluate(&mut lengths)?;
            Ok(lengths.work())
        }
    }
}

/// Of `questions` whose prompts have so many tokens together, and each answer so many at most.
fn written(
    questions: u64,
    (prompts, new): (u64, u64),
    batch: u64,
    room: &StreamingRoom,
) -> AnsweringWork {
    let each = prompts / questions.max(1) + new;
    let at_once =
        (room.positions as u64 / each.max(1)).clamp(1, batch.max(1)).min(questions.max(1));
    let rounds = questions.div_ceil(at_once);
    let reading = prompts.div_ceil(room.pass_tokens as u64);
    let most = (rounds * new).max(reading);
    let fewest = (rounds * new.div_ceil(SHORT)).max(reading);
    AnsweringWork {
        fewest_passes: fewest,
        most_passes: most,
        tokens_per_pass: at_once + prompts / most.max(1),
    }
}

/// Counts what a scorer is given.
struct Lengths {
    pass_tokens: u64,
    passes: u64,
    tokens: u64,
}

impl Lengths {
    fn new(pass_tokens: u64) -> Self {
        Self { pass_tokens, passes: 0, tokens: 0 }
    }

    fn work(&self) -> AnsweringWork {
        AnsweringWork {
            fewest_passes: self.passes,
            // What begins alike is run by itself, and choices of several tokens after their contexts.
            most_passes: 2 * self.passes,
            tokens_per_pass: self.tokens / self.passes.max(1),
        }
    }
}

impl ContinuationScorer for Lengths {
    fn score(&mut self, requests: &[Continuation]) -> Result<Vec<LogLikelihood>, BoxError> {
        let same = |a: &Continuation, b: &Continuation| a.context == b.context;
        let (mut contexts, mut choices) = (0, 0);
        for group in requests.chunk_by(same) {
            contexts += group[0].context.len() as u64 / TOKEN_CHARS + 1;
            choices += group.iter().map(|c| c.text.len() as u64 / TOKEN_CHARS).sum::<u64>();
        }
        self.passes += contexts.div_ceil(self.pass_tokens) + choices.div_ceil(self.pass_tokens);
        self.tokens += contexts + choices;
        Ok(vec![LogLikelihood::new(0.0, 1, false); requests.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(pass_tokens: usize, positions: usize) -> StreamingRoom {
        let mut room = StreamingRoom::default();
        (room.pass_tokens, room.positions) = (pass_tokens, positions);
        room
    }

    #[test]
    fn passes_of_written_answers() {
        let check = |questions, prompts, new, batch, positions, expected: (u64, u64, u64)| {
            let work = written(questions, (prompts, new), batch, &room(4096, positions));
            let got = (work.fewest_passes, work.most_passes, work.tokens_per_pass);
            assert_eq!(got, expected, "{questions} {prompts} {new} {batch} {positions}");
        };
        check(10, 1000, 256, 64, usize::MAX, (32, 256, 10 + 3));
        check(100, 10_000, 256, 10, usize::MAX, (320, 2560, 10 + 3));
        // Keys and values of two sequences fit.
        check(10, 1000, 256, 64, 800, (160, 1280, 2));
        check(10, 1000, 256, 64, 1, (320, 2560, 1));
        // Prompts take longer than answers.
        check(4, 4 * 8192, 1, 64, usize::MAX, (8, 8, 4 + 4096));
    }

    #[test]
    fn passes_of_choices() {
        let mut lengths = Lengths::new(100);
        let context = "x".repeat(4 * 150);
        let pairs = [("a", 40), ("b", 40)].map(|(start, len)| {
            Continuation::new(context.clone(), start.to_owned() + &"y".repeat(len - 1))
        });
        assert_eq!(lengths.score(&pairs).unwrap().len(), 2);
        let work = lengths.work();
        assert_eq!((work.fewest_passes, work.most_passes), (3, 6));
        assert_eq!(work.tokens_per_pass, (151 + 20) / 3);
    }
}
