//! Conversations in all dialects, as the messages that chat templates are written for.

use crate::made::{error, shown};

fn check(record: &str, expected: &str) {
    let shown = shown(record);
    let (_, line) = shown.split_once("\nline 1: ").unwrap();
    assert_eq!(line, expected, "{record}");
}

const ONE_AND_ONE: &str =
    "{\"role\":\"user\",\"content\":\"1 + 1?\"} {\"role\":\"assistant\",\"content\":\"2\"}";

#[test]
fn dialects_of_one_conversation() {
    let check = |record| check(record, ONE_AND_ONE);
    check(
        r#"{"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}"#,
    );
    check(r#"[{"role": "user", "content": "1 + 1?"}, {"content": "2", "role": "assistant"}]"#);
    check(
        r#"{"messages": "[{\"role\": \"user\", \"content\": \"1 + 1?\"}, {\"role\": \"assistant\", \"content\": \"2\"}]"}"#,
    );
    check(
        r#"{"conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]}"#,
    );
    check(
        r#"{"conversations": [{"value": "1 + 1?", "from": "user", "weight": null}, {"from": "Assistant", "value": "2"}], "tools": ""}"#,
    );
    check(
        r#"{"conversation": [{"role": "human", "content": "1 + 1?"}, {"role": "gpt", "content": "2"}], "tools": []}"#,
    );
    check(r#"{"instruction": "1 + 1?", "output": "2"}"#);
    check(
        r#"{"instruction": "1 + 1?", "input": "", "output": "2", "system": null, "history": []}"#,
    );
    check(r#"{"instruction": "1 + 1?", "context": "", "response": "2", "category": "sums"}"#);
    check(r#"{"instruction": "", "input": "1 + 1?", "output": "2"}"#);
    check(r#"{"prompt": "1 + 1?", "completion": "2"}"#);
    check(r#"{"prompt": "1 + 1?", "response": "2"}"#);
    check(
        r#"{"prompt": [{"role": "user", "content": "1 + 1?"}], "completion": [{"role": "assistant", "content": "2"}]}"#,
    );
    check(
        r#"{"prompt": "x", "messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}"#,
    );
}

#[test]
fn systems_and_histories() {
    let system = "{\"role\":\"system\",\"content\":\"Be brief.\"} ";
    let expected = format!("{system}{ONE_AND_ONE}");
    check(
        r#"{"system": "Be brief.", "conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]}"#,
        &expected,
    );
    check(
        r#"{"system": "x", "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]}"#,
        &expected,
    );
    check(r#"{"system": "Be brief.", "instruction": "1 + 1?", "output": "2"}"#, &expected);
    check(
        r#"{"instruction": "b", "input": "c", "output": "d", "history": [["a", "A"]]}"#,
        "{\"role\":\"user\",\"content\":\"a\"} {\"role\":\"assistant\",\"content\":\"A\"} \
         {\"role\":\"user\",\"content\":\"b\\nc\"} {\"role\":\"assistant\",\"content\":\"d\"}",
    );
}

#[test]
fn calls_of_tools() {
    let called = |rest: &str, arguments: &str| {
        format!(
            "{{\"role\":\"assistant\"{rest},\"tool_calls\":[{{\"type\":\"function\",\"function\":{{\"name\":\"add\",\"arguments\":{arguments}}}}}]}}"
        )
    };
    let call = |rest: &str| called(rest, "{\"a\":1}");
    let as_text = |rest: &str| called(rest, r#""{\"a\": 1}""#);
    let arguments = r#"{"name": "add", "arguments": "{\"a\": 1}"}"#;
    check(
        &format!(
            r#"{{"messages": [{{"role": "assistant", "content": null, "tool_calls": [{{"type": "function", "function": {arguments}}}]}}]}}"#
        ),
        &as_text(",\"content\":null"),
    );
    check(
        &format!(
            r#"{{"messages": [{{"role": "assistant", "tool_calls": [{{"type": "function", "function": {arguments}}}]}}]}}"#
        ),
        &as_text(""),
    );
    check(
        &format!(r#"{{"messages": [{{"role": "assistant", "function_call": {arguments}}}]}}"#),
        &as_text(""),
    );
    check(
        r#"{"messages": [{"role": "assistant", "content": "", "tool_calls": "[{\"type\": \"function\", \"function\": {\"name\": \"add\", \"arguments\": {\"a\": 1}}}]"}]}"#,
        &call(",\"content\":\"\""),
    );
    check(
        r#"{"conversations": [{"from": "function_call", "value": "{\"name\": \"add\", \"arguments\": {\"a\": 1}}"}]}"#,
        &call(",\"content\":\"\""),
    );
    check(
        r#"{"conversations": [{"from": "observation", "value": "2"}], "tools": "[{\"name\": \"add\"}]"}"#,
        "{\"role\":\"tool\",\"content\":\"2\"} tools [{\"name\":\"add\"}]",
    );
    check(
        r#"{"messages": [{"role": "tool", "content": "2", "tool_call_id": "7", "name": null}], "tools": [{"type": "function"}]}"#,
        "{\"role\":\"tool\",\"content\":\"2\",\"tool_call_id\":\"7\"} tools [{\"type\":\"function\"}]",
    );
}

#[test]
fn what_templates_may_know_is_kept() {
    check(
        r#"{"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}], "reasoning_content": "b"}]}"#,
        r#"{"role":"developer","content":[{"type":"text","text":"a"}],"reasoning_content":"b"}"#,
    );
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        r#"{"messages": []}"#,
        r#"{"messages": 1}"#,
        r#"{"messages": "x"}"#,
        r#"{"messages": ["a"]}"#,
        r#"{"messages": [{"content": "a"}]}"#,
        r#"{"messages": [{"role": "", "content": "a"}]}"#,
        r#"{"messages": [{"role": 1, "content": "a"}]}"#,
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]}"#,
        r#"{"messages": [{"role": "user", "content": null}]}"#,
        r#"{"messages": [{"role": "user", "content": {"a": 1}}]}"#,
        r#"{"messages": [{"role": "user", "content": ["a"]}]}"#,
        r#"{"messages": [{"role": "user", "content": "a"}], "tools": {"a": 1}}"#,
        r#"{"messages": [{"role": "user", "content": "a"}], "tools": "x"}"#,
        r#"{"conversations": [{"from": "narrator", "value": "a"}]}"#,
        r#"{"conversations": ["a"]}"#,
        r#"{"instruction": "a", "output": "b", "history": [["a"]]}"#,
        r#"{"instruction": "a", "output": 1}"#,
        r#"{"prompt": "a", "completion": {}}"#,
    ];
    let said: Vec<String> = cases.into_iter().map(error).collect();
    insta::assert_snapshot!(said.join("\n"));
}
