//! Any template and any conversation end with a text or an error.

use moeprune_chat::{Chat, ChatTemplate, Limits, SpecialTokens};
use proptest::prelude::*;
use serde_json::{Value, json};

const FEW: Limits =
    Limits { template: 1 << 16, steps: 3000, steps_per_64_bytes: 64, output: 1 << 16 };

/// Pieces of which templates are made, right and wrong.
const PIECES: &[&str] = &[
    "{%",
    "%}",
    "{{",
    "}}",
    "{#",
    "#}",
    "{%-",
    "-%}",
    "{{-",
    "-}}",
    "{%+",
    "+%}",
    " ",
    "\n",
    "x",
    "'",
    "\"",
    "\\",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "for ",
    " in ",
    "if ",
    "elif ",
    "else",
    "endif",
    "endfor",
    "set ",
    "=",
    "==",
    "macro ",
    "endmacro",
    "call ",
    "endcall",
    "generation",
    "endgeneration",
    "raw",
    "endraw",
    "with ",
    "endwith",
    "namespace(",
    "range(",
    "loop.index",
    "messages",
    "message",
    ".content",
    "['role']",
    "|tojson",
    "|trim",
    "|length",
    "|join(',')",
    "|map(attribute='a')",
    "|selectattr('a')",
    "|list",
    "|items",
    "|indent(2)",
    ".split('a')",
    ".strip()",
    ".items()",
    ".replace('a', 'b')",
    "[::-1]",
    "[1:]",
    "~",
    "+",
    "-",
    "*",
    "/",
    "%",
    "//",
    "**",
    "not ",
    " and ",
    " or ",
    " is ",
    "defined",
    "none",
    "true",
    "1",
    "0.5",
    "'a'",
    "[1, 2]",
    "{'a': 1}",
    "(1, 2)",
    "{% if x %}",
    "{% endif %}",
    "{% for x in messages %}",
    "{% endfor %}",
    "{{ x }}",
    "{% set x = messages %}",
    "{{ raise_exception('a') }}",
    "é",
    "\u{2028}",
    "a",
    "break",
    "continue",
    "{% generation %}",
    "{% endgeneration %}",
    "__chat_list",
];

fn conversation() -> impl Strategy<Value = Vec<Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from)
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z]{1,5}", inner), 0..4)
                .prop_map(|pairs| pairs.into_iter().collect()),
        ]
    });
    let message = (value.clone(), value).prop_map(
        |(content, calls)| json!({"role": "user", "content": content, "tool_calls": calls}),
    );
    prop::collection::vec(message, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn pieces_of_templates(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40), messages in conversation()) {
        if let Ok(template) = ChatTemplate::new(&pieces.concat(), &SpecialTokens::default()) {
            let _ = template.within(FEW).render(&Chat::of(&messages));
        }
    }

    #[test]
    fn any_text(text in ".{0,60}", messages in conversation()) {
        if let Ok(template) = ChatTemplate::new(&text, &SpecialTokens::default()) {
            let _ = template.within(FEW).render(&Chat::of(&messages));
        }
    }

    /// Values come out as they went in.
    #[test]
    fn tojson_is_json(messages in conversation()) {
        let template = ChatTemplate::new("{{ messages|map(attribute='content')|list|tojson }}", &SpecialTokens::default()).unwrap();
        let contents: Vec<&Value> = messages.iter().map(|message| &message["content"]).collect();
        prop_assume!(!contents.is_empty() && contents.iter().all(|content| !content.is_null()));
        let text = template.render(&Chat::of(&messages)).unwrap();
        let read: Vec<Value> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), contents);
    }

    /// A text without marks of the language is itself, but for the newline at its end.
    #[test]
    fn plain_text_is_itself(text in "[^{}#%\r]{0,60}") {
        let template = ChatTemplate::new(&text, &SpecialTokens::default()).unwrap();
        let messages = [json!({"role": "user"})];
        prop_assert_eq!(template.render(&Chat::of(&messages)).unwrap(), text.strip_suffix('\n').unwrap_or(&text));
    }
}
