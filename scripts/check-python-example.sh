#!/usr/bin/env bash
# Holds examples/python to what moeprune writes and takes: runs it on an observation, a plan and a report of the embedded model,
# applies the plan that it edited, and compares each tensor with the source's. Once for a plan that ranks experts, once for one
# that groups them and leaves its survivors open. Wrong inputs have to end in a message that names the file.
#
#     scripts/check-python-example.sh
#
# MOEPRUNE is the binary to check (default: the debug build of this checkout, as `cargo test` leaves it; built if it is not there).
# PYTHON is Python 3.10 or later (default python3). Files go to target/python-example, whose Python environment (venv) is kept; all
# else is made new. Wants PyPI once, for the example's two packages. Takes seconds after these and the build.
# The exit code is 0 if all holds, and the last line `ok`; 1 if something does not.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
folder=$target/python-example
example=examples/python

if [ -z "${MOEPRUNE:-}" ]; then
    MOEPRUNE=$target/debug/moeprune
    [ -x "$MOEPRUNE" ] || cargo build --locked --bin moeprune
fi
moeprune=$(realpath "$MOEPRUNE")

python=$folder/venv/bin/python
# An environment whose making was interrupted has no pip.
"$python" -m pip --version >/dev/null 2>&1 || "${PYTHON:-python3}" -m venv --clear "$folder/venv" || {
    echo "no Python environment: install Python 3.10 or later with its venv module, or name one in PYTHON" >&2
    exit 1
}
# Fetches nothing where these versions are there.
"$python" -m pip install --quiet --disable-pip-version-check -r "$example/requirements.txt" || {
    echo "the packages of $example/requirements.txt did not install: this wants PyPI" >&2
    exit 1
}

work=$folder/work
rm -rf "$work"
mkdir "$work"
model=assets/nano
"$moeprune" observe "$model" --calibration "$model/data/calibration.jsonl" --samples 16 --seq-len 256 \
    -o "$work/obs.safetensors" --quiet >/dev/null

# Ends in a message that has this text, and in no traceback.
refused() {
    local text=$1
    shift
    if "$python" "$example/look_inside.py" --out "$work/none" "$@" >/dev/null 2>"$work/stderr"; then
        echo "not refused: $*" >&2
        return 1
    fi
    if [ "$(wc -l <"$work/stderr")" -gt 4 ] || grep -qF Traceback "$work/stderr" || ! grep -qF "$text" "$work/stderr"; then
        echo "refused otherwise than with '$text': $*" >&2
        cat "$work/stderr" >&2
        return 1
    fi
}

# Compares a model with its source by the plan that made it, which has to be another plan with two experts exchanged.
compare() {
    "$python" - "$@" <<'PYTHON'
import json
import sys
from pathlib import Path

import safetensors

model, pruned, plan, edited, inspected = map(Path, sys.argv[1:])


def tensors_of(folder):
    """Raw bytes by row, of any type: NumPy has no bfloat16."""
    entries = safetensors.deserialize((folder / "model.safetensors").read_bytes())
    return {name: (entry["dtype"], entry["shape"], bytes(entry["data"])) for name, entry in entries}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def kept(layer, reported):
    return [s["source"] for s in layer["survivors"]] or reported["kept"]


source, written = tensors_of(model), tensors_of(pruned)
reports = read(plan.with_name("pruned") / "moeprune-report.json"), read(pruned / "moeprune-report.json")
before = [kept(*both) for both in zip(read(plan)["layers"], reports[0]["layers"], strict=True)]
# Of layers that are still open, `apply` makes the same choice again.
after = [kept(*both) for both in zip(read(edited)["layers"], reports[0]["layers"], strict=True)]

changed = [index for index, (was, now) in enumerate(zip(before, after, strict=True)) if was != now]
assert len(changed) == 1, f"layers {changed} were edited"
was, now = set(before[changed[0]]), set(after[changed[0]])
assert len(was - now) == len(now - was) == 1, f"{was - now} for {now - was}"
assert [layer["kept"] for layer in reports[1]["layers"]] == after, "the report has other experts than the edited plan"
counts = read(inspected)["experts_per_layer"]
assert counts == [len(experts) for experts in after], f"inspect counts {counts}"

expected = {}
for name, (dtype, shape, data) in source.items():
    parts = name.split(".")
    index = int(parts[2]) if parts[1] == "layers" else None
    if "experts" in parts:
        place = parts.index("experts") + 1
        if int(parts[place]) not in after[index]:
            continue
        parts[place] = str(after[index].index(int(parts[place])))
    elif "gate" in parts:
        row = len(data) // shape[0]
        data = b"".join(data[expert * row : (expert + 1) * row] for expert in after[index])
        shape = [len(after[index]), *shape[1:]]
    expected[".".join(parts)] = (dtype, shape, data)
assert expected.keys() == written.keys(), sorted(expected.keys() ^ written.keys())[:8]
differing = [name for name, tensor in expected.items() if written[name] != tensor]
assert not differing, f"other than in the source: {differing[:8]}"
print(f"layer {changed[0]}: {now - was} for {was - now}; {len(written)} tensors as in the source")
PYTHON
}

