#!/usr/bin/env python3
"""Writes a small Mixtral of random weights that vLLM's CPU build serves: heads of 32 features, which the fixtures lack.

    python3 make_mixtral.py FOLDER [--tokenizer assets/nano] [--seed N]

Weights are drawn wide, so that the likeliest token is far from the second and rounding flips nothing. Wants torch and
transformers.
"""

import argparse
import pathlib
import shutil

import torch
import transformers

TOKENIZER = pathlib.Path(__file__).resolve().parent.parent.parent / "assets" / "nano"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path, default=TOKENIZER)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    config = transformers.MixtralConfig(
        vocab_size=864,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_local_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=2048,
        initializer_range=0.15,
        sliding_window=None,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    model = transformers.MixtralForCausalLM(config).float()
    model.save_pretrained(args.folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(args.tokenizer / name, args.folder / name)


if __name__ == "__main__":
    main()
