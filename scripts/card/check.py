"""Cards of pruned models, read as the Hugging Face Hub reads them. scripts/check-model-card.sh runs this.

    check.py FOLDER...                 checks the cards of these folders
    check.py --make MOEPRUNE SCRATCH   prunes small models first
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id

# The front matter of a base, and what of it the card of the pruned model has to say.
BASES = {
    "plain": (b"---\nlicense: apache-2.0\nlanguage:\n- en\n- no\npipeline_tag: text-generation\n---\n# Base\n",
              {"license": "apache-2.0", "language": ["en", "no"], "pipeline_tag": "text-generation"}),
    "named": (b"---\nlicense: other\nlicense_name: \"a: 'b' \\\"c\\\"\"\nlicense_link: LICENSE\n---\n",
              {"license": "other", "license_name": "a: 'b' \"c\"", "license_link": "LICENSE"}),
    "scores": (b"---\nlicense: mit\nmetrics: [accuracy]\nmodel-index:\n- name: x\n  results:\n  - task: {type: t}\n"
               b"    dataset: {type: d, name: d}\n    metrics: [{type: acc, value: 0.9}]\n---\nMMLU 70.6\n",
               {"license": "mit"}),
    "windows": ("\ufeff---\r\nlicense: mit\r\nlanguage: zh\r\n---\r\n# 模型\r\n".encode(),
                {"license": "mit", "language": "zh"}),
    "unicode": ("---\nlicense: other\nlicense_name: 通义千问 😀\n---\n".encode(),
                {"license": "other", "license_name": "通义千问 😀"}),
    "none": (None, {}),
    "no front matter": (b"# Base\n", {}),
    "latin": (b"---\nlicense: mit\nauthor: \xe9\n---\n", {}),
    "endless": (b"---\nlicense: mit\n", {}),
    "tabs": (b"---\nlicense:\n\tmit\n---\n", {}),
    "twice": (b"---\nlicense: mit\nlanguage: en\nlicense: gpl\n---\n", {"language": "en"}),
    "huge": (b"---\nlicense: mit\nx: " + b"x" * (10 << 20) + b"\n---\n", {}),
    "alias": (b"---\nx: &a [en]\nlanguage: *a\nlicense: mit\n---\n", {"license": "mit"}),
}


def check(folder):
    """What is wrong with the card of a folder; what it says."""
    text = (folder / "README.md").read_bytes().decode("utf-8")
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    again = yaml.safe_load(card.data.to_yaml())
    wrong = []

    def hold(condition, what):
        if not condition:
            wrong.append(what)

    hold(again == data, "it is not read back as it was")
    hold(card.text.strip().startswith("# "), "it has no title")
    for key in ("license", "license_name", "license_link", "pipeline_tag", "library_name"):
        hold(isinstance(data.get(key, ""), str), f"{key} is no text")
    for key in ("language", "tags"):
        values = data.get(key, [])
        values = [values] if isinstance(values, str) else values
        hold(all(isinstance(value, str) for value in values), f"{key} holds more than texts")
    hold(set(data.get("tags", [])) >= {"moe", "pruned", "moeprune"}, "a tag is missing")
    hold(data.get("library_name") in (None, "transformers"), "the library is another")
    for dropped in ("model-index", "metrics", "datasets", "inference", "widget"):
        hold(dropped not in data, f"{dropped} is the base's")
    hold(not getattr(card.data, "eval_results", None), "it has scores")
    if "base_model" in data:
        validate_repo_id(data["base_model"])
    paths = re.findall(r"(?:^|[\s`'\"(])(/(?:home|root|tmp|work|mnt|var|usr)/\S*)", text)
    hold(not paths, f"it names places of the machine: {paths}")
    for link in re.findall(r"\]\(([^)]*)\)", text):
        hold(link.startswith("https://") or (folder / link).is_file(), f"{link} leads nowhere")
    return wrong, data


def make(moeprune, scratch):
    """Prunes a small model once for each base card."""
    source = Path("assets/parity/mixtral")
    failed = 0
    for name, (base, expected) in BASES.items():
        model, out = scratch / f"{name} model", scratch / f"{name} out"
        shutil.copytree(source, model, ignore=shutil.ignore_patterns("ref.safetensors"))
        if base is not None:
            (model / "README.md").write_bytes(base)
        shares = ["--sparsity", "0.25", "--expert-sparsity", "0.25"]
        subprocess.run([moeprune, "--quiet", "plan", model, *shares, "-o", scratch / f"{name}.json"],
                       check=True, stdout=subprocess.DEVNULL)
        subprocess.run([moeprune, "--quiet", "apply", model, out, "--plan", scratch / f"{name}.json"],
                       check=True, stdout=subprocess.DEVNULL)
        wrong, data = check(out)
        said = {key: data[key] for key in data if key not in ("base_model", "library_name", "tags")}
        if said != expected:
            wrong.append(f"it says {said} and should say {expected}")
        kept = out / "README.base.md"
        if (kept.read_bytes() if kept.is_file() else None) != base:
            wrong.append("README.base.md is not the base's card")
        print(f"{name}: {'; '.join(wrong) or 'ok'}")
        failed += bool(wrong)
    return failed


def main(arguments):
    if arguments[0] == "--make":
        return make(Path(arguments[1]).resolve(), Path(arguments[2]))
    failed = 0
    for folder in map(Path, arguments):
        wrong, data = check(folder)
        print(f"{folder.name}: {'; '.join(wrong) or data}")
        failed += bool(wrong)
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
