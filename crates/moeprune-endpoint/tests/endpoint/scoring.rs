//! Log-likelihoods over HTTP, of a model whose every token's probability is known.

use moeprune_endpoint::{EndpointScorer, Error, Journal, Journaled, RunKey, Vocabulary};
use moeprune_eval::{BoxError, Continuation, ContinuationScorer as _, LogLikelihood};
use serde_json::{Value, json};

use crate::{
    generating::bytes,
    mock::{Asked, Mock, Reply, text},
};

/// The log-probability that the tests' model gives a byte after another.
fn nats(token: u64) -> f64 {
    -((token % 7) as f64 + 0.25)
}

/// Whether the model would write the token.
fn is_likeliest(token: u64) -> bool {
    token.is_multiple_of(2)
}

/// A choice as vLLM writes it, for a prompt of these tokens.
fn choice(index: usize, ids: &[u64]) -> Value {
    let (mut values, mut top) = (vec![Value::Null], vec![Value::Null]);
    for &token in ids.iter().skip(1).chain(&[0]) {
        values.push(json!(nats(token)));
        let other = if is_likeliest(token) { nats(token) - 1.0 } else { nats(token) / 2.0 };
        top.push(json!({format!("t{token}"): nats(token), "other": other}));
    }
    json!({"index": index, "text": "", "finish_reason": "length", "logprobs": {
        "tokens": vec!["x"; values.len()], "token_logprobs": values, "top_logprobs": top,
    }})
}

/// Token ids of a prompt in any form; a text has one at the beginning, as `bytes` gives it.
fn ids(prompt: &Value) -> Vec<u64> {
    match prompt {
        Value::String(text) => bytes(text).unwrap().into_iter().map(u64::from).collect(),
        ids => ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect(),
    }
}

fn scored(asked: &Asked) -> Value {
    let prompts: Vec<Vec<u64>> = asked.prompts().iter().map(ids).collect();
    let mut choices: Vec<Value> =
        prompts.iter().enumerate().map(|(index, ids)| choice(index, ids)).collect();
    choices.reverse();
    json!({"choices": choices, "usage": {"prompt_tokens": prompts.iter().map(Vec::len).sum::<usize>()}})
}

/// What a continuation's score is.
fn expected(text: &str) -> LogLikelihood {
    let tokens = || text.bytes().map(u64::from);
    LogLikelihood::new(tokens().map(nats).sum(), text.len(), tokens().all(is_likeliest))
}

fn vocabulary() -> Vocabulary<'static> {
    Vocabulary::new(bytes)
}

fn error(
    answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    vocabulary: Option<Vocabulary<'_>>,
) -> String {
    let mock = Mock::new(answer);
    let mut scorer = EndpointScorer::new(mock.endpoint(), vocabulary);
    let pair = Continuation::new("The sky is", " blue");
    scorer.score(&[pair]).unwrap_err().downcast::<Error>().unwrap().to_string()
}

