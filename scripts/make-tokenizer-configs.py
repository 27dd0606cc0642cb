#!/usr/bin/env python3
"""Writes the ids that transformers gives texts with Mixtral's tokenizer.model beside several tokenizer_config.json.

    pip install transformers sentencepiece protobuf
    scripts/make-tokenizer-configs.py
"""

import json
import shutil
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

FOLDER = Path(__file__).resolve().parent.parent / "assets/tokenizers/mixtral"
TEXTS = [
    "", "hello", " hello", "  hello", "<s>hello</s> world", "a<|im_start|>user\nhi <|im_end|>  there",
    "perhapsso perhapssos <pad> x", "▁x", "\n\nA:", "x <s> y", "</s>", "🙂 ۩\t<unk>",
]


def token(content, **flags):
    plain = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    return {"content": content, **plain, **flags}


def main():
    released = json.loads((FOLDER / "tokenizer_config.json").read_text())
    known = released["added_tokens_decoder"]
    added = known | {
        "32000": token("<|im_start|>"),
        "32001": token("<|im_end|>", rstrip=True),
        "32002": token("perhapsso", special=False, single_word=True),
    }
    configs = {
        "without legacy": released | {"legacy": False},
        "with EOS": released | {"add_bos_token": False, "add_eos_token": True},
        "added tokens": released | {"pad_token": "<pad>", "added_tokens_decoder": added},
        "added tokens, without legacy": released | {"legacy": False, "pad_token": "<pad>", "added_tokens_decoder": added},
    }
    golden = []
    for name, config in configs.items():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(FOLDER / "tokenizer.model", folder)
            (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
            (Path(folder) / "config.json").write_text('{"model_type": "mixtral"}')
            tokenizer = AutoTokenizer.from_pretrained(folder)
        texts = [{"text": text, "ids": tokenizer.encode(text)} for text in TEXTS]
        golden.append({"name": name, "config": config, "texts": texts})
    with open(FOLDER / "configs.json", "w", encoding="utf-8") as file:
        json.dump(golden, file, ensure_ascii=False, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
