#!/usr/bin/env python3
"""Holds what `moeprune eval` says of a checkpoint to stock transformers: the same likelihood of the same tokens.

Nothing in CI runs this: it wants Python packages that nothing else here needs.

    python3 -m pip install torch "transformers>=5"

A repaired checkpoint, for example the small Mixtral of this repository (tokens are ids below its vocabulary of 256):

    python3 scripts/check-transformers.py tokens blocks.jsonl --vocab 256 --blocks 144 --length 32
    moeprune prune assets/parity/mixtral repaired --calibration blocks.jsonl --samples 96 --seq-len 32 \\
        --repair refit --criterion reap --sparsity 0.25 --expert-sparsity 0.25
    moeprune eval repaired --task perplexity --data blocks.jsonl --seq-len 32 --json eval.json
    python3 scripts/check-transformers.py compare repaired blocks.jsonl eval.json --length 32

`compare` puts the tokens of all lines ({"tokens": [...]}) in a row, cuts them into blocks of --length as `moeprune eval`
does, runs each by itself in f32 with no code from the checkpoint, and averages the nats of every token but a block's first.
The exit code is 1 if that is further from `nll` of eval.json than --tolerance, or the numbers of tokens differ.
"""

import argparse
import json
import random
import sys


def write_tokens(args):
    """Writes blocks of ids that are drawn by a seed, so that two machines have the same."""
    draw = random.Random(args.seed)
    with open(args.blocks_file, "x", encoding="utf-8") as file:
        for _ in range(args.blocks):
            ids = [draw.randrange(args.vocab) for _ in range(args.length)]
            file.write(json.dumps({"tokens": ids}) + "\n")


def blocks_of(path, length):
    """The text in consecutive blocks; what is left at the end is one if it has the two tokens that a prediction takes."""
    row = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip():
                row.extend(json.loads(line)["tokens"])
    blocks = [row[at : at + length] for at in range(0, len(row), length)]
    if blocks and len(blocks[-1]) < 2:
        blocks.pop()
    if not blocks:
        sys.exit(f"{path} has fewer than two tokens")
    return blocks


def nats(checkpoint, blocks):
    """Negative log-likelihood in transformers, summed over all predicted tokens, and how many these are."""
    import torch
    import transformers

    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
    )
    wrong = {what: sorted(report[what]) for what in ("missing_keys", "unexpected_keys", "mismatched_keys") if report[what]}
    if wrong:
        sys.exit(f"{checkpoint} does not load as it is: {wrong}")
    model.eval()
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for block in blocks:
            ids = torch.tensor([block])
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].double()
            likelihoods = torch.log_softmax(logits, dim=-1).gather(1, ids[0, 1:, None])
            total -= likelihoods.sum().item()
            tokens += len(block) - 1
    return total, tokens, f"transformers {transformers.__version__}, torch {torch.__version__}"


def compare(args):
    with open(args.eval_json, encoding="utf-8") as file:
        ours = json.load(file)
    if ours.get("task") != "perplexity":
        sys.exit(f"{args.eval_json} is not what `moeprune eval --task perplexity --json` writes")
    total, tokens, versions = nats(args.checkpoint, blocks_of(args.blocks_file, args.length))
    theirs = total / tokens
    off = abs(theirs - ours["nll"])
    print(f"{versions}: {theirs:.8f} nats per token over {tokens} tokens")
    print(f"moeprune: {ours['nll']:.8f} nats per token over {ours['tokens']} tokens")
    print(f"difference: {off:.2e}, allowed {args.tolerance:.0e}")
    if tokens != ours["tokens"]:
        sys.exit("not the same tokens: give both the same file and length, and `moeprune eval` no --limit")
    # Not `off > tolerance`, which NaN would pass.
    if not off <= args.tolerance:
        sys.exit("the likelihoods differ")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    tokens = commands.add_parser("tokens", help="write blocks of random token ids")
    tokens.add_argument("blocks_file", help="file to write; must not exist")
    tokens.add_argument("--vocab", type=int, required=True, help="ids are below this")
    tokens.add_argument("--blocks", type=int, default=144)
    tokens.add_argument("--length", type=int, default=32, help="tokens of a block")
    tokens.add_argument("--seed", type=int, default=0)
    tokens.set_defaults(run=write_tokens)
    check = commands.add_parser("compare", help="hold a checkpoint's likelihood to what moeprune found")
    check.add_argument("checkpoint", help="directory of the model")
    check.add_argument("blocks_file", help='lines of {"tokens": [...]}')
    check.add_argument("eval_json", help="what `moeprune eval --task perplexity --json` wrote")
    check.add_argument("--length", type=int, required=True, help="tokens of a block, as --seq-len")
    check.add_argument("--tolerance", type=float, default=1e-4, help="nats per token")
    check.set_defaults(run=compare)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