#[test]
fn choices_are_scored_in_every_form() {
    let takes_all = |asked: &Asked| Reply::Json(scored(asked));
    let takes_text = |asked: &Asked| match asked.prompts()[0].is_string() {
        true => Reply::Json(scored(asked)),
        false => Reply::Status(400, "", "prompts are strings".into()),
    };
    let pairs = [
        Continuation::new("Q: 1 + 1?", " 2"),
        Continuation::new("Q: 1 + 1? ", "two"),
        Continuation::new("Another", " b"),
        Continuation::new("Q: 1 + 1?", " b0"),
        Continuation::new("Another", "`b"),
    ];
    let check = |mock: &Mock, vocabulary: Option<Vocabulary<'_>>, first: Value| {
        let mut scorer = EndpointScorer::new(mock.endpoint(), vocabulary);
        let mut noted = vec![None; pairs.len()];
        let mut note = |place: usize, score: LogLikelihood| {
            assert_eq!(noted[place].replace(score), None);
            Ok(())
        };
        let found = scorer.score_noting(&pairs, &mut note).unwrap();
        let texts = [" 2", " two", " b", " b0", "`b"];
        let expected: Vec<LogLikelihood> = texts.into_iter().map(expected).collect();
        assert_eq!(found, expected);
        assert_eq!(noted.into_iter().flatten().collect::<Vec<_>>(), expected);
        assert!(
            found.iter().any(|score| score.is_greedy) && found.iter().any(|score| !score.is_greedy)
        );
        // Choices after one context are one call.
        let asked = mock.asked();
        let calls: Vec<&Asked> = asked.iter().filter(|asked| asked.prompts().len() >= 2).collect();
        let last = &calls[calls.len() - 2..];
        assert!(last.iter().any(|asked| asked.prompts()[0] == first), "{last:?}");
        assert!(last.iter().all(|asked| {
            let Value::Object(body) = &asked.body else { return false };
            body["echo"] == json!(true)
                && body["logprobs"] == json!(1)
                && body["max_tokens"] == json!(1)
        }));
    };
    check(&Mock::new(takes_all), None, json!("Another"));
    check(&Mock::new(takes_all), Some(vocabulary()), json!(bytes("Another b").unwrap()));
    check(&Mock::new(takes_text), Some(vocabulary()), json!("Another b"));
    let mock = Mock::new(takes_all);
    assert_eq!(EndpointScorer::new(mock.endpoint(), None).score(&[]).unwrap(), []);
    assert!(mock.asked().is_empty());
}

#[test]
fn a_context_that_does_not_fit_loses_its_beginning() {
    let mock = Mock::new(|asked| Reply::Json(scored(asked)));
    let mut scorer = EndpointScorer::new(mock.endpoint(), Some(vocabulary()));
    let long = Continuation::new("x".repeat(200), " blue");
    assert_eq!(scorer.score(&[long]).unwrap(), [expected(" blue")]);
    assert_eq!(scorer.prompts_cut(), 1);
    // The mock takes 64 tokens, one of which is generated.
    assert_eq!(mock.asked().last().unwrap().prompts()[0].as_array().unwrap().len(), 63);
    let error = scorer.score(&[Continuation::new("x", "y".repeat(64))]).unwrap_err();
    assert!(matches!(error.downcast_ref::<Error>(), Some(Error::NoRoom { .. })), "{error}");
}

#[test]
fn what_was_answered_earlier_counts_as_cut_too() {
    let mock = Mock::new(|asked| Reply::Json(scored(asked)));
    let folder = tempfile::tempdir().unwrap();
    let run = RunKey::new();
    for asked in [2, 3] {
        let mut journal = Journal::open(&folder.path().join("j"), &run).unwrap();
        let scorer = EndpointScorer::new(mock.endpoint(), Some(vocabulary()));
        let mut journaled = Journaled::new(scorer, Some(&mut journal));
        let long = Continuation::new("x".repeat(200), " blue");
        assert_eq!(journaled.score(&[long]).unwrap(), [expected(" blue")]);
        assert_eq!(journaled.inner().prompts_cut(), 1);
        // The second time it is the probe alone.
        assert_eq!(mock.asked().len(), asked);
    }
}

#[test]
fn an_empty_context_follows_the_first_token() {
    let mock = Mock::new(|asked| Reply::Json(scored(asked)));
    let alone = [Continuation::new("", "blue")];
    let mut scorer = EndpointScorer::new(mock.endpoint(), Some(vocabulary()));
    assert_eq!(scorer.score(&alone).unwrap(), [expected("blue")]);
    let plain = || Vocabulary::new(|text: &str| Ok(text.bytes().map(u32::from).collect()));
    let mut scorer = EndpointScorer::new(mock.endpoint(), Some(plain().with_first(Some(5))));
    assert_eq!(scorer.score(&alone).unwrap(), [expected("blue")]);
    for vocabulary in [None, Some(plain())] {
        let mut scorer = EndpointScorer::new(mock.endpoint(), vocabulary);
        let said = scorer.score(&alone).unwrap_err().to_string();
        assert!(said.contains("\"blue\" has no context"), "{said}");
    }
}

