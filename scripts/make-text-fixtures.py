#!/usr/bin/env python3
"""Makes the Parquet and zstd files that crates/moeprune-text is tested on.

    python3 -m venv VENV && VENV/bin/pip install pyarrow zstandard
    VENV/bin/python scripts/make-text-fixtures.py

The text is made up here. Beside each file, or group of files, is a `.jsonl` of the same records.
"""

import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

OUT = pathlib.Path(__file__).parent.parent / "crates/moeprune-text/tests/text/files"


def lines(name, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (OUT / f"{name}.jsonl").write_text(text, encoding="utf-8")


def parquet(name, rows, schema, **options):
    options = {"compression": "snappy", "store_schema": False, **options}
    table = pa.Table.from_pylist(rows, schema=pa.schema(schema))
    pq.write_table(table, OUT / f"{name}.parquet", **options)


def words():
    return [{"id": i, "text": f"Row {i}: " + "moth " * (i % 7) + "☃" * (i % 3)} for i in range(60)]


def codecs():
    rows = words()
    schema = [("id", pa.int64()), ("text", pa.string())]
    for codec in ["none", "snappy", "gzip", "brotli", "lz4", "zstd"]:
        for version in ["1.0", "2.0"]:
            for dictionary in [True, False]:
                name = f"codec-{codec}-v{version[0]}-{'dictionary' if dictionary else 'plain'}"
                parquet(name, rows, schema, compression=codec, data_page_version=version,
                        use_dictionary=dictionary, row_group_size=25, data_page_size=64, write_batch_size=8)
    lines("codec", rows)


def encodings():
    rows = words()
    for version in ["1.0", "2.0"]:
        for encoding in ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]:
            name = f"encoding-{encoding.split('_BYTE')[0].lower().replace('_', '-')}-v{version[0]}"
            parquet(name, rows, [("text", pa.string())], use_dictionary=False, data_page_version=version,
                    column_encoding={"text": encoding})
    parquet("encoding-large", rows, [("text", pa.large_string())])
    parquet("encoding-binary", rows, [pa.field("text", pa.binary(), nullable=False)])
    lines("encoding", [{"text": row["text"]} for row in rows])


def tokens():
    rows = [{"tokens": [(i * 7919 + k * k) % 50000 for k in range(i % 5 * 40)]} for i in range(40)]
    rows[0] = {"tokens": [4294967295, 0]}
    kinds = {"int64": pa.int64(), "uint32": pa.uint32()}
    for name, kind in kinds.items():
        parquet(f"tokens-{name}", rows, [("tokens", pa.list_(kind))], row_group_size=15)
        parquet(f"tokens-{name}-delta", rows, [("tokens", pa.large_list(pa.field("x", kind, nullable=False)))],
                use_dictionary=False, column_encoding={"tokens.list.element": "DELTA_BINARY_PACKED"})
    lines("tokens", rows)


def chats():
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    rows = [
        {"messages": [{"role": "user", "content": f"What is {i} + 1?", "score": None, "seen": True},
                      {"role": "assistant", "content": f"{i + 1}", "score": i / 4, "seen": False}],
         "tools": None}
        for i in range(9)
    ]
    rows.insert(4, {"messages": [{"role": "assistant", "content": None, "tool_calls": [call, call]},
                                 {"role": "tool", "content": "2", "tool_calls": []}],
                    "tools": '[{"name": "add"}]'})
    calls = pa.list_(pa.struct([("type", pa.string()),
                                ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())]))]))
    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", calls),
                         ("score", pa.float64()), ("seen", pa.bool_())])
    schema = [("messages", pa.list_(message)), ("tools", pa.string())]
    for version in ["1.0", "2.0"]:
        parquet(f"chats-v{version[0]}", rows, schema, data_page_version=version, row_group_size=4)
    lines("chats", rows)
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    rows = [{"conversations": [{"from": "human", "value": "a" * n}, {"from": "gpt", "value": "b"}]} for n in range(3)]
    parquet("sharegpt", rows, [("conversations", pa.list_(turn))], use_compliant_nested_type=False)
    lines("sharegpt", rows)


