#!/usr/bin/env python3
"""Writes a safetensors model in Arctic's shape (assets/nano, or one cut from it) as a GGUF for llama.cpp.

    python3 arctic_to_gguf.py MODEL OUT.gguf [--type F32|Q8_0]

Names, metadata and the order of query and key rows are those of llama.cpp's own converter. Only what the embedded model
needs is here: one safetensors file, every layer with experts, byte-level BPE. Wants the packages gguf and numpy.
"""

import argparse
import json
import pathlib
import re
import sys

import gguf
import numpy

import safetensors_file

# Tensors of a layer: name in the checkpoint, name in GGUF. w1 is the gate, w3 up, w2 down.
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    # The dense MLP has the plain norm's name, and the experts' norm is extra.
    "residual_layernorm": "ffn_norm",
    "residual_mlp.w1": "ffn_gate",
    "residual_mlp.w3": "ffn_up",
    "residual_mlp.w2": "ffn_down",
    "post_attention_layernorm": "ffn_norm_exps",
    "block_sparse_moe.gate": "ffn_gate_inp",
}
EXPERTS = {"w1": "ffn_gate_exps", "w3": "ffn_up_exps", "w2": "ffn_down_exps"}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}

# Routers stay in F32 at any type, as llama.cpp keeps them; so do norms, which are vectors.
STAYS_F32 = "ffn_gate_inp"


def interleaved(weight, heads):
    """Query or key rows in the order that llama.cpp rotates: pairs side by side instead of half a head apart."""
    rows, inputs = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, inputs).swapaxes(1, 2).reshape(rows, inputs)


def gguf_tensors(config, tensors):
    """(name, f32 array) in the order of the file; experts stacked, the expert outermost."""

    def take(name):
        if name not in tensors:
            sys.exit(f"the model has no tensor {name}: is it in Arctic's shape?")
        return numpy.ascontiguousarray(tensors[name])

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for theirs, ours in OUTSIDE.items():
        yield f"{ours}.weight", take(f"{theirs}.weight")
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for theirs, ours in LAYER.items():
            weight = take(f"{prefix}.{theirs}.weight")
            if ours in heads:
                weight = interleaved(weight, heads[ours])
            yield f"blk.{layer}.{ours}.weight", weight
        for theirs, ours in EXPERTS.items():
            stack = [
                take(f"{prefix}.block_sparse_moe.experts.{expert}.{theirs}.weight")
                for expert in range(config["num_local_experts"])
            ]
            yield f"blk.{layer}.{ours}.weight", numpy.stack(stack)


def add_config(writer, config):
    head = config["hidden_size"] // config["num_attention_heads"]
    writer.add_name("embedded model")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(head)
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])


def add_tokenizer(writer, config, tokenizer):
    """Byte-level BPE as llama.cpp has it.

    None of its pre-tokenizers keeps a newline with the punctuation before it and a space with the digit after it, as this
    tokenizer does. Tokens that end in a newline are therefore user-defined ones, which are found before the text is cut.
    """
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["id"] for token in tokenizer["added_tokens"]}
    texts, types = [], []
    for text, token in sorted(vocabulary.items(), key=lambda entry: entry[1]):
        if token in special:
            types.append(gguf.TokenType.CONTROL)
        elif re.fullmatch(r"[!-/:-@[-`{-~]+Ċ+", text):
            text = text.replace("Ċ", "\n")
            types.append(gguf.TokenType.USER_DEFINED)
        else:
            types.append(gguf.TokenType.NORMAL)
        texts.append(text)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)


def convert(model, output, kind, files_of=0):
    """Writes the model directory `model` as the file `output`, matrices in `kind`: F32, or a name of a GGML type.

    With `files_of`, a split set of so many tensors a file: NAME-00001-of-0000N.gguf for NAME.gguf.
    """
    model = pathlib.Path(model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    if config["model_type"] != "arctic" or config["moe_layer_frequency"] != 1 or not config["use_residual"]:
        sys.exit(f"{model}/config.json: expected Arctic with experts and a residual MLP in every layer")
    kind = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(str(output), "arctic", split_max_tensors=files_of)
    add_config(writer, config)
    add_tokenizer(writer, config, tokenizer)
    for name, weight in gguf_tensors(config, safetensors_file.read(model / "model.safetensors")):
        if kind == gguf.GGMLQuantizationType.F32 or weight.ndim == 1 or STAYS_F32 in name:
            writer.add_tensor(name, weight)
        else:
            writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="directory with config.json, tokenizer.json, model.safetensors")
    parser.add_argument("output", metavar="OUT.gguf", help="file to write")
    parser.add_argument("--type", default="F32", choices=["F32", "Q8_0", "Q4_0", "Q5_1"], help="of all matrices but routers")
    args = parser.parse_args()
    convert(args.model, args.output, args.type)


if __name__ == "__main__":
    main()
