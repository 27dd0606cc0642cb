#!/usr/bin/env python3
"""What lm-evaluation-harness makes of multiple-choice tasks: the data and references of assets/tasks.

Nothing in CI runs this: it wants Python packages that nothing else here needs.

    python3 -m pip install torch "transformers>=5.24,<6" lm-eval==0.4.13 accelerate datasets pyarrow
    git clone https://github.com/mosaicml/llm-foundry
    python3 scripts/harness-tasks.py data llm-foundry       # data, from its scripts/eval/local_data and from this file
    python3 scripts/harness-tasks.py model                  # a small random Mixtral with the tokenizer of assets/nano
    python3 scripts/harness-tasks.py references             # reference/*.json
    python3 scripts/harness-tasks.py check MODEL DATA       # another model and data of the same layout, against target/debug/moeprune

The harness runs its own task files, unchanged; only where it loads a data set from the Hub, it gets the local files.
A reference has, for each question, the first 16 digits of the SHA-256 of its pairs (context, continuation; each ended by a NUL), the
log-likelihood of each choice and whether it is greedy, and what acc and acc_norm made of it; then the task's results.
"""

import argparse
import hashlib
import json
import pathlib
import random
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
HERE = ROOT / "assets" / "tasks"
TASKS = ["arc_easy", "arc_challenge", "boolq", "hellaswag", "winogrande", "openbookqa", "rte", "piqa", "mmlu"]
SHOTS = {"mmlu": [0, 5], "boolq": [0, 4]}
QUESTIONS, EXAMPLES = 24, 12

# ---------------------------------------------------------------------------------------------------------------- data