def others():
    parquet("empty", [], [("text", pa.string())])
    parquet("columns", [{"id": 1, "body": "a"}], [("id", pa.int32()), ("body", pa.string())])
    parquet("null", [{"text": "a"}, {"text": None}], [("text", pa.string())])
    parquet("latin", [{"text": b"a"}, {"text": b"\xe9"}], [("text", pa.binary())])
    parquet("split", [{"text": "a", "tokens": 1}], [("text", pa.string()), ("tokens", pa.int32())])
    parquet("split-read", [{"tokens": [1]}], [("tokens", pa.list_(pa.int32()))], use_dictionary=False,
            column_encoding={"tokens.list.element": "BYTE_STREAM_SPLIT"})
    maps = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("extra", pa.map_(pa.string(), pa.float32()))]))
    rows = [{"messages": [{"role": "user", "content": "a", "extra": [("k", 0.5), ("l", float("nan"))]}]},
            {"messages": [{"role": "user", "content": "b", "extra": [("k", 0.5)]}]}]
    parquet("map", rows, [("messages", maps)])


def data_set():
    """An item of a data set, nested as those of ARC, of which two columns are of types that are left out."""
    rows = [{"question": f"Which is {i}?", "choices": {"text": [str(k) for k in range(i)], "label": list("ABC")[:i]},
             "answer": i % 4 if i != 2 else None, "score": i / 8, "hard": i % 2 == 0, "answers": [{"a": [i, i + 1]}] * (i % 3)}
            for i in range(4)]
    inner = pa.struct([("a", pa.list_(pa.int32()))])
    schema = [("question", pa.string()), ("hash", pa.binary(4)),
              ("choices", pa.struct([("text", pa.list_(pa.string())), ("label", pa.list_(pa.string()))])),
              ("price", pa.decimal128(9, 2)), ("answer", pa.int64()), ("score", pa.float64()), ("hard", pa.bool_()),
              ("answers", pa.list_(inner))]
    lines("data_set", rows)
    parquet("data_set", [{**row, "hash": b"\0\xff\1\2", "price": None} for row in rows], schema)


def pictures():
    """Items with bytes that are no text: alone, beside a path, in a list, and in some rows only. They are left out."""
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = [("image", picture), ("raw", pa.binary()), ("question", pa.string()), ("parts", pa.list_(pa.binary())),
              ("pictures", pa.list_(picture)), ("some", pa.binary()), ("answer", pa.int64())]
    png = b"\x89PNG\xff"
    lines("pictures", [{"image": {"path": f"{i}.png"}, "question": f"What is {i}?", "pictures": [{"path": "a"}, {"path": "b"}],
                        **({"some": "text"} if i % 2 else {}), "answer": i} for i in range(3)])
    rows = [{"image": {"bytes": png, "path": f"{i}.png"}, "raw": png, "question": f"What is {i}?", "parts": [b"a", png, b"b"],
             "pictures": [{"bytes": png, "path": "a"}, {"bytes": png, "path": "b"}], "some": b"text" if i % 2 else png,
             "answer": i} for i in range(3)]
    parquet("pictures", rows, schema)


def archives():
    text = "".join(row["text"] + "\n" for row in words()).encode()
    whole = zstandard.ZstdCompressor(level=19, write_checksum=True).compress(text)
    half = len(text) // 2
    plain = zstandard.ZstdCompressor(level=1, write_content_size=False)
    (OUT / "words.zst").write_bytes(whole)
    (OUT / "words-frames.zst").write_bytes(plain.compress(text[:half]) + plain.compress(text[half:]))
    (OUT / "words.txt").write_bytes(text)


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for make in [codecs, encodings, tokens, chats, others, data_set, pictures, archives]:
        make()
