#!/usr/bin/env bash
# Holds what moeprune makes of a GGUF to llama.cpp itself: loads the embedded model, dense and cut, at F32 and Q8_0, in the
# public llama.cpp wheel and compares greedy answers with `moeprune eval`. scripts/gguf/check.py says what is compared.
#
#     scripts/check-gguf.sh [FOLDER] [-- OPTION...]
#
# FOLDER keeps the Python environment (venv, about 220 MB) and the files that are made (check-gguf-files, made new each time);
# without it a temporary folder is removed at the end. What follows -- goes to scripts/gguf/check.py: -- --problems 500, -- --help.
# MOEPRUNE is the binary to check (default: a release build of this checkout). PYTHON is Python 3.10 or later (default python3).
# Wants the network for three packages from PyPI, once if FOLDER is given. Takes about 20 s after these and the build.
# The exit code is 0 if all holds, 1 if something does not, 2 for wrong usage.
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }

# llama.cpp's server in one library, 106 MB; and its own reader, writer and quantiser of files.
packages=(xllamacpp==2026.10.11549 gguf==0.19.0 'numpy>=2')

folder=
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --) shift; break ;;
        -*) echo "no option is named $1; --help lists them, and options of check.py come after --" >&2; exit 2 ;;
        *)
            [ -z "$folder" ] || { echo "one folder, please: $folder or $1" >&2; exit 2; }
            folder=$1
            shift
            ;;
    esac
done

root=$(cd "$(dirname "$0")/.." && pwd)
if [ -z "$folder" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
else
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
fi

python=$folder/venv/bin/python
if [ ! -x "$python" ]; then
    "${PYTHON:-python3}" -m venv "$folder/venv" || {
        echo "no Python environment: install Python 3.10 or later with its venv module, or name one in PYTHON" >&2
        exit 1
    }
fi
# Fetches nothing where these versions are there.
"$python" -m pip install --quiet --disable-pip-version-check "${packages[@]}" || {
    echo "the packages did not install: this wants PyPI and a platform that xllamacpp has a wheel for (Linux, macOS)" >&2
    exit 1
}

if [ -z "${MOEPRUNE:-}" ]; then
    cargo build --manifest-path "$root/Cargo.toml" --release --locked --bin moeprune
    MOEPRUNE=${CARGO_TARGET_DIR:-$root/target}/release/moeprune
fi
rm -rf "$folder/check-gguf-files"
# No __pycache__ beside the scripts.
export PYTHONDONTWRITEBYTECODE=1
"$python" "$root/scripts/gguf/check.py" "$folder/check-gguf-files" --moeprune "$MOEPRUNE" "$@"
