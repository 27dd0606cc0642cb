//! A generator with one fault at a time.

use moeprune_eval::{BoxError, Ending, Generator, Request};
use moeprune_tests::conformance::generator::{check, check_long};

use crate::caught;

/// What is wrong with a [`Counting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    Fails,
    AnswersNothing,
    TooFew,
    AnswersAnEmptyBatch,
    Order,
    Remembers,
    SeesTheBatch,
    SeesThePlace,
    OneTokenMore,
    RepeatsThePrompt,
    OtherTextWhenShort,
    LimitOfTheBatch,
    StopsEarly,
    StopsAtAnEmptyString,
    StopsOfTheBatch,
    KeepsTheBeginning,
    RoomOfTheBatch,
    NoEndings,
    EndingsOfTheFirst,
    NeverByItself,
    AlwaysByItself,
    EndingsOfTheBatch,
}

/// Tokens are words; counts on from the number of letters in the last words of the prompt.
struct Counting {
    fault: Fault,
    calls: usize,
    endings: Vec<Ending>,
}

/// Words of a prompt and its answer.
const CONTEXT: usize = 64;

impl Counting {
    fn new(fault: Fault) -> Self {
        Self { fault, calls: 0, endings: Vec::new() }
    }

    fn words(&self, place: usize, request: &Request, batch: &[Request]) -> Vec<String> {
        let most = batch.iter().map(|r| r.max_new_tokens).max().unwrap_or(0);
        let limit = request.max_new_tokens;
        let room = CONTEXT - if self.fault == Fault::RoomOfTheBatch { most } else { limit };
        let words: Vec<&str> = request.prompt.split_whitespace().collect();
        let used = match self.fault {
            Fault::KeepsTheBeginning => &words[..words.len().min(room)],
            _ => &words[words.len().saturating_sub(room)..],
        };
        let mut first = used.iter().map(|word| word.len()).sum::<usize>();
        first += match self.fault {
            Fault::Remembers => self.calls,
            Fault::SeesTheBatch => batch.len(),
            Fault::SeesThePlace => place,
            Fault::OtherTextWhenShort => usize::from(limit < 3),
            _ => 0,
        };
        let count = match self.fault {
            Fault::AnswersNothing => 0,
            Fault::OneTokenMore => limit + 1,
            Fault::LimitOfTheBatch => most,
            _ => limit,
        };
        let mut answer: Vec<_> = (first..first + count).map(|n| format!(" {n}")).collect();
        if self.fault == Fault::RepeatsThePrompt {
            answer.insert(0, request.prompt.clone());
        }
        answer
    }

    fn cut(&self, answer: String, request: &Request, batch: &[Request]) -> String {
        let stops: Vec<&String> = match self.fault {
            Fault::StopsOfTheBatch => batch.iter().flat_map(|r| &r.stop).collect(),
            _ => request.stop.iter().collect(),
        };
        let empty_counts = self.fault == Fault::StopsAtAnEmptyString;
        let ends = stops.iter().filter(|stop| empty_counts || !stop.is_empty());
        let end = ends.filter_map(|stop| answer.find(stop.as_str())).min();
        let early = usize::from(self.fault == Fault::StopsEarly);
        end.map_or_else(|| answer.clone(), |end| answer[..end.saturating_sub(early)].to_owned())
    }
}

impl Counting {
    /// How an answer ended that was cut to `found`.
    fn ending(&self, whole: &str, found: &str, requests: &[Request]) -> Ending {
        let at_stop = match self.fault {
            Fault::NeverByItself => false,
            Fault::AlwaysByItself => true,
            Fault::EndingsOfTheBatch if requests.len() > 1 => false,
            _ => found.len() < whole.len(),
        };
        if at_stop { Ending::Stop } else { Ending::Length }
    }
}

impl Generator for Counting {
    fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError> {
        self.calls += 1;
        let answer = |(place, request): (usize, &Request)| {
            let whole = self.words(place, request, requests).concat();
            let found = self.cut(whole.clone(), request, requests);
            (self.ending(&whole, &found, requests), found)
        };
        let (mut endings, mut answers): (Vec<Ending>, Vec<String>) =
            requests.iter().enumerate().map(answer).unzip();
        if self.fault == Fault::EndingsOfTheFirst {
            endings.truncate(1);
        }
        self.endings = endings;
        match self.fault {
            Fault::Fails => return Err("out of memory".into()),
            Fault::TooFew if answers.len() > 1 => answers.truncate(1),
            Fault::AnswersAnEmptyBatch if answers.is_empty() => answers.push(String::new()),
            Fault::Order => answers.sort(),
            _ => {}
        }
        Ok(answers)
    }

    fn endings(&self) -> Option<&[Ending]> {
        (self.fault != Fault::NoEndings).then_some(&self.endings)
    }
}

const PROMPTS: [&str; 4] = ["three words here", "a", "", "letters"];

#[test]
fn no_fault() {
    check(&mut Counting::new(Fault::Nothing), &PROMPTS);
    check_long(&mut Counting::new(Fault::Nothing), &long());
    check(&mut Counting::new(Fault::NoEndings), &PROMPTS);
}

fn long() -> String {
    (0..2 * CONTEXT).map(|n| format!("{} ", "w".repeat(n % 17 + 1))).collect()
}

#[test]
fn generators_that_break_their_contract() {
    let check = |fault, message| caught(|| check(&mut Counting::new(fault), &PROMPTS), message);
    check(Fault::Fails, "out of memory");
    check(Fault::AnswersNothing, "fewer than two prompts are answered with text");
    check(Fault::TooFew, "answers to 4 requests");
    check(Fault::AnswersAnEmptyBatch, "answers to 0 requests");
    check(Fault::Order, "answers are not in the order of the requests");
    check(Fault::Remembers, "in a later call");
    check(Fault::SeesTheBatch, "another answer in a batch to");
    check(Fault::SeesThePlace, "another answer in a batch to");
    check(Fault::OneTokenMore, "an answer of no tokens");
    check(Fault::RepeatsThePrompt, "an answer of no tokens");
    check(Fault::OtherTextWhenShort, "do not fit those of other limits");
    check(Fault::LimitOfTheBatch, "in a batch of several limits");
    check(Fault::StopsEarly, "before the stop string");
    check(Fault::StopsAtAnEmptyString, "the stop strings [\"\"] end the answer");
    check(Fault::StopsOfTheBatch, "in a batch of several stop strings");
    check(Fault::EndingsOfTheFirst, "endings of 4 answers");
    check(Fault::NeverByItself, "an answer ended at a stop string, not as Length");
    check(Fault::AlwaysByItself, "was cut off");
    check(Fault::EndingsOfTheBatch, "answers ended otherwise in a batch");
}

#[test]
fn generators_that_misuse_long_prompts() {
    let check = |fault, message| caught(|| check_long(&mut Counting::new(fault), &long()), message);
    check(Fault::KeepsTheBeginning, "the beginning of a prompt longer than the context");
    check(Fault::RoomOfTheBatch, "depends on the limit of another request");
}