for recipe in reap arctic; do
    place=$work/$recipe
    mkdir "$place"
    "$moeprune" plan "$model" --recipe "$recipe" --observation "$work/obs.safetensors" --sparsity 0.25 --expert-sparsity 0.25 \
        -o "$place/plan.json" --quiet >/dev/null
    "$moeprune" apply "$model" "$place/pruned" --plan "$place/plan.json" --quiet >/dev/null
    inputs=("$work/obs.safetensors" "$place/plan.json" "$place/pruned/moeprune-report.json")
    "$python" "$example/look_inside.py" "${inputs[@]}" --out "$place/out" >"$place/printed"
    tail -n 1 "$place/printed"
    # Anything that reads XML can read the picture: a bar per expert, the background and two colours' squares.
    "$python" -c 'import sys, xml.dom.minidom as m
bars = len(m.parse(sys.argv[1]).getElementsByTagName("rect")); assert bars == 4 * 32 + 3, bars' "$place/out/load.svg"
    edited=$place/out/edited-plan.json
    "$moeprune" apply "$model" "$place/edited" --plan "$edited" --quiet >/dev/null
    "$moeprune" verify "$place/edited" --source "$model" --plan "$edited" --quiet >/dev/null
    "$moeprune" inspect "$place/edited" --json >"$place/inspect.json"
    compare "$model" "$place/edited" "$place/plan.json" "$edited" "$place/inspect.json"
done

obs=$work/obs.safetensors plan=$work/reap/plan.json report=$work/reap/pruned/moeprune-report.json
: >"$work/empty"
echo '{}' >"$work/braces.json"
sed 's/"model_fingerprint": "sha256:..../&x/' "$plan" >"$work/other.json"
refused 'the following arguments are required: plan, report' "$obs"
refused "$work/absent: not a safetensors file" "$work/absent" "$plan" "$report"
refused "$work/empty: not a safetensors file" "$work/empty" "$plan" "$report"
refused "$plan: not a safetensors file" "$plan" "$plan" "$report"
refused "$model/model.safetensors: not an observation" "$model/model.safetensors" "$plan" "$report"
refused "$work/absent: cannot be read" "$obs" "$work/absent" "$report"
refused "$work/empty: not JSON" "$obs" "$work/empty" "$report"
refused "$obs: not JSON" "$obs" "$obs" "$report"
refused "$work/braces.json: not a plan" "$obs" "$work/braces.json" "$report"
refused "$report: not a plan" "$obs" "$report" "$report"
refused "$plan: not a report" "$obs" "$plan" "$plan"
refused "$plan: no folder for results" "$obs" "$plan" "$report" --out "$plan"
refused "not of one model" "$obs" "$work/other.json" "$report"
refused "is it another plan's report?" "$obs" "$work/arctic/plan.json" "$report"
echo ok
