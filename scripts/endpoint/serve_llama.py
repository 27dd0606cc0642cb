#!/usr/bin/env python3
"""Serves a GGUF with llama.cpp's own HTTP server until standard input ends; prints the address first.

    python3 serve_llama.py MODEL.gguf

Keys and values are f32 and flash attention is off, so that near-ties fall as in moeprune. Wants the package xllamacpp.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "gguf"))

import answers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL.gguf")
    args = parser.parse_args()
    server = answers.serve(args.model)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
