//! Bodies as servers send them, and as none should.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn text(text: &str) -> Choice {
    let (log_probabilities, finish) = (LogProbabilities::None, Finish::default());
    Choice { text: text.to_owned(), log_probabilities, finish }
}

#[test]
fn how_answers_ended() {
    let check = |fields: Value, has_stops: bool, expected: Option<Ending>| {
        let mut choice = json!({"text": "a"});
        choice.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let found = read(json!({"choices": [choice]}).to_string().as_bytes(), 1).unwrap();
        assert_eq!(found.choices[0].ended(has_stops), expected, "{fields}");
    };
    check(json!({}), true, None);
    check(json!({"finish_reason": null}), true, None);
    check(json!({"finish_reason": "length"}), true, Some(Ending::Length));
    check(json!({"finish_reason": "length", "stop_reason": null}), false, Some(Ending::Length));
    check(json!({"finish_reason": "stop", "stop_reason": "Q:"}), true, Some(Ending::Stop));
    check(json!({"finish_reason": "stop", "stop_reason": null}), true, Some(Ending::EndOfText));
    check(json!({"finish_reason": "stop", "stop_reason": 2}), true, Some(Ending::EndOfText));
    check(json!({"finish_reason": "stop", "matched_stop": 2}), true, Some(Ending::EndOfText));
    check(json!({"finish_reason": "stop"}), true, Some(Ending::Stop));
    check(json!({"finish_reason": "stop"}), false, Some(Ending::EndOfText));
}

#[test]
fn texts_by_index() {
    let check = |body: Value, expected: &[&str]| {
        let found = read(body.to_string().as_bytes(), expected.len()).unwrap();
        let expected: Vec<Choice> = expected.iter().map(|&t| text(t)).collect();
        assert_eq!(found.choices, expected, "{body}");
    };
    check(json!({"choices": [{"text": " 18", "index": 0}]}), &[" 18"]);
    check(json!({"choices": [{"text": " 18"}]}), &[" 18"]);
    check(json!({"choices": [{"text": "b", "index": 1}, {"text": "a", "index": 0}]}), &["a", "b"]);
    check(json!({"choices": [{"text": "a"}, {"text": "b"}], "usage": null}), &["a", "b"]);
    check(json!({"choices": [{"text": "", "index": 0, "logprobs": null, "new": [1]}]}), &[""]);
}

