#!/usr/bin/env python3
"""Cuts the embedded model as GGUF and holds the result to llama.cpp. scripts/check-gguf.sh runs this with what it needs.

    python3 check.py FOLDER [--moeprune BINARY] [--problems N]

FOLDER is made, and must not exist. A quarter of the experts of each layer goes, by router distance. Then, for F32 and Q8_0:

* the GGUF that moeprune cut is, byte for byte, the conversion of the checkpoint that it cut; split files hold the same tensors;
* llama.cpp loads both files, dense and cut, and answers as `moeprune eval` does on the safetensors: at F32 every answer is
  the same text, at Q8_0, whose rounding alone may flip one, a share of at least 0.95;
* an imatrix becomes the plan that the real observation of the same tokens gives; it is cut along with its model.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys

import gguf

import arctic_to_gguf
import imatrix_of

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "assets" / "nano"
CUT = ["--sparsity", "0.25", "--expert-sparsity", "0.25"]
# As `moeprune eval --task gsm8k_zeroshot` has them.
STOP, NEW_TOKENS = ["Question:", "</s>", "<|im_end|>"], 256
# Share of answers that are the same text in both.
AT_LEAST = {"F32": 1.0, "Q8_0": 0.95}
CHUNKS, CHUNK_SIZE = 32, 512


class Check:
    """What is checked in one folder; failures are collected, so that one does not hide the others."""

    def __init__(self, folder, binary, problems):
        self.folder, self.binary, self.problems = folder, binary, problems
        self.failures = []

    def path(self, name):
        return str(self.folder / name)

    def hold(self, holds, text):
        print(("ok      " if holds else "FAILED  ") + text, flush=True)
        if not holds:
            self.failures.append(text)

    def moeprune(self, *args):
        """Runs the binary; what fails there ends the check, since all that follows needs its output."""
        command = [self.binary, *map(str, args), "--quiet"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            sys.exit(f"{self.binary} does not run: {error}; name the binary in MOEPRUNE or with --moeprune")
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")

    def conversions(self):
        """The plan, the checkpoint that it cuts, and both as GGUF."""
        self.moeprune("plan", MODEL, *CUT, "--read-experts", "--output", self.path("plan.json"))
        self.moeprune("apply", MODEL, self.path("cut"), "--plan", self.path("plan.json"))
        for kind in AT_LEAST:
            arctic_to_gguf.convert(MODEL, self.path(f"dense-{kind}.gguf"), kind)
            arctic_to_gguf.convert(self.path("cut"), self.path(f"converted-{kind}.gguf"), kind)

    def bytes(self, kind):
        """moeprune's cut of a GGUF against the conversion of its cut of the safetensors."""
        source, cut = self.path(f"dense-{kind}.gguf"), self.path(f"cut-{kind}.gguf")
        self.moeprune("apply", source, cut, "--plan", self.path("plan.json"))
        self.moeprune("verify", cut, "--source", source, "--plan", self.path("plan.json"))
        same = sha256(cut) == sha256(self.path(f"converted-{kind}.gguf"))
        self.hold(same, f"{kind}: the cut GGUF is the conversion of the cut checkpoint, byte for byte")

    def split(self):
        """A model in several files stays one, and holds what the single file holds."""
        arctic_to_gguf.convert(MODEL, self.path("split.gguf"), "Q8_0", files_of=20)
        source = self.path(first_of_split(self.folder))
        out = self.folder / "cut-split"
        self.moeprune("apply", source, out, "--plan", self.path("plan.json"))
        self.moeprune("verify", out, "--source", source, "--plan", self.path("plan.json"))
        split = {}
        for file in sorted(out.glob("*.gguf")):
            split.update(tensors_of(file))
        same = split == tensors_of(self.path("cut-Q8_0.gguf"))
        self.hold(same, "split files hold the same tensors as the single file")
        self.compare_answers("split, cut, Q8_0", out / first_of_split(out), "cut", AT_LEAST["Q8_0"])

    def ask_moeprune(self):
        """Answers of the safetensors models, dense and cut."""
        questions = MODEL / "data" / "test.jsonl"
        self.texts = {}
        for name, model in {"dense": MODEL, "cut": self.path("cut")}.items():
            written = self.path(f"{name}.json")
            self.moeprune(
                "eval", model, "--task", "gsm8k_zeroshot", "--data", questions, "--limit", self.problems, "--json", written
            )
            self.texts[name] = [answer["output"] for answer in read_json(written)["answers"]]
        with open(questions, encoding="utf-8") as file:
            asked = [json.loads(line)["question"] for line in file][: self.problems]
        prompts = [f"Question: {question}\nAnswer:" for question in asked]
        with open(self.path("prompts.json"), "w", encoding="utf-8") as file:
            json.dump({"prompts": prompts, "stop": STOP, "new_tokens": NEW_TOKENS}, file)

    def compare_answers(self, what, model, twin, at_least):
        """llama.cpp's answers with `model` against those of its safetensors twin. A process of its own frees what it loaded."""
        written = self.path("answers.json")
        command = [sys.executable, HERE / "answers.py", model, self.path("prompts.json"), written]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.hold(False, f"{what}: llama.cpp ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            return
        theirs, ours = read_json(written), self.texts[twin]
        same = sum(their == our for their, our in zip(theirs, ours, strict=True))
        enough = same >= at_least * len(ours)
        self.hold(enough, f"{what}: {same} of {len(ours)} answers are the same text; at least {at_least:.0%} expected")
        if not enough:
            number = next(at for at, pair in enumerate(zip(theirs, ours)) if pair[0] != pair[1])
            print(f"        problem {number}:\n        llama.cpp {theirs[number]!r}\n        moeprune  {ours[number]!r}")

    def imatrix(self):
        """From an imatrix to a smaller GGUF, as docs/gguf.md has it, against a real observation."""
        model, twin, imatrix = self.path("dense-Q8_0.gguf"), self.path("twin.obs"), self.path("imatrix.gguf")
        text = MODEL / "data" / "calibration.jsonl"
        blocks = ["--samples", CHUNKS, "--seq-len", CHUNK_SIZE]
        self.moeprune("observe", MODEL, "--calibration", text, *blocks, "--output", twin)
        imatrix_of.convert(twin, imatrix, CHUNKS, CHUNK_SIZE)
        seen = self.path("model.obs")
        self.moeprune("observe", model, "--imatrix", imatrix, "--output", seen)
        layers = []
        for planned, observation in ((MODEL, twin), (model, seen)):
            plan = self.path(f"frequency-{len(layers)}.json")
            frequency = ["--criterion", "frequency", "--observation", observation]
            self.moeprune("plan", planned, *CUT, *frequency, "--output", plan)
            layers.append(read_json(plan)["layers"])
        self.hold(layers[0] == layers[1], "the plan from an imatrix is the plan from an observation of the same tokens")

        small, small_imatrix = self.path("small.gguf"), self.path("small.imatrix.gguf")
        self.moeprune(
            "apply", model, small, "--plan", self.path("frequency-1.json"), "--imatrix", imatrix, "--imatrix-out", small_imatrix
        )
        kept = [[survivor["source"] for survivor in layer["survivors"]] for layer in layers[1]]
        self.hold(cut_imatrix(imatrix, kept) == tensors_of(small_imatrix), "the imatrix is cut to the experts that were kept")


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def tensors_of(path):
    """Type, ggml's dimensions and bytes of all tensors by name."""
    return {
        tensor.name: (tensor.tensor_type, tensor.shape.tolist(), tensor.data.tobytes())
        for tensor in gguf.GGUFReader(path).tensors
    }


def first_of_split(folder):
    """Name of the first file of the only split set in a folder."""
    found = sorted(path.name for path in pathlib.Path(folder).glob("*-00001-of-*.gguf"))
    if len(found) != 1:
        sys.exit(f"{folder}: expected one split set, found {found}")
    return found[0]


def cut_imatrix(path, kept):
    """The tensors of an imatrix with the kept experts' rows alone."""
    tensors = {}
    for tensor in gguf.GGUFReader(path).tensors:
        data, shape = tensor.data, tensor.shape.tolist()
        if "_exps." in tensor.name:
            data = data[kept[int(tensor.name.split(".")[1])]]
            shape[-1] = len(data)
        tensors[tensor.name] = (tensor.tensor_type, shape, data.tobytes())
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=pathlib.Path, help="where files go; must not exist")
    parser.add_argument("--moeprune", default="moeprune", help="the binary [default: moeprune]")
    parser.add_argument("--problems", type=int, default=100, help="how many of the 500 are asked [default: 100]")
    args = parser.parse_args()
    if not 1 <= args.problems <= 500:
        parser.error("--problems is from 1 to 500")
    try:
        args.folder.mkdir(parents=True)
    except FileExistsError:
        parser.error(f"{args.folder} exists: remove it, or name another folder")
    check = Check(args.folder, args.moeprune, args.problems)
    check.conversions()
    check.ask_moeprune()
    for kind, at_least in AT_LEAST.items():
        check.compare_answers(f"dense, {kind}", check.path(f"dense-{kind}.gguf"), "dense", at_least)
        check.bytes(kind)
        check.compare_answers(f"cut, {kind}", check.path(f"cut-{kind}.gguf"), "cut", at_least)
    check.split()
    check.imatrix()
    if check.failures:
        sys.exit(f"{len(check.failures)} of the checks failed")


if __name__ == "__main__":
    main()