def foundry_rows(clone, name):
    path = pathlib.Path(clone) / "scripts" / "eval" / "local_data" / (name + ".jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def without(text, start):
    assert text.startswith(start), text
    return text[len(start) :]


def labelled(choices, gold, numbers):
    labels = ["1", "2", "3", "4", "5"] if numbers else ["A", "B", "C", "D", "E"]
    labels = labels[: len(choices)]
    return {"text": choices, "label": labels}, labels[gold]


def arc(row, number):
    choices, answer = labelled(row["choices"], row["gold"], numbers=number % 7 == 3)
    question = without(row["query"], "Question: ")
    return {"id": f"item_{number}", "question": question, "choices": choices, "answerKey": answer}


def openbookqa(row, number):
    choices, answer = labelled(row["choices"], row["gold"], numbers=False)
    return {"id": f"item_{number}", "question_stem": row["query"], "choices": choices, "answerKey": answer}


def boolq(row, number):
    passage, question = without(row["query"], "Passage: ").rsplit("\nQuestion: ", 1)
    return {"question": question.removesuffix("?"), "passage": passage, "idx": number, "label": row["gold"]}


def piqa(row, number):
    first, second = row["choices"]
    return {"goal": without(row["query"], "Question: ").removesuffix("\n"), "sol1": first, "sol2": second,
            "label": row["gold"]}


def winogrande(row, number):
    first, second = row["context_options"]
    same = 0
    while same < min(len(first), len(second)) and first[same] == second[same]:
        same += 1
    same = first.rfind(" ", 0, same) + 1
    sentence = first[:same] + "_ " + row["continuation"]
    return {"sentence": sentence, "option1": first[same:], "option2": second[same:], "answer": str(row["gold"] + 1)}


def short(rows, longest):
    return [row for row in rows if len(row.get("query", "")) <= longest]


SCENES = [
    ("Washing dishes", "A woman stands at a sink full of plates.", "she", ["takes a sponge and wipes a plate.",
     "throws the plates out of a window [laughs].", "paints the wall behind her.", "reads a newspaper aloud."]),
    ("Pets & Animals", "[header] How to brush a dog [title] Choose a brush. [step] Long hair wants a wide brush.", "",
     ["[substeps] Short hair wants a soft one.", "Paint the brush  blue.", "Ask the dog for its name.",
      "Sell the dog [title] at once."]),
    ("Playing guitar", "A boy sits on a bed with a guitar.  He tunes it.", "the BOY", ["begins to play a song.",
     "eats the strings.", "puts on skis.", " folds the guitar in half. "]),
    ("Building a fence", "Two men carry posts across a field.", "they", ["dig holes for them.", "swim across.",
     "sing to the posts.", "melt them."]),
    ("Making tea", "Water boils in a kettle [beep] on the stove.", "someone", ["pours it over leaves in a pot.",
     "hides under the table.", "pours it into a shoe.", "calls it by name."]),
    ("Home and Garden", "[header] How to sweep [title] Open a window.", "élan and ÖL help, as", ["dust flies up.",
     "windows sing.", "brooms vote.", "floors leave."]),
]


def hellaswag_rows(count, seed):
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        label, ctx_a, ctx_b, endings = SCENES[number % len(SCENES)]
        order = list(range(4))
        rng.shuffle(order)
        rows.append({"ind": number, "activity_label": label, "ctx_a": ctx_a, "ctx_b": ctx_b,
                     "ctx": f"{ctx_a} {ctx_b.capitalize()}", "endings": [endings[i] for i in order],
                     "source_id": f"scene~{number}", "split": "val", "split_type": "indomain",
                     "label": str(order.index(0))})
    return rows


PAIRS = [
    ("A red boat lies in the harbour.", "There is a boat in the harbour.", 0),
    ("The museum opened in 1974 after a fire.", "The museum burnt down in 1990.", 1),
    ("Ann gave Ben the book that Carl wrote.", "Carl wrote a book.", 0),
    ("No train left before noon.", "A train left at nine in the morning.", 1),
    ("All of the twelve jurors agreed.", "The jurors agreed.", 0),
    ("The river froze twice last winter.", "The river never freezes.", 1),
    ("Prices rose by 3 % in March and fell in April.", "Prices rose in March.", 0),
    ("Some birds cannot fly.", "All birds fly.", 1),
]


def rte_rows(count, seed):
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        first, second, label = PAIRS[(number * 3 + rng.randrange(len(PAIRS))) % len(PAIRS)]
        rows.append({"sentence1": first, "sentence2": second, "label": label, "idx": number})
    return rows


def mmlu_subjects():
    import lm_eval

    folder = pathlib.Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default"
    return sorted(path.stem.removeprefix("mmlu_") for path in folder.glob("mmlu_*.yaml"))


def mmlu_rows(split):
    rng = random.Random(f"mmlu {split}")
    rows = []
    for place, subject in enumerate(mmlu_subjects()):
        for number in range(5 if split == "dev" else 2 + place % 3):
            a, b, gold = rng.randrange(2, 60), rng.randrange(2, 60), rng.randrange(4)
            values = [a + b + shift for shift in rng.sample([1, 2, 3, 10, -1, -2], 4)]
            values[gold] = a + b
            words = subject.replace("_", " ")
            question = rng.choice([f"In {words}, what is {a} plus {b}?", f" What is the sum of {a} and {b}?\n",
                                   f"A note on {words} adds {a} to {b}.\nWhich number does it give?"])
            rows.append({"question": question, "subject": subject, "choices": [str(value) for value in values],
                         "answer": gold})
    return rows


def write(rows, path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, compression="snappy")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def files(data):
    """The files of each task, by split, as on the Hub or in another form that it is often kept in."""
    data = pathlib.Path(data)
    part = "-00000-of-00001.parquet"
    return {
        "arc_easy": {"test": data / "arc_easy" / "test.jsonl", "train": data / "arc_easy" / "train.jsonl"},
        "arc_challenge": {"test": data / "ARC-Challenge" / f"test{part}", "train": data / "ARC-Challenge" / f"train{part}"},
        "boolq": {"validation": data / "boolq" / f"validation{part}", "train": data / "boolq" / f"train{part}"},
        "hellaswag": {"validation": data / "hellaswag" / "data" / f"validation{part}",
                      "train": data / "hellaswag" / "data" / f"train{part}"},
        "winogrande": {"validation": data / "winogrande_xl" / "dev.jsonl", "train": data / "winogrande_xl" / "train.jsonl"},
        "openbookqa": {"test": data / "openbookqa" / "main" / "test.json", "train": data / "openbookqa" / "main" / "train.json"},
        "rte": {"validation": data / "rte" / f"validation{part}", "train": data / "rte" / f"train{part}"},
        "piqa": {"validation": data / "piqa_validation.jsonl", "train": data / "piqa_train.jsonl"},
        "mmlu": {"test": data / "mmlu" / "all" / f"test{part}", "dev": data / "mmlu" / "all" / f"dev{part}"},
    }


def make_data(clone):
    converted = {
        "arc_easy": (arc, foundry_rows(clone, "world_knowledge/arc_easy")),
        "arc_challenge": (arc, foundry_rows(clone, "world_knowledge/arc_challenge")),
        "boolq": (boolq, short(foundry_rows(clone, "reading_comprehension/boolq"), 480)),
        "winogrande": (winogrande, foundry_rows(clone, "language_understanding/winogrande")),
        "openbookqa": (openbookqa, foundry_rows(clone, "commonsense_reasoning/openbook_qa")),
        "piqa": (piqa, foundry_rows(clone, "commonsense_reasoning/piqa")),
    }
    for task, splits in files(HERE / "data").items():
        for split, path in splits.items():
            questions = split in ("test", "validation")
            count = QUESTIONS if questions else EXAMPLES
            if task == "mmlu":
                rows = mmlu_rows(split)
            elif task == "hellaswag":
                rows = hellaswag_rows(count, split)
            elif task == "rte":
                rows = rte_rows(count, split)
            else:
                convert, all_rows = converted[task]
                start = 0 if questions else QUESTIONS
                chosen = all_rows[start : start + count]
                rows = [convert(row, start + number) for number, row in enumerate(chosen)]
                if not questions:
                    # One question is among the examples: where the harness leaves it out, it must be left out.
                    rows[3] = convert(all_rows[1], 1)
            write(rows, path)


# --------------------------------------------------------------------------------------------------------------- model


def make_model():
    import torch
    import transformers

    torch.manual_seed(7)
    config = transformers.MixtralConfig(
        vocab_size=864, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=512,
        rope_theta=10000.0, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False, sliding_window=None,
        initializer_range=0.15,
    )
    model = transformers.MixtralForCausalLM(config)
    out = HERE / "model"
    model.save_pretrained(out)
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(ROOT / "assets" / "nano" / name, out / name)


# ---------------------------------------------------------------------------------------------------------- references


def local_hub(data):
    """Gives the harness local files where it asks for a data set of the Hub."""
    import datasets

    load = datasets.load_dataset
    found = files(data)
    names = {
        ("allenai/ai2_arc", "ARC-Easy"): "arc_easy", ("allenai/ai2_arc", "ARC-Challenge"): "arc_challenge",
        ("aps/super_glue", "boolq"): "boolq", ("Rowan/hellaswag", None): "hellaswag",
        ("allenai/winogrande", "winogrande_xl"): "winogrande", ("allenai/openbookqa", "main"): "openbookqa",
        ("nyu-mll/glue", "rte"): "rte", ("baber/piqa", None): "piqa",
    }

    def local(path, name=None, **_):
        task = "mmlu" if path == "cais/mmlu" else names[path, name]
        form = next(iter(found[task].values())).suffix.removeprefix(".").removesuffix("l")
        splits = load(form, data_files={split: str(file) for split, file in found[task].items()}, cache_dir=CACHE)
        if task == "mmlu":
            splits = splits.filter(lambda row: row["subject"] == name)
        return splits

    datasets.load_dataset = local


CACHE = None


def digest(sample):
    text = "".join(f"{context}\0{continuation}\0" for context, continuation in sample["arguments"])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def question(sample):
    answers = [answer[0] for answer in sample["resps"]]
    answer = {
        "sha": digest(sample),
        "ll": [round(float(sum_), 6) for sum_, _ in answers],
        "greedy": [bool(greedy) for _, greedy in answers],
        "acc": sample["acc"],
    }
    if "acc_norm" in sample:
        answer["acc_norm"] = sample["acc_norm"]
    return answer


def estimates(results):
    names = ["acc", "acc_stderr", "acc_norm", "acc_norm_stderr"]
    return {name: results[f"{name},none"] for name in names if f"{name},none" in results}


def run_harness(model, data, task, shots):
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=4)
    return lm_eval.simple_evaluate(model=lm, tasks=[task], num_fewshot=shots, log_samples=True)


