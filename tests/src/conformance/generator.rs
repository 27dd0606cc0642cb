//! What a [`Generator`] promises.

use moeprune_eval::{Ending, Generator, Request};

/// The most tokens of the answers that are compared.
const TOKENS: usize = 8;

/// Holds a generator to its contract, on prompts that fit its context together with 8 tokens and
/// some of which it answers with text:
///
/// * an empty batch has no answers; any other one has an answer per request, in their order;
/// * the same prompt has the same answer in each call, in any batch and at any place in it;
/// * an answer of no tokens is empty; with fewer tokens it is the beginning of the one with more,
///   independent of the limits of the other requests;
/// * an answer has all text before the first stop string, independent of those of the other requests; a
///   stop string that does not occur, or is empty, changes nothing;
/// * if it says how answers ended, it says it of each of the last call: by itself where a stop string occurs, for its
///   length where more tokens give more text, and the same in any batch.
///
/// # Panics
/// If one of these is broken, the generator fails, or there are no two answers to compare.
pub fn check(generator: &mut dyn Generator, prompts: &[&str]) {
    assert_eq!(answers(generator, &[]).len(), 0, "an empty batch has answers");
    let whole: Vec<String> =
        prompts.iter().map(|prompt| answer(generator, prompt, &[], TOKENS)).collect();
    let told = whole.iter().filter(|answer| !answer.is_empty()).count();
    assert!(told >= 2, "fewer than two prompts are answered with text: {whole:?}");
    check_batches(generator, prompts, &whole);
    check_limits(generator, prompts, &whole);
    check_stops(generator, prompts, &whole);
    check_endings(generator, prompts, &whole);
}

/// Holds a generator to what it does with a prompt that is longer than its context: only the end
/// of the prompt counts, and how much of it is used depends on no other request.
///
/// # Panics
/// If this is broken or the generator fails.
pub fn check_long(generator: &mut dyn Generator, prompt: &str) {
    let alone = answer(generator, prompt, &[], 1);
    let longer = format!("Another beginning. {prompt}");
    assert_eq!(
        answer(generator, &longer, &[], 1),
        alone,
        "the beginning of a prompt longer than the context is used"
    );
    let batch = [request(prompt, &[], 1), request(prompt, &[], 4 * TOKENS)];
    assert_eq!(
        answers(generator, &batch)[0],
        alone,
        "a long prompt's answer depends on the limit of another request"
    );
}

fn check_batches(generator: &mut dyn Generator, prompts: &[&str], whole: &[String]) {
    for (prompt, expected) in prompts.iter().zip(whole) {
        let again = answer(generator, prompt, &[], TOKENS);
        assert_eq!(&again, expected, "another answer to {prompt:?} in a later call");
    }
    let batch: Vec<Request> = prompts.iter().map(|prompt| request(prompt, &[], TOKENS)).collect();
    let found = answers(generator, &batch);
    let sorted = |answers: &[String]| {
        let mut sorted = answers.to_vec();
        sorted.sort();
        sorted
    };
    let moved = sorted(&found) == sorted(whole) && found != whole;
    assert!(!moved, "answers are not in the order of the requests");
    compare("in a batch", &batch, &found, whole);
    let reversed: Vec<Request> = batch.iter().rev().cloned().collect();
    let expected: Vec<String> = whole.iter().rev().cloned().collect();
    compare("in a reversed batch", &reversed, &answers(generator, &reversed), &expected);
}

fn check_limits(generator: &mut dyn Generator, prompts: &[&str], whole: &[String]) {
    let (mut batch, mut expected) = (Vec::new(), Vec::new());
    for (prompt, most) in prompts.iter().zip(whole) {
        let mut shorter = String::new();
        for limit in [0, 1, 2, TOKENS / 2, TOKENS] {
            let found = answer(generator, prompt, &[], limit);
            if limit == 0 {
                assert_eq!(found, "", "an answer of no tokens to {prompt:?}");
            }
            for (begin, more) in [(&shorter, &found), (&found, most)] {
                assert!(
                    more.starts_with(whole_characters(begin)),
                    "{limit} tokens to {prompt:?} do not fit those of other limits: {begin:?} is \
                     no beginning of {more:?}"
                );
            }
            batch.push(request(prompt, &[], limit));
            expected.push(found.clone());
            shorter = found;
        }
    }
    compare("in a batch of several limits", &batch, &answers(generator, &batch), &expected);
}

