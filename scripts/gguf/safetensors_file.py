"""Reads a safetensors file with numpy alone."""

import json
import sys

import numpy

KINDS = {"F32": "<f4", "F64": "<f8", "U64": "<u8"}


def read(path):
    """All tensors of one file by name; BF16 becomes f32, which holds each value exactly."""
    with open(path, "rb") as file:
        raw = file.read()
    begin = 8 + int.from_bytes(raw[:8], "little")
    tensors = {}
    for name, entry in json.loads(raw[8:begin]).items():
        if name == "__metadata__":
            continue
        data = raw[slice(*(begin + at for at in entry["data_offsets"]))]
        if entry["dtype"] == "BF16":
            values = (numpy.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
        elif entry["dtype"] in KINDS:
            values = numpy.frombuffer(data, KINDS[entry["dtype"]])
        else:
            sys.exit(f"{path}: {name} is {entry['dtype']}; expected BF16, {', '.join(KINDS)}")
        tensors[name] = values.reshape(entry["shape"])
    return tensors