#[test]
fn bodies_that_are_refused() {
    let check = |body: &str, prompts: usize, expected: &str| {
        let said = read(body.as_bytes(), prompts).unwrap_err().to_string();
        assert!(said.contains(expected), "{body}: {said}");
    };
    check("", 1, "ends early, after 0 bytes");
    check(r#"{"choices": [{"te"#, 1, "ends early, after 17 bytes");
    check("<html><body>Bad gateway", 1, "is it a completions API?");
    check("NaN", 1, "not JSON");
    check("[]", 1, "no list `choices`");
    for number in ["NaN", "Infinity", "-Infinity"] {
        check(
            &format!(r#"{{"choices": [{{"a": [-1.5, {number}, 2]}}]}}"#),
            1,
            "has NaN or Infinity",
        );
        check(&format!("{{\"choices\":\n[{number}]}}"), 1, "has NaN or Infinity");
    }
    check(r#"{"choices": {}}"#, 1, "no list `choices`");
    check(r#"{"error": {"message": "x"}}"#, 1, "x");
    check(r#"{"choices": []}"#, 1, "0 choices for 1 prompt");
    check(r#"{"choices": [{"text": "a"}, {"text": "b"}]}"#, 1, "2 choices for 1 prompt");
    check(r#"{"choices": [{"text": "a"}]}"#, 2, "1 choices for 2 prompts");
    check(r#"{"choices": [{"text": "a", "index": 1}]}"#, 1, "numbered 1");
    check(r#"{"choices": [{"text": "a", "index": -1}]}"#, 1, "numbered -1");
    check(r#"{"choices": [{"text": "a", "index": "0"}]}"#, 1, "numbered \"0\"");
    check(
        r#"{"choices": [{"text": "a", "index": 0}, {"text": "b", "index": 0}]}"#,
        2,
        "numbered 0, 0",
    );
    check(r#"{"choices": [{"text": "a", "index": 0}, {"text": "b"}]}"#, 2, "not at all");
    check(r#"{"choices": [{"index": 0}]}"#, 1, "no `text`");
    check(r#"{"choices": [{"text": "a", "finish_reason": "abort"}]}"#, 1, "given up by the server");
    check(r#"{"choices": [{"finish_reason": "error"}]}"#, 1, "given up by the server");
    check(
        r#"{"choices": [{"text": "a", "finish_reason": "content_filter"}]}"#,
        1,
        "content_filter",
    );
    check(r#"{"choices": [null]}"#, 1, "no `text`");
    check(r#"{"choices": [{"text": 3}]}"#, 1, "no `text`");
    check(
        r#"{"choices": [{"text": "a", "logprobs": {"token_logprobs": [null, -1], "top_logprobs": [null]}}]}"#,
        1,
        "2 log-probabilities and 1 lists",
    );
}

#[test]
fn log_probabilities_in_each_form() {
    let check = |logprobs: Value, expected: LogProbabilities| {
        let body = json!({"choices": [{"text": "", "logprobs": logprobs}]});
        let found = read(body.to_string().as_bytes(), 1).unwrap();
        assert_eq!(found.choices[0].log_probabilities, expected, "{body}");
    };
    let tokens = |values: &[Option<f64>], largest: &[Option<f64>]| LogProbabilities::Tokens {
        values: values.to_vec(),
        largest: largest.to_vec(),
        tokens: None,
        offsets: None,
    };
    check(Value::Null, LogProbabilities::None);
    check(
        json!({"content": []}),
        LogProbabilities::Other("the form of chats, of new tokens alone"),
    );
    check(json!({}), LogProbabilities::Other("no `token_logprobs`"));
    check(json!([]), LogProbabilities::Other("no `token_logprobs`"));
    check(
        json!({"token_logprobs": [null, -1.5], "top_logprobs": [null, {"a": -0.5, "b": -1.5}]}),
        tokens(&[None, Some(-1.5)], &[None, Some(-0.5)]),
    );
    check(json!({"token_logprobs": [null, -1.5]}), tokens(&[None, Some(-1.5)], &[None, None]));
    check(json!({"token_logprobs": ["x"], "top_logprobs": [[]]}), tokens(&[None], &[None]));
}

#[test]
fn what_terminals_obey_is_not_shown() {
    let said = read(b"\x1b[2Joops\r\n", 1).unwrap_err().to_string();
    assert!(said.contains("oops") && !said.contains('\x1b') && !said.contains('\n'), "{said:?}");
}

/// JSON of any kind, in which the API's keys are frequent.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a ]{0,3}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "choices",
        "text",
        "index",
        "logprobs",
        "token_logprobs",
        "top_logprobs",
        "usage",
        "prompt_tokens",
        "x",
    ]);
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..4).prop_map(|pairs| {
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Value>()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_body_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200), prompts in 1_usize..4) {
        if let Ok(answers) = read(&body, prompts) {
            prop_assert_eq!(answers.choices.len(), prompts);
        }
    }

    #[test]
    fn any_json_is_read_or_refused(choices in prop::collection::vec(any_json(), 0..4), prompts in 1_usize..4) {
        let body = json!({"choices": choices}).to_string();
        if let Ok(answers) = read(body.as_bytes(), prompts) {
            prop_assert_eq!(answers.choices.len(), prompts);
            for choice in answers.choices {
                if let LogProbabilities::Tokens { values, largest, .. } = choice.log_probabilities {
                    prop_assert_eq!(values.len(), largest.len());
                }
            }
        }
    }

    #[test]
    fn a_body_that_is_cut_is_never_an_answer(texts in prop::collection::vec(".{0,20}", 1..4), cut in any::<prop::sample::Index>()) {
        let choices: Vec<Value> =
            texts.iter().enumerate().map(|(index, text)| json!({"index": index, "text": text})).collect();
        let body = json!({"choices": choices}).to_string().into_bytes();
        let whole = read(&body, texts.len()).unwrap();
        prop_assert!(whole.choices.iter().map(|choice| &choice.text).eq(&texts));
        let cut = cut.index(body.len());
        prop_assert!(read(&body[..cut], texts.len()).is_err());
    }

    #[test]
    fn any_order_of_choices_is_put_right(order in Just((0..5_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let choices: Vec<Value> =
            order.iter().map(|&index| json!({"index": index, "text": index.to_string()})).collect();
        let found = read(json!({"choices": choices}).to_string().as_bytes(), 5).unwrap();
        let texts: Vec<&str> = found.choices.iter().map(|choice| &*choice.text).collect();
        prop_assert_eq!(texts, ["0", "1", "2", "3", "4"]);
    }
}
