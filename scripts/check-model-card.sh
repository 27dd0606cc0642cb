#!/usr/bin/env bash
# Reads cards of pruned models with huggingface_hub's ModelCard, and checks what the Hub's answer rests on, as far as it is known.
#
#     scripts/check-model-card.sh          prunes small models whose cards are plain, hostile or missing, and checks what comes out
#     scripts/check-model-card.sh OUT...   checks the cards of these pruned models
#
# ModelCard.validate() sends a card to huggingface.co, which says whether it takes it. Nothing is sent here. Checked are: what is
# read back is what was written, kinds of values, the form of ids, that no score and no data set of the base is named, that
# links lead to files, and that no place of the machine is named. Whether the Hub knows a licence is not.
#
# The Python environment is target/model-card-venv (20 MB), made once with two packages from PyPI. MOEPRUNE is the binary to
# check (default: a debug build of this checkout). PYTHON is Python 3.10 or later (default python3).
# The exit code is 0 if all holds, 1 if something does not.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1-} in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac

venv=target/model-card-venv
if [ ! -e "$venv/complete" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check huggingface_hub==1.33.0 PyYAML==6.0.4
    touch "$venv/complete"
fi

if [ $# -gt 0 ]; then
    exec "$venv/bin/python" scripts/card/check.py "$@"
fi
if [ -z "${MOEPRUNE-}" ]; then
    cargo build --locked --workspace --bin moeprune
    MOEPRUNE=${CARGO_TARGET_DIR:-target}/debug/moeprune
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$venv/bin/python" scripts/card/check.py --make "$MOEPRUNE" "$scratch"
