#!/usr/bin/env bash
# Times the answers of `moeprune eval` beside those of transformers' batched `generate`: the same model, questions, batch and
# cores, greedy, in turns. scripts/generate/beside.py says how. The answers must be equal.
#
#     scripts/bench-generate.sh MODEL QUESTIONS [--python PYTHON] [-- OPTION...]
#
# MODEL is a folder that both load, for example `cargo xtask train-nano --model sigmoid-shared` (target/sigmoid-shared; a few
# hundred --steps do), and QUESTIONS lines of GSM8K's form, for example its data/test.jsonl. Without --python an environment with
# torch for the CPU and transformers is made in target/bench-generate (about 2 GB, from PyPI, once). What follows -- goes to
# beside.py: -- --limit 64 --batch 32 --turns 5 --fewshot 3. MOEPRUNE is the binary (default: a release build of this checkout).
# The exit code is 0 if the answers are equal, 1 if not or if something is missing, 2 for wrong usage.
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }

packages=(torch==2.14.0 transformers==5.17.0 numpy)
python= places=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --python) python=${2:?--python wants a Python}; shift 2 ;;
        --) shift; break ;;
        -*) echo "no option is named $1; --help lists them, and options of beside.py come after --" >&2; exit 2 ;;
        *) places+=("$1"); shift ;;
    esac
done
[ ${#places[@]} = 2 ] || { usage >&2; exit 2; }

root=$(cd "$(dirname "$0")/.." && pwd)
if [ -z "$python" ]; then
    folder=$root/target/bench-generate
    python=$folder/bin/python
    echo "no --python: using an environment in $folder" >&2
    [ -x "$python" ] || "${PYTHON:-python3}" -m venv "$folder" || {
        echo "no Python environment: install Python 3.10 or later with its venv module, or pass --python" >&2
        exit 1
    }
    "$python" -m pip install --quiet --disable-pip-version-check \
        --extra-index-url https://download.pytorch.org/whl/cpu "${packages[@]}" || {
        echo "the packages did not install: this wants PyPI; or pass a Python that has torch and transformers (--python)" >&2
        exit 1
    }
fi
"$python" -c 'import torch, transformers' 2>/dev/null || {
    echo "$python has no torch or no transformers: install ${packages[*]} there, or leave --python out" >&2
    exit 1
}

if [ -z "${MOEPRUNE:-}" ]; then
    cargo build --manifest-path "$root/Cargo.toml" --release --locked --bin moeprune
    MOEPRUNE=${CARGO_TARGET_DIR:-$root/target}/release/moeprune
fi
export PYTHONDONTWRITEBYTECODE=1
"$python" -u "$root/scripts/generate/beside.py" "$MOEPRUNE" "${places[@]}" "$@"