fn check_stops(generator: &mut dyn Generator, prompts: &[&str], whole: &[String]) {
    let (mut batch, mut expected) = (Vec::new(), Vec::new());
    for (prompt, most) in prompts.iter().zip(whole) {
        for stops in [&[""] as &[&str], &["no answer has \u{1} this"]] {
            let found = answer(generator, prompt, stops, TOKENS);
            assert_eq!(&found, most, "the stop strings {stops:?} end the answer to {prompt:?}");
        }
        for stop in stops_in(most) {
            let found = answer(generator, prompt, &[stop], TOKENS);
            assert_eq!(
                until(&found, stop),
                until(most, stop),
                "the answer to {prompt:?} before the stop string {stop:?}"
            );
            batch.push(request(prompt, &[stop], TOKENS));
            expected.push(until(most, stop).to_owned());
        }
        batch.push(request(prompt, &[], TOKENS));
        expected.push(most.clone());
    }
    let mut found = answers(generator, &batch);
    for (answer, request) in found.iter_mut().zip(&batch) {
        if let Some(stop) = request.stop.first() {
            answer.truncate(until(answer, stop).len());
        }
    }
    compare("in a batch of several stop strings", &batch, &found, &expected);
}

fn check_endings(generator: &mut dyn Generator, prompts: &[&str], whole: &[String]) {
    let (mut batch, mut expected) = (Vec::new(), Vec::new());
    for (prompt, most) in prompts.iter().zip(whole) {
        for stop in stops_in(most) {
            let request = request(prompt, &[stop], TOKENS);
            let Some(ending) = ending(generator, &request) else { return };
            assert!(ending.is_by_itself(), "an answer ended at a stop string, not as {ending:?}");
            batch.push(request);
            expected.push(ending);
        }
        for limit in [1, 2, TOKENS / 2] {
            let request = request(prompt, &[], limit);
            let found = answers(generator, std::slice::from_ref(&request)).remove(0);
            let Some(ending) = ending(generator, &request) else { return };
            if whole_characters(most).len() > found.len() {
                assert_eq!(ending, Ending::Length, "an answer to {prompt:?} was cut off");
            }
            batch.push(request);
            expected.push(ending);
        }
    }
    answers(generator, &batch);
    assert_eq!(generator.endings(), Some(&*expected), "answers ended otherwise in a batch");
}

/// Strings that occur in an answer: its first character, one from its middle, and the last two.
fn stops_in(answer: &str) -> Vec<&str> {
    let answer = whole_characters(answer);
    let starts: Vec<usize> = answer.char_indices().map(|(at, _)| at).collect();
    let character = |n: usize| {
        let start = *starts.get(n)?;
        Some(&answer[start..starts.get(n + 1).copied().unwrap_or(answer.len())])
    };
    let end = starts.len().checked_sub(2).map(|n| &answer[starts[n]..]);
    [character(0), character(starts.len() / 2), end].into_iter().flatten().collect()
}

fn until<'a>(answer: &'a str, stop: &str) -> &'a str {
    answer.find(stop).map_or(answer, |end| &answer[..end])
}

/// Without what stands for the beginning of a character whose other bytes are in the next token.
fn whole_characters(text: &str) -> &str {
    text.trim_end_matches('\u{FFFD}')
}

fn compare(place: &str, batch: &[Request], found: &[String], expected: &[String]) {
    for ((request, found), expected) in batch.iter().zip(found).zip(expected) {
        assert_eq!(found, expected, "another answer {place} to {request:?}");
    }
}

fn request(prompt: &str, stops: &[&str], limit: usize) -> Request {
    Request::new(prompt, stops.iter().map(|&stop| stop.to_owned()).collect(), limit)
}

fn answer(generator: &mut dyn Generator, prompt: &str, stops: &[&str], limit: usize) -> String {
    answers(generator, &[request(prompt, stops, limit)]).remove(0)
}

fn ending(generator: &mut dyn Generator, request: &Request) -> Option<Ending> {
    answers(generator, std::slice::from_ref(request));
    generator.endings()?.first().copied()
}

fn answers(generator: &mut dyn Generator, requests: &[Request]) -> Vec<String> {
    let found = generator.generate(requests).unwrap_or_else(|e| panic!("{requests:?}: {e}"));
    assert_eq!(found.len(), requests.len(), "answers to {} requests", requests.len());
    if let Some(endings) = generator.endings() {
        assert_eq!(endings.len(), found.len(), "endings of {} answers", found.len());
    }
    found
}
