#!/usr/bin/env python3
"""Trains the small SentencePiece models of assets/tokenizers and writes ids that SentencePiece gives random texts with them.

    pip install sentencepiece
    scripts/make-tokenizer-models.py

The text they are trained on is that of assets/nano, which this repository makes, and the words below.
"""

import io
import json
import random
from pathlib import Path

import sentencepiece as spm

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "assets/tokenizers/sentencepiece"
WORDS = """naïve café Ångström déjà vu Straße ﬁne ①② ½ ｆｕｌｌ ｗｉｄｔｈ 東京 大阪 日本語 中文 한국어 привет мир γειά σου
emoji 🙂 🙃 👍🏽 e\u0301tude n\u0303 x\u0323\u0302 ™ ℃ … ‘quoted’ “text” — dash tab\there""".split(" ")
MODELS = {
    "unigram_nfkc": dict(model_type="unigram", vocab_size=700),
    "unigram_bytes": dict(
        model_type="unigram", vocab_size=900, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, user_defined_symbols=["<sep>", "=>", "<|turn|>"],
    ),
    "unigram_phrases": dict(
        model_type="unigram", vocab_size=600, normalization_rule_name="identity", split_by_whitespace=False,
    ),
    "bpe_plain": dict(
        model_type="bpe", vocab_size=600, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=False, user_defined_symbols=["<sep>", "=>", "<|turn|>", "▁▁▁▁"],
    ),
    "bpe_nfkc": dict(
        model_type="bpe", vocab_size=900, byte_fallback=True, user_defined_symbols=["<sep>", "①"],
    ),
    "bpe_small": dict(
        model_type="bpe", vocab_size=240, character_coverage=0.98, normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    ),
    "bpe_bytes": dict(
        model_type="bpe", vocab_size=900, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
    ),
}


def training_text():
    lines = []
    for path in sorted((ROOT / "assets/nano/data").glob("*")):
        if path.suffix in (".txt", ".jsonl"):
            lines += path.read_text(encoding="utf-8").splitlines()[:1500]
    draw = random.Random(1)
    lines += [" ".join(draw.choices(WORDS, k=12)) for _ in range(400)]
    return lines


def random_text(draw, corpus):
    parts = []
    for _ in range(draw.randrange(1, 9)):
        kind = draw.randrange(12)
        line = draw.choice(corpus)
        at = draw.randrange(len(line) + 1)
        parts.append([
            line[at:at + draw.randrange(1, 30)],
            " " * draw.randrange(1, 5),
            draw.choice(["\n", "\t", "\r\n", "\u00a0", "\u3000", "\u200b", "\x01", "\x7f"]),
            draw.choice(WORDS),
            str(draw.randrange(10**draw.randrange(1, 8))),
            draw.choice(["<sep>", "=>", "<|turn|>", "①", "<sep", "<0x0A>", "    "]),
            "".join(chr(draw.randrange(0x4E00, 0x9FFF)) for _ in range(draw.randrange(1, 4))),
            draw.choice("aeioun") + "".join(chr(draw.randrange(0x300, 0x310)) for _ in range(draw.randrange(1, 2))),
            draw.choice(["🙂", "👩‍👩‍👧", "🇩🇪🇫🇷", "☃️"]),
            "".join(chr(draw.randrange(0x21, 0x7F)) for _ in range(draw.randrange(1, 6))),
            draw.choice("abe.=-") * draw.randrange(1, 30),
            "▁" * draw.randrange(1, 3),
        ][kind])
    return "".join(parts)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    corpus = training_text()
    draw = random.Random(2)
    texts = ["", " ", "   ", "a", " a", "a ", "▁", "<sep>", "a <sep> b", "=>=>", "hello world", "\n\nA:"]
    texts += [random_text(draw, corpus) for _ in range(600)]
    # Text of control pieces is a token of its own here, which SentencePiece does not know.
    texts = [text for text in texts if not any(special in text for special in ("<s>", "</s>", "<unk>"))]
    golden = {"texts": texts, "ids": {}}
    for name, options in MODELS.items():
        model = io.BytesIO()
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus), model_writer=model, minloglevel=2, num_threads=1,
            hard_vocab_limit=False, **options,
        )
        (FOLDER / f"{name}.model").write_bytes(model.getvalue())
        processor = spm.SentencePieceProcessor(model_proto=model.getvalue())
        golden["ids"][name] = [processor.encode(text) for text in texts]
        print(name, processor.get_piece_size(), len(model.getvalue()))
    with open(FOLDER / "golden.json", "w", encoding="utf-8") as file:
        json.dump(golden, file, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main()