#[test]
fn servers_without_prompt_log_probabilities_are_refused_by_name() {
    let check = |reply: fn(&Asked) -> Reply, expected: &str| {
        for vocabulary in [None, Some(vocabulary())] {
            let said = error(reply, vocabulary);
            for part in [expected, "vLLM and SGLang do", "llama.cpp", "transformers serve"] {
                assert!(said.contains(part), "{said}");
            }
        }
    };
    // `transformers serve`.
    check(|asked| choices(asked, &json!({"text": "x"})), "no `logprobs`");
    check(|asked| choices(asked, &json!({"text": "x", "logprobs": null})), "no `logprobs`");
    // llama.cpp's server, of both ages.
    let chat = |asked: &Asked| {
        choices(asked, &json!({"text": "x", "logprobs": {"content": [{"logprob": -1}]}}))
    };
    check(chat, "the form of chats");
    check(
        |_| Reply::Status(400, "", r#"{"error": {"message": "Only no echo is supported"}}"#.into()),
        "Only no echo",
    );
    // Those of the new token alone.
    let new = |asked: &Asked| {
        choices(
            asked,
            &json!({"text": "x", "logprobs": {"token_logprobs": [-1], "top_logprobs": [{"x": -1}]}}),
        )
    };
    check(new, "of the new token alone");
}

/// This choice for each prompt.
fn choices(asked: &Asked, one: &Value) -> Reply {
    let choices: Vec<Value> = asked.prompts().iter().map(|_| one.clone()).collect();
    Reply::Json(json!({"choices": choices}))
}

#[test]
fn what_is_incomplete_is_not_scored() {
    // The probe is answered well, what comes after it not.
    let check = |spoil: fn(&mut Value), expected: &str| {
        for vocabulary in [None, Some(vocabulary())] {
            let answer = move |asked: &Asked| {
                let mut answer = scored(asked);
                if asked.number > 0 {
                    let last = |choice: &Value| {
                        choice["logprobs"]["token_logprobs"].as_array().unwrap().len()
                    };
                    let choices = answer["choices"].as_array_mut().unwrap();
                    choices.sort_by_key(|choice| std::cmp::Reverse(last(choice)));
                    spoil(&mut choices[0]);
                }
                Reply::Json(answer)
            };
            let said = error(answer, vocabulary);
            assert!(said.contains(expected), "{said}");
        }
    };
    check(
        |choice| choice["logprobs"]["token_logprobs"][12] = Value::Null,
        "token 13 of 16 is null",
    );
    check(
        |choice| choice["logprobs"]["token_logprobs"][12] = json!("-1"),
        "token 13 of 16 is null",
    );
    check(
        |choice| choice["logprobs"]["token_logprobs"][12] = json!(2.5),
        "token 13 of 16 is 2.5, above 0",
    );
    check(
        |choice| choice["logprobs"]["top_logprobs"][12] = json!({}),
        "likeliest token in place of token 13",
    );
    check(
        |choice| choice["logprobs"]["top_logprobs"] = json!([]),
        "17 log-probabilities and 0 lists",
    );
    check(|choice| choice["logprobs"] = Value::Null, "no `logprobs`");
    check(|choice| choice["text"] = Value::Null, "no `text`");
}

#[test]
fn lists_of_another_length_are_not_scored() {
    // Of each choice after the probe: without a tokenizer here, nothing but the answer says how long it must be.
    let check = |spoil: fn(&mut Value), expected: &str| {
        let answer = move |asked: &Asked| {
            let mut answer = scored(asked);
            if asked.number > 0 {
                spoil(&mut answer);
            }
            Reply::Json(answer)
        };
        let said = error(answer, None);
        assert!(said.contains(expected), "{said}");
    };
    fn each(answer: &mut Value, change: fn(&mut Vec<Value>)) {
        for choice in answer["choices"].as_array_mut().unwrap() {
            for list in ["tokens", "token_logprobs", "top_logprobs"] {
                change(choice["logprobs"][list].as_array_mut().unwrap());
            }
        }
    }
    check(|answer| each(answer, |list| list.push(list[1].clone())), "29 tokens of the prompts");
    check(|answer| each(answer, |list| drop(list.pop())), "`usage` counts 27");
    check(
        |answer| answer["choices"][0]["logprobs"]["token_logprobs"][0] = json!(-0.5),
        "first token is -0.5: expected null",
    );
    check(
        |answer| drop(answer["choices"][0]["logprobs"]["tokens"].as_array_mut().unwrap().pop()),
        "16 entries in `tokens`",
    );
    check(
        |answer| answer["choices"][0]["logprobs"]["text_offset"] = json!([0, 1]),
        "2 entries in `text_offset`",
    );
    check(
        |answer| answer["choices"][0]["logprobs"]["text_offset"] = json!(vec![0; 17]),
        "end within the text that was sent",
    );
}

#[test]
fn zeros_are_no_log_probabilities() {
    let zeros = |asked: &Asked| {
        let mut answer = scored(asked);
        for choice in answer["choices"].as_array_mut().unwrap() {
            let values = choice["logprobs"]["token_logprobs"].as_array_mut().unwrap();
            values.iter_mut().skip(1).for_each(|value| *value = json!(0.0));
        }
        Reply::Json(answer)
    };
    for vocabulary in [None, Some(vocabulary())] {
        let said = error(zeros, vocabulary);
        assert!(said.contains("0 for every token") && said.contains("llama.cpp"), "{said}");
    }
}

#[test]
fn the_servers_count_must_be_the_tokenizers() {
    let no_first = |asked: &Asked| {
        let prompts: Vec<Vec<u64>> = asked.prompts().iter().map(ids).collect();
        let choices: Vec<Value> =
            prompts.iter().enumerate().map(|(index, ids)| choice(index, &ids[1..])).collect();
        Reply::Json(json!({"choices": choices}))
    };
    let said = error(no_first, Some(vocabulary()));
    for part in ["makes 10 tokens", "tokenizer makes 11", "leave MODEL out"] {
        assert!(said.contains(part), "{said}");
    }
    // A probe that is right, and a text that is not.
    let later = |asked: &Asked| {
        let mut answer = scored(asked);
        if asked.number > 0 {
            for list in ["tokens", "token_logprobs", "top_logprobs"] {
                answer["choices"][0]["logprobs"][list].as_array_mut().unwrap().pop();
            }
        }
        Reply::Json(answer)
    };
    let said = error(later, Some(vocabulary()));
    assert!(said.contains("makes 15 tokens") && said.contains("makes 16"), "{said}");
}

#[test]
fn a_choice_needs_a_token_of_its_own() {
    let mock = Mock::new(|asked| Reply::Json(scored(asked)));
    // Reads two letters at a time, so that the context's last token takes the choice in.
    let pairs = |text: &str| -> Result<Vec<u32>, BoxError> { Ok(vec![7; text.len().div_ceil(2)]) };
    let mut scorer = EndpointScorer::new(mock.endpoint(), Some(Vocabulary::new(pairs)));
    let said = scorer.score(&[Continuation::new("abc", "d")]).unwrap_err().to_string();
    assert!(said.contains("\"d\" has no token of its own"), "{said}");
}

#[test]
fn texts_are_not_scored_by_a_server_that_only_writes() {
    let said = error(|_| text("blue"), None);
    assert!(said.contains("1 choices for 2 prompts") && said.contains("vLLM"), "{said}");
}