def reference(model, data, task, shots):
    found = run_harness(model, data, task, shots)
    by_task = found["samples"]
    samples = {name: sorted(samples, key=lambda s: s["doc_id"]) for name, samples in by_task.items()}
    result = {"task": task, "shots": shots}
    if task == "mmlu":
        groups = found["groups"] | {task: found["results"][task]}
        result["results"] = estimates(found["results"][task])
        result["groups"] = {name.removeprefix("mmlu_"): estimates(groups[name]) for name in groups if name != task}
        result["subjects"] = {name.removeprefix("mmlu_"): estimates(found["results"][name]) for name in sorted(samples)}
    else:
        result["results"] = estimates(found["results"][task])
    result["questions"] = [question(s) for name in sorted(samples) for s in samples[name]]
    first = samples[sorted(samples)[0]][0]
    result["first"] = first["arguments"]
    return result


def all_references(model, data):
    global CACHE
    with tempfile.TemporaryDirectory() as cache:
        CACHE = cache
        local_hub(data)
        for task in TASKS:
            for shots in SHOTS.get(task, [0, 3]):
                yield reference(model, data, task, shots)


def in_lines(found):
    """JSON with a question in each line, so that differences can be read."""
    questions = found.pop("questions")
    head = json.dumps(found, ensure_ascii=False, indent=1)
    lines = ",\n".join("  " + json.dumps(question) for question in questions)
    return head[:-2] + ',\n "questions": [\n' + lines + "\n ]\n}\n"


