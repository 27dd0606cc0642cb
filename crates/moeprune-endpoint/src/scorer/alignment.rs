//! Whether the tokens that came back are those of the text that was sent, and one new token.

use crate::{
    AnswerProblem,
    answer::{Choice, LogProbabilities},
};

/// So many letters of a text must be among the tokens for these to be taken for its letters.
const KNOWN: usize = 4;

/// Compares the tokens' own texts and places, where the server gives them, with the prompt's text. Tokens that are
/// written in another alphabet (bytes, ids) say nothing here. Spaces do not count: tokens alone often lose theirs.
pub(super) fn check(choice: &Choice, prompt: &str) -> Result<(), AnswerProblem> {
    let LogProbabilities::Tokens { tokens, offsets, .. } = &choice.log_probabilities else {
        return Ok(());
    };
    let text = letters(prompt);
    if let Some(tokens) = tokens {
        check_tokens(tokens, &text, prompt.is_ascii())?;
    }
    let is_before = |&last: &u64| last < text.len() as u64;
    match offsets.as_ref().and_then(|offsets| offsets.last()).filter(|_| prompt.is_ascii()) {
        Some(last) if is_before(last) => Err(AnswerProblem::NoNewToken),
        _ => Ok(()),
    }
}

fn check_tokens(tokens: &[String], text: &str, is_ascii: bool) -> Result<(), AnswerProblem> {
    let tokens: Vec<String> = tokens.iter().map(|token| letters(token)).collect();
    let all = tokens.concat();
    let Some(begin) = all.find(text) else {
        let half: String = text.chars().take((text.chars().count() / 2).max(KNOWN)).collect();
        let is_known = is_ascii && text.len() > KNOWN && all.contains(&half);
        return if is_known { Err(AnswerProblem::OtherTokens) } else { Ok(()) };
    };
    if text.is_empty() {
        return Ok(());
    }
    let end = begin + text.len();
    let mut starts = tokens.iter().scan(0, |at, token| {
        let start = *at;
        *at += token.len();
        Some((start, token.is_empty()))
    });
    let beyond = starts.by_ref().skip_while(|&(start, is_empty)| start < end || is_empty).count();
    let last_begins = all.len() - tokens.last().map_or(0, String::len);
    match beyond {
        0 if last_begins < end => Err(AnswerProblem::NoNewToken),
        0 | 1 => Ok(()),
        new => Err(AnswerProblem::ManyNewTokens { new }),
    }
}

/// A text without spaces, and without the letters that stand for them in vocabularies.
fn letters(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '\u{2581}' | 'Ġ' | 'Ċ')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(prompt: &str, tokens: &[&str]) -> Result<(), AnswerProblem> {
        let tokens: Vec<String> = tokens.iter().map(|&token| token.to_owned()).collect();
        check_tokens(&tokens, &letters(prompt), prompt.is_ascii())
    }

    #[test]
    fn tokens_of_the_text_and_one_more() {
        for tokens in [
            &["The", " sky", " is", " blue"][..],
            &["<s>", "The", "sky", "is", "blue"],
            &["▁The", "▁sky", "▁is", "▁"],
            &["The", "Ġsky", "Ġis", "The"],
            &["The", " sky", " is", ""],
            // Another alphabet.
            &["token_id:1", "token_id:2", "token_id:3"],
            &["x", "x", "x", "x"],
        ] {
            assert_eq!(found("The sky is", tokens), Ok(()), "{tokens:?}");
        }
        assert_eq!(found("xxx", &["x", "x", "x", "x"]), Ok(()));
        assert_eq!(found("né", &["n", "\u{fffd}", "\u{fffd}", "a"]), Ok(()));
        assert_eq!(found("", &["a"]), Ok(()));
    }

    #[test]
    fn one_too_many_or_too_few() {
        let check = |tokens: &[&str], expected: AnswerProblem| {
            assert_eq!(found("The sky is", tokens), Err(expected), "{tokens:?}");
        };
        check(&["The", " sky", " is"], AnswerProblem::NoNewToken);
        check(&["<s>", "The", " sky", " is"], AnswerProblem::NoNewToken);
        check(&["The", " sky", " is", " blue", "."], AnswerProblem::ManyNewTokens { new: 2 });
        check(&["The", " sky", " blue"], AnswerProblem::OtherTokens);
        check(&["The", " sky"], AnswerProblem::OtherTokens);
    }
}
