//! Whether an answer has come to a string that ends it.

use std::collections::BTreeMap;

use moeprune_eval::Request;
use tokenizers::Tokenizer;

/// Looks for the stop strings of requests after each new token.
///
/// Text is decoded only where a new token may end a stop string: where its own text has the last character of one. Few
/// tokens do, and decoding takes as long as a small model.
pub(super) struct StopStrings<'a> {
    tokenizer: &'a Tokenizer,
    /// Whether a token may end a stop string, by the last characters that count and the token.
    may_end: BTreeMap<(Vec<char>, u32), bool>,
    /// The last characters of each request's stop strings.
    last: Vec<Vec<char>>,
}

impl<'a> StopStrings<'a> {
    pub(super) fn of(tokenizer: &'a Tokenizer, requests: &[(usize, &Request)]) -> Self {
        let last = |(_, request): &(usize, &Request)| {
            let mut last: Vec<char> =
                request.stop.iter().filter_map(|stop| stop.chars().next_back()).collect();
            last.sort_unstable();
            last.dedup();
            last
        };
        Self { tokenizer, may_end: BTreeMap::new(), last: requests.iter().map(last).collect() }
    }

    /// Whether one of a request's stop strings stands at the end of its tokens, or had begun there before.
    pub(super) fn ends(&mut self, index: usize, tokens: &[u32], request: &Request) -> bool {
        let Some(&newest) = tokens.last() else { return false };
        let last = &self.last[index];
        if last.is_empty() {
            return false;
        }
        let tokenizer = self.tokenizer;
        let may_end = match self.may_end.get(&(last.clone(), newest)) {
            Some(&known) => known,
            None => {
                let found = may_end(tokenizer, newest, last);
                self.may_end.insert((last.clone(), newest), found);
                found
            }
        };
        may_end && stands_at_the_end(tokenizer, tokens, request)
    }
}

/// Whether a token's text has one of these characters. Spaces at the beginning of a text may not be decoded, and of bytes
/// that are no character nothing is known.
fn may_end(tokenizer: &Tokenizer, token: u32, last: &[char]) -> bool {
    let unknown = |c: char| c == char::REPLACEMENT_CHARACTER || last.contains(&c);
    last.iter().any(|c| c.is_whitespace())
        || tokenizer.decode(&[token], true).map_or(true, |text| text.chars().any(unknown))
}

/// Whether a stop string stands in the last tokens; the whole text need not be decoded each time.
fn stands_at_the_end(tokenizer: &Tokenizer, tokens: &[u32], request: &Request) -> bool {
    // Every token is at least one byte of text or none at all, so this many reach far enough back.
    let longest = request.stop.iter().map(String::len).max().unwrap_or(0);
    let tail = &tokens[tokens.len().saturating_sub(longest + 8)..];
    let mut stops = request.stop.iter().filter(|stop| !stop.is_empty());
    tokenizer.decode(tail, true).is_ok_and(|text| stops.any(|stop| text.contains(stop.as_str())))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use moeprune_checkpoint::Checkpoint;

    use super::*;
    use crate::load_tokenizer;

    fn tokenizer() -> Tokenizer {
        let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano");
        load_tokenizer(&Checkpoint::open(&nano).unwrap()).unwrap()
    }

    /// The first token after which one is found, token by token, in both ways.
    fn check(tokenizer: &Tokenizer, tokens: &[u32], stops: &[&str]) {
        let stops = stops.iter().map(|&stop| stop.to_owned()).collect();
        let request = Request::new("", stops, 100);
        let requests = [(0, &request)];
        let mut watched = StopStrings::of(tokenizer, &requests);
        let found = (1..=tokens.len()).find(|&n| watched.ends(0, &tokens[..n], &request));
        let expected =
            (1..=tokens.len()).find(|&n| stands_at_the_end(tokenizer, &tokens[..n], &request));
        assert_eq!(found, expected, "{tokens:?} {request:?}");
    }

    #[test]
    fn stops_of_gsm8k() {
        let tokenizer = tokenizer();
        for text in
            ["So 2+2=4.\n#### 4\n\nQuestion: Who", "Q Q: Question:", "a </s> b", "Questio n: é·"]
        {
            let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
            check(&tokenizer, &ids, &["Question:", "</s>", "<|im_end|>"]);
            check(&tokenizer, &ids, &["·", "e"]);
            check(&tokenizer, &ids, &["\n"]);
            check(&tokenizer, &ids, &[""]);
            check(&tokenizer, &ids, &[]);
        }
    }

    /// Tokens in any order make texts in which stops begin, break off and end.
    #[test]
    fn any_tokens() {
        let tokenizer = tokenizer();
        let mut state = 7_u32;
        let mut draw = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        for _ in 0..300 {
            let tokens: Vec<u32> = (0..draw(30)).map(|_| draw(864)).collect();
            let text = tokenizer.decode(&tokens, true).unwrap();
            let from = draw(20) as usize;
            let stop: String = text.chars().skip(from).take(1 + draw(3) as usize).collect();
            check(&tokenizer, &tokens, &[&stop, "ee"]);
        }
    }
}
