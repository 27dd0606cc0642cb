//! A chat template.

use moeprune_chat::{Chat, ChatTemplate, Limits};
use serde_json::{Map, Value, json};

use super::{Target, bounded_by};

/// `chat_template.jinja`, rendered with two conversations.
#[derive(Debug)]
pub struct Template {
    messages: Vec<Value>,
    tools: Value,
}

/// A template of a few bytes is a table of instructions, and makes text of any length.
const TIMES: usize = 1024;
/// So few steps that what they make fits the mebibyte that any file has.
const FEW: Limits =
    Limits { template: 1 << 20, steps: 1000, steps_per_64_bytes: 16, output: 1 << 16 };

impl Target for Template {
    const NAME: &'static str = "template";

    fn new() -> Self {
        let call = json!({"function": {"name": "f", "arguments": {"a": [1, 2.5, null, "é"]}}});
        let messages = vec![
            json!({"role": "system", "content": "s"}),
            json!({"role": "user", "content": [{"type": "text", "text": " Hi \n"}]}),
            json!({"role": "assistant", "content": null, "reasoning_content": "r", "tool_calls": [call]}),
            json!({"role": "tool", "content": "t", "name": "f", "items": 1}),
        ];
        let new = Self { messages, tools: json!([{"function": {"name": "f"}}]) };
        // What the engine makes once (tables of filters) is no memory of a file.
        for (_, bytes) in new.valid() {
            drop(new.run(&bytes));
        }
        new
    }

    fn valid(&self) -> Vec<(&'static str, Vec<u8>)> {
        let all = [
            ("turns", TURNS),
            ("tools", TOOLS),
            ("macros", MACROS),
            ("values", VALUES),
            ("spaces", SPACES),
            ("refusing", "{{ raise_exception('no') if not messages else messages|length }}"),
        ];
        all.map(|(name, text)| (name, text.as_bytes().to_vec())).to_vec()
    }

    fn run(&self, bytes: &[u8]) -> Result<(), String> {
        bounded_by(TIMES, bytes.len(), || self.rendered(bytes)).map_err(|error| error.to_string())
    }
}

impl Template {
    fn rendered(&self, bytes: &[u8]) -> Result<(), moeprune_chat::Error> {
        let template = ChatTemplate::of_files(None, Some(bytes))?.expect("is there").within(FEW);
        let variables = Map::new();
        let chat = Chat { variables: &variables, ..Chat::of(&self.messages[..1]) };
        let first = template.render(&chat);
        assert_eq!(template.render(&chat).ok(), first.as_ref().ok().cloned(), "rendered twice");
        let all = Chat { messages: &self.messages, tools: Some(&self.tools), ..chat };
        template.render(&Chat { add_generation_prompt: true, ..all }).map(drop)
    }
}

const TURNS: &str = "{{ bos_token }}{% for message in messages %}
{%- if message.role == 'system' and loop.first -%}
[{{ message['content'] | trim }}]
{%- elif message.content is string %}{{ message.role ~ ': ' + message.content }}{% else %}{% continue %}{% endif %}
{% endfor %}{% generation %}{{ 'a' if add_generation_prompt }}{% endgeneration %}";

const TOOLS: &str = "{% set ns = namespace(calls=[], n=0) %}{% for message in messages if message.tool_calls %}
{% for call in message.tool_calls %}{% set ns.calls = ns.calls + [call.function] %}{% set ns.n = ns.n + 1 %}
{{ call.function.name }}({% for key, value in call.function.arguments.items() %}{{ key }}={{ value | tojson }}{% endfor %})
{% endfor %}{% endfor %}{{ tools | tojson(indent=2) if tools is not none }}{{ ns.n }}{{ ns.calls }}";

const MACROS: &str = "{% macro part(text, tag='p', more=[]) %}<{{ tag }}>{{ text }}{{ more }}</{{ tag }}>{% endmacro %}
{%- for n in [1, 2] recursive %}{{ part(n, more={'a': n}) }}{{ part(text='x', tag=part('y')) }}{% endfor %}";

const VALUES: &str = "{{ [1, 2.5, none, true, 'x\\'y'] }}{{ {'a': (1, 2), 'b': {}} | tojson }}{{ messages[::-1][1:] | length }}
{{ 'a,b'.split(',')[-1] }}{{ 'x' * 3 }}{{ 7 // 2 ** 2 % 3 }}{{ messages | selectattr('role', 'eq', 'user') | map(attribute='content') | list }}
{{ strftime_now('%d %b %Y') }}{{ dict(a=1) | dictsort }}{{ [3, 1] | sort | join('-') }}{{ 'a' in 'abc' and 'b' not in ['a'] }}{{ missing is defined or missing | default('d') }}";

const SPACES: &str = "  {%- set x %} a {% endset -%}  {#- no -#}  {% raw %}{{ x }}{% endraw %}
  {%+ if x %} {{- x -}} {% endif +%}
{% macro part(t) %}{{ caller([t, t]) }}{% endmacro %}{% call(y) part(1) %}{{ y }}{% endcall %}";
