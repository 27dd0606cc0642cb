#!/usr/bin/env python3
"""Writes crates/moeprune-engine/tests/texts/conversations.json: conversations, and the ids that transformers makes of them.

Needs `pip install transformers jinja2` (no torch). The tokenizer is that of assets/nano; templates and conversations are
made here.
"""

import json
import pathlib

import transformers
from transformers import PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "crates/moeprune-engine/tests/texts/conversations.json"

TEMPLATES = {
    "turns": "{{ bos_token }}{% for message in messages %}[{{ message['role'] | upper }}] "
    "{{ message['content'] | trim }}{{ eos_token }}\n{% endfor %}",
    "tools": "{{ bos_token }}{%- if tools %}\nTools: {{ tools | tojson }}\n{%- endif %}\n"
    "{%- for message in messages %}\n"
    "{{ message.role }}: {{ message.content }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\nassistant: {% endif %}",
}

SUM = [
    {"role": "user", "content": "Tom has 3 apples and buys 4 more. How many has he?"},
    {"role": "assistant", "content": " 3 + 4 = 7. He has 7 apples. "},
]
WITH_SYSTEM = [{"role": "system", "content": "You are brief; é, ☃ and </s> too."}] + SUM
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds two numbers.",
            "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}},
        },
    }
]


def main():
    cases = []
    for name, template in TEMPLATES.items():
        for messages in (SUM, WITH_SYSTEM):
            for tools in (None, TOOLS) if name == "tools" else (None,):
                tokenizer = PreTrainedTokenizerFast.from_pretrained(ROOT / "assets/nano")
                tokenizer.chat_template = template
                text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
                ids = tokenizer.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=False)
                cases.append(
                    {"template": template, "messages": messages, "tools": tools, "text": text, "ids": list(ids)}
                )
    made_by = f"transformers {transformers.__version__}"
    OUT.write_text(json.dumps({"made_by": made_by, "cases": cases}, ensure_ascii=False) + "\n")


main()
