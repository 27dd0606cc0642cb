#!/usr/bin/env python3
"""Greedy answers of a GGUF in llama.cpp, with its own tokenizer, on one thread.

    python3 answers.py MODEL.gguf PROMPTS.json OUT.json

PROMPTS.json is {"prompts": [string...], "stop": [string...], "new_tokens": n}, OUT.json the list of the answers, each cut at the
stop strings. Wants the package xllamacpp.
"""

import argparse
import json
import sys

import xllamacpp


def serve(model):
    """The model behind llama.cpp's server, keys and values in f32 and flash attention off.

    Near-ties between routers or tokens flip with the default cache of f16.
    """
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.fit_params = False
    params.warmup = False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_ram_mib = 0
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = 1
    params.n_threads_http = 1
    # Only errors, on stderr: the exception does not say why a file is refused.
    params.verbosity = 1
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        sys.exit(f"llama.cpp does not load {model}: {error}")


def answer(server, prompt, stop, new_tokens):
    reply = server.handle_completions(
        {"prompt": prompt, "max_tokens": new_tokens, "temperature": 0, "stop": stop, "cache_prompt": False}
    )
    if "choices" not in reply:
        sys.exit(f"llama.cpp refused a prompt: {reply}")
    return reply["choices"][0]["text"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL.gguf")
    parser.add_argument("prompts", metavar="PROMPTS.json")
    parser.add_argument("output", metavar="OUT.json")
    args = parser.parse_args()
    with open(args.prompts, encoding="utf-8") as file:
        asked = json.load(file)
    server = serve(args.model)
    outputs = [answer(server, prompt, asked["stop"], asked["new_tokens"]) for prompt in asked["prompts"]]
    with open(args.output, "w", encoding="utf-8") as file:
        json.dump(outputs, file)


if __name__ == "__main__":
    main()
