#!/usr/bin/env python3
"""Writes what `moeprune observe` stored as the imatrix that llama-imatrix writes on the same tokens.

    python3 imatrix_of.py OBSERVATION OUT.gguf --chunks N --chunk-size T

N blocks of T tokens, as `observe` was called with (--samples, --seq-len). Mixtral and Arctic. No wheel has llama-imatrix, so a check
without a C++ compiler makes its imatrix here. What is left out is what moeprune has no sums of and does not read: `.in_sum` and
`.stats`. Wants the packages gguf and numpy.
"""

import argparse
import re
import sys

import gguf
import numpy

import safetensors_file

# What one input feeds: several Linears may read the same.
FEEDS = {
    "attention.query": ["attn_q", "attn_k", "attn_v"],
    "attention.output": ["attn_output"],
    "router": ["ffn_gate_inp"],
    "residual.gate": ["ffn_gate", "ffn_up"],
    "residual.down": ["ffn_down"],
}
FEEDS_EXPERTS = {"gate": ["ffn_gate_exps", "ffn_up_exps"], "down": ["ffn_down_exps"]}


def entries_of(observation):
    """(weight's name, sums of squares [matrices, inputs], tokens [matrices]); experts are matrices of one weight."""
    layers = {int(found[1]) for name in observation if (found := re.match(r"layer\.(\d+)\.", name))}
    for layer in sorted(layers):

        def stored(site, what):
            return observation[f"layer.{layer}.input.{site}.{what}"]

        for site, fed in FEEDS.items():
            if f"layer.{layer}.input.{site}.tokens" not in observation:
                continue
            for name in fed:
                yield f"blk.{layer}.{name}.weight", stored(site, "sum_squares")[None], stored(site, "tokens")[None]
        experts = len(observation[f"layer.{layer}.routing.counts"])
        for site, fed in FEEDS_EXPERTS.items():
            sums = numpy.stack([stored(f"expert.{expert}.{site}", "sum_squares") for expert in range(experts)])
            tokens = numpy.stack([stored(f"expert.{expert}.{site}", "tokens") for expert in range(experts)])
            for name in fed:
                yield f"blk.{layer}.{name}.weight", sums, tokens


def convert(observation, output, chunks, chunk_size):
    """Writes the imatrix `output` of the file `observation`: so many chunks of so many tokens."""
    tensors = safetensors_file.read(observation)
    if "layer.0.routing.tokens" not in tensors:
        sys.exit(f"{observation} is not what `moeprune observe` writes")
    if int(tensors["layer.0.routing.tokens"]) != chunks * chunk_size:
        sys.exit(f"{observation} has {tensors['layer.0.routing.tokens']} tokens, not {chunks} × {chunk_size}")
    writer = gguf.GGUFWriter(str(output), "")
    # An imatrix has a type and no architecture.
    writer.kv_data[0].clear()
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["calibration"])
    writer.add_uint32("imatrix.chunk_count", chunks)
    writer.add_uint32("imatrix.chunk_size", chunk_size)
    for name, sums, tokens in sorted(entries_of(tensors), key=lambda entry: entry[0]):
        if len(sums) == 1:
            sums, tokens = sums[0], tokens
        else:
            tokens = tokens[:, None]
        writer.add_tensor(f"{name}.in_sum2", sums.astype("<f4"))
        writer.add_tensor(f"{name}.counts", tokens.astype("<f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("observation", metavar="OBSERVATION")
    parser.add_argument("output", metavar="OUT.gguf", help="file to write")
    parser.add_argument("--chunks", type=int, required=True)
    parser.add_argument("--chunk-size", type=int, required=True)
    args = parser.parse_args()
    convert(args.observation, args.output, args.chunks, args.chunk_size)


if __name__ == "__main__":
    main()
