#!/usr/bin/env python3
"""What transformers makes of chat templates: the references of crates/moeprune-chat.

Nothing in CI runs this: it wants Python packages that nothing else here needs (no torch).

    python3 -m pip install "transformers>=5.24" jinja2
    python3 scripts/chat-templates.py write                       # tests/golden of the crate
    python3 scripts/chat-templates.py other FOLDER OUT            # the same of any other *.jinja

The second writes one file of references per template of FOLDER into OUT, beside a copy of the template. The crate's test `others` holds
the crate to them: `MOEPRUNE_CHAT_TEMPLATES=OUT cargo test -p moeprune-chat --test golden others -- --ignored`.

A reference is the text, or `null` where transformers refuses (any error). `strftime_now` gives the first second of 2025.
"""

import argparse
import datetime
import json
import pathlib
import shutil

CRATE = pathlib.Path(__file__).resolve().parent.parent / "crates" / "moeprune-chat" / "tests"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


class Fixed(datetime.datetime):
    """The moment that the crate gives."""

    @classmethod
    def now(cls, tz=None):
        return cls(2025, 1, 1)


def tokenizer():
    """A tokenizer for its special tokens alone."""
    import tokenizers
    import transformers
    import transformers.utils.chat_template_utils as utils

    utils.datetime = Fixed
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, **TOKENS)


def rendered(tokens, template, chat):
    try:
        return tokens.apply_chat_template(
            chat["messages"],
            chat_template=template,
            tools=chat.get("tools"),
            add_generation_prompt=chat.get("add_generation_prompt", False),
            tokenize=False,
            **chat.get("variables", {}),
        )
    except Exception:
        return None


def references(tokens, template, chats):
    texts = {chat["name"]: rendered(tokens, template, chat) for chat in chats}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(text, ensure_ascii=False)}" for name, text in texts.items())
    return "{\n" + lines + "\n}\n", sum(text is None for text in texts.values())


def write_folder(templates, out):
    tokens, chats = tokenizer(), json.loads((CRATE / "conversations.json").read_text("utf-8"))
    out.mkdir(exist_ok=True)
    for path in sorted(templates.glob("*.jinja")):
        text, refused = references(tokens, path.read_text("utf-8"), chats)
        (out / f"{path.stem}.json").write_text(text, "utf-8")
        print(f"{path.stem}: {len(chats) - refused} rendered, {refused} refused")


def write_expressions():
    """Small templates, each with the text that transformers makes of it."""
    tokens = tokenizer()
    cases = json.loads((CRATE / "expressions.json").read_text("utf-8"))
    chat = cases["chat"]
    texts = [rendered(tokens, template, chat) for template in cases["templates"]]
    lines = ",\n".join(json.dumps(pair, ensure_ascii=False) for pair in zip(cases["templates"], texts))
    (CRATE / "golden" / "expressions.json").write_text("[\n" + lines + "\n]\n", "utf-8")
    print(f"expressions: {sum(text is not None for text in texts)} rendered of {len(texts)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    verbs.add_parser("write", help="write the references in the repository again")
    other = verbs.add_parser("other", help="write references of other templates")
    other.add_argument("templates", type=pathlib.Path)
    other.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    if args.verb == "write":
        write_folder(CRATE / "templates", CRATE / "golden")
        write_expressions()
    else:
        write_folder(args.templates, args.out)
        for path in args.templates.glob("*.jinja"):
            shutil.copy(path, args.out)


if __name__ == "__main__":
    main()