def write_references():
    out = HERE / "reference"
    out.mkdir(exist_ok=True)
    for found in all_references(HERE / "model", HERE / "data"):
        name = f"{found['task']}-{found['shots']}.json"
        (out / name).write_text(in_lines(found), encoding="utf-8")
        print(name)


def check(model, data):
    """moeprune's figures beside the harness's, of any model and data."""
    binary = ROOT / "target" / "debug" / "moeprune"
    worst = 0.0
    for found in all_references(model, data):
        task, shots = found["task"], found["shots"]
        with tempfile.TemporaryDirectory() as scratch:
            out = pathlib.Path(scratch) / "out.json"
            command = [binary, "eval", model, "--task", task, "--data", data, "--fewshot", str(shots), "--json", out]
            subprocess.run([str(part) for part in command], check=True, capture_output=True)
            ours = json.loads(out.read_text())
        pairs = zip(found["questions"], ours["answers"], strict=True)
        off = max(abs(a - b["log_likelihood"]) for theirs, own in pairs
                  for a, b in zip(theirs["ll"], own["choices"], strict=True))
        worst = max(worst, off)
        same = all(abs(ours[name] - value) < 1e-12 for name, value in found["results"].items())
        print(f"{task:<14} {shots} shots: largest difference of a log-likelihood {off:.1e}, results {'equal' if same else 'DIFFER'}")
    print(f"largest difference {worst:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("data").add_argument("clone")
    commands.add_parser("model")
    commands.add_parser("references")
    checked = commands.add_parser("check")
    checked.add_argument("model")
    checked.add_argument("data")
    args = parser.parse_args()
    if args.command == "data":
        make_data(args.clone)
    elif args.command == "model":
        make_model()
    elif args.command == "references":
        write_references()
    else:
        check(args.model, args.data)


if __name__ == "__main__":
    main()
