#!/usr/bin/env bash
# What takes too long to be checked at each change: run it nightly, or before a release. Everything else is in .ci/run.
#
#     scripts/nightly.sh             all steps; the exit code is 1 if one failed
#     scripts/nightly.sh STEP...     some: benches, emulator, gguf, card, endpoint, slurm, fuzz, build-cost
#
# gguf, card and endpoint want Python and the network, and are skipped without Python; endpoint checks vLLM too where torch is there
# (TORCH_PYTHON). slurm wants Slurm (CI_INSTALL=1 installs it from Debian), and is skipped without it; emulator and fuzz want a C++
# compiler; fuzz also wants cargo-fuzz, and is skipped without it. FUZZ_SECONDS is the time for each target (default 600).
set -uo pipefail
cd "$(dirname "$0")/.."

# Benchmarks compile, lint clean and run, once each.
benches() {
    cargo clippy --package moeprune-benches --features criterion --all-targets --locked -- -D warnings &&
        cargo bench --package moeprune-benches --features criterion --locked -- --test
}

# The forward pass, capture and the pipeline on the emulated driver, with candle's kernels.
emulator() {
    local package
    for package in moeprune-model moeprune-capture moeprune; do
        cargo xtask emulate-cuda --candle -- cargo test --package "$package" --features cuda --test cuda --locked || return 1
    done
    cargo xtask emulate-cuda --sanitize -- cargo test --package moeprune-score --features cuda --test cuda --locked
}

# What is cut of a GGUF, in llama.cpp itself.
gguf() {
    if ! python3 -c 'import venv' >/dev/null 2>&1; then
        echo "skipped: no Python with the module venv (python3-venv on Debian)"
        return 0
    fi
    scripts/check-gguf.sh
}

# Cards of pruned models, read by huggingface_hub.
card() {
    if ! python3 -c 'import venv' >/dev/null 2>&1; then
        echo "skipped: no Python with the module venv (python3-venv on Debian)"
        return 0
    fi
    scripts/check-model-card.sh
}

# What is asked of llama.cpp's server and of vLLM.
endpoint() {
    if ! python3 -c 'import venv' >/dev/null 2>&1; then
        echo "skipped: no Python with the module venv (python3-venv on Debian)"
        return 0
    fi
    scripts/check-endpoint.sh
}

# Parts under a scheduler, some of them killed.
slurm() { scripts/check-slurm.sh; }

fuzz() {
    if ! cargo fuzz --version >/dev/null 2>&1; then
        echo "skipped: cargo-fuzz is not installed (cargo install cargo-fuzz)"
        return 0
    fi
    local target dictionary
    for target in tests/fuzz/fuzz_targets/*.rs; do
        target=$(basename "$target" .rs)
        dictionary=$target
        [ "$target" = header ] && dictionary=safetensors
        mkdir -p "tests/fuzz/corpus/$target"
        (cd tests/fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none --fuzz-dir . "$target" \
            "corpus/$target" "seeds/$target" "regressions/$target" "covering/$target" -- \
            -dict="dictionaries/$dictionary.dict" -max_len=16384 -max_total_time="${FUZZ_SECONDS:-600}") || return 1
    done
}

build_cost() { cargo xtask build-cost --run-tests; }

failed=0
[ $# -gt 0 ] || set -- benches emulator gguf card endpoint slurm fuzz build-cost
for name in "$@"; do
    printf '\n== %s\n' "$name"
    case $name in
        benches | emulator | gguf | card | endpoint | slurm | fuzz | build-cost) "${name//-/_}" || { echo "== $name failed" >&2; failed=1; } ;;
        *) echo "no step is named $name" >&2; failed=1 ;;
    esac
done
exit $failed
