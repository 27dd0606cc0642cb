"""Answers of `moeprune eval` beside those of transformers' batched `generate`.

Both answer the same prompts of GSM8K's form greedily, in f32, in batches of the same size, on all cores, in turns. transformers
pads on the left, runs in inference mode, and does so with each implementation of experts that it has; the fastest one in a first
turn counts. Its time is that of tokenising, `generate` and decoding; loading is left out. The time of `moeprune eval` is that of
the whole process, loading included.

An answer is compared as text, up to the first stop string of the task. A token with which an answer differs is printed with both
logits that transformers gives: where these are equal to six figures, rounding decides, and more such answers than --ties are an
error.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers

STOP = "Question:"
MAX_NEW_TOKENS = 256
# The harness draws shots with this seed.
SHOTS_SEED = 1234


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moeprune")
    parser.add_argument("model")
    parser.add_argument("questions")
    parser.add_argument("--limit", type=int, default=64, help="questions")
    parser.add_argument("--batch", type=int, default=32, help="questions answered together")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--fewshot", type=int, default=0, help="solved examples, drawn from QUESTIONS behind the limit")
    parser.add_argument("--experts", help="only this implementation of experts, of grouped_mm, batched_mm and eager")
    parser.add_argument("--ties", type=int, default=0, help="answers that may differ by rounding")
    return parser.parse_args()


def processor_seconds(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def prompts(asked, shots, count):
    drawn = random.Random(SHOTS_SEED)
    texts = []
    for question in asked:
        examples = drawn.sample(shots, count) if count else []
        before = "".join(f"Question: {e['question']}\nAnswer: {e['answer']}\n\n" for e in examples)
        texts.append(f"{before}Question: {question['question']}\nAnswer:")
    return texts


def by_moeprune(options, files, out):
    task = ["--task", "gsm8k", "--fewshot-data", files["shots"]] if options.fewshot else ["--task", "gsm8k_zeroshot"]
    shots = ["--fewshot", str(options.fewshot)] if options.fewshot else []
    command = [options.moeprune, "eval", options.model, *task, *shots, "--data", files["asked"], "--batch", str(options.batch),
               "--json", out, "--quiet"]
    began, processor = time.perf_counter(), processor_seconds(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{ran.stderr}")
    seconds = time.perf_counter() - began
    processor = processor_seconds(resource.RUSAGE_CHILDREN) - processor
    answers = json.loads(Path(out).read_text())["answers"]
    return [answer["output"] for answer in answers], [answer.get("ended") for answer in answers], seconds, processor


class Transformers:
    def __init__(self, folder):
        self.folder = folder
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.experts = None
        self.model = None

    def load(self, experts):
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            self.folder, dtype=torch.float32, experts_implementation=experts
        ).eval()
        self.experts = experts

    def answer(self, texts, batch, stops):
        more = {"stop_strings": [STOP], "tokenizer": self.tokenizer} if stops else {}
        began, processor = time.perf_counter(), processor_seconds(resource.RUSAGE_SELF)
        answers = []
        with torch.inference_mode():
            for first in range(0, len(texts), batch):
                inputs = self.tokenizer(texts[first : first + batch], return_tensors="pt", padding=True)
                inputs.pop("token_type_ids", None)
                written = self.model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False,
                                              pad_token_id=self.tokenizer.pad_token_id, **more)
                new = written[:, inputs["input_ids"].shape[1] :]
                answers += self.tokenizer.batch_decode(new, skip_special_tokens=True)
        seconds = time.perf_counter() - began
        return [a.split(STOP)[0] for a in answers], seconds, processor_seconds(resource.RUSAGE_SELF) - processor

    def difference(self, prompt, ours, theirs):
        """The two tokens at which answers part, and the logits of both."""
        ids = [self.tokenizer(prompt + text)["input_ids"] for text in (ours, theirs)]
        at = next((i for i, (a, b) in enumerate(zip(*ids)) if a != b), min(map(len, ids)))
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids[0][:at]])).logits[0, -1]
        eos = self.tokenizer.eos_token_id
        tokens = [one[at] if at < len(one) else eos for one in ids]
        return tokens, [float(logits[token]) for token in tokens]


def fastest(theirs, texts, batch, stops, only):
    """The implementation of experts with the shortest turn, loaded."""
    found = {}
    for experts in [only] if only else ("grouped_mm", "batched_mm", "eager"):
        try:
            theirs.load(experts)
            theirs.answer(texts[:batch], batch, stops)  # The first call of each sets things up.
            found[experts] = theirs.answer(texts[:batch], batch, stops)[1]
        except Exception as error:  # Which ones there are, and run here, depends on versions.
            print(f"transformers with experts by {experts}: {type(error).__name__}: {str(error)[:100]}")
    if not found:
        sys.exit("transformers cannot run this model")
    print("a batch by transformers: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.items()))
    best = min(found, key=found.get)
    if theirs.experts != best:
        theirs.load(best)


def spread(rates):
    return f"median {statistics.median(rates):.2f}, {min(rates):.2f} to {max(rates):.2f}"


def main():
    options = arguments()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = [json.loads(line) for line in Path(options.questions).read_text().splitlines() if line.strip()]
    asked, shots = rows[: options.limit], rows[options.limit :]
    texts = prompts(asked, shots, options.fewshot)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads, "
          f"{len(texts)} questions in batches of {options.batch}, {options.fewshot} shots")
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / f"{name}.jsonl") for name in ("asked", "shots")}
        for name, part in (("asked", asked), ("shots", shots)):
            Path(files[name]).write_text("".join(json.dumps(row) + "\n" for row in part))
        out = str(Path(folder) / "out.json")
        ours, ended, _, _ = by_moeprune(options, files, out)
        stops = "stop" in ended
        theirs = Transformers(options.model)
        fastest(theirs, texts, options.batch, stops, options.experts)
        rates, processor = {"ours": [], "theirs": []}, {"ours": [], "theirs": []}
        for turn in range(options.turns):
            ours, _, seconds, used = by_moeprune(options, files, out)
            rates["ours"].append(len(texts) / seconds)
            processor["ours"].append(used)
            answers, seconds, used = theirs.answer(texts, options.batch, stops)
            rates["theirs"].append(len(texts) / seconds)
            processor["theirs"].append(used)
            print(f"turn {turn + 1}: moeprune {rates['ours'][-1]:.2f}, transformers {rates['theirs'][-1]:.2f} questions/s; "
                  f"processor {processor['ours'][-1]:.2f} and {processor['theirs'][-1]:.2f} s")
    different = [i for i, (a, b) in enumerate(zip(ours, answers, strict=True)) if a != b]
    for i in different:
        tokens, logits = theirs.difference(texts[i], ours[i], answers[i])
        print(f"question {i}: tokens {tokens} with logits {logits}\n  moeprune:     {ours[i]!r}\n  transformers: {answers[i]!r}")
    print(f"{len(texts) - len(different)} of {len(texts)} answers are the same text")
    ratios = [a / b for a, b in zip(rates["ours"], rates["theirs"])]
    processor_ratios = [b / a for a, b in zip(processor["ours"], processor["theirs"])]
    print(f"moeprune:     {spread(rates['ours'])} questions/s")
    print(f"transformers: {spread(rates['theirs'])} questions/s, experts by {theirs.experts}")
    print(f"ratio of questions per second, turn by turn: {spread(ratios)}")
    print(f"ratio of processor time, turn by turn: {spread(processor_ratios)}")
    sys.exit(len(different) > options.ties)


if __name__ == "__main__":
    main()
