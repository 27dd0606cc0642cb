#!/usr/bin/env bash
# Checks moeprune on a machine with an NVIDIA GPU. It is part of the bundle that `cargo xtask gpu-bundle` packs, and is
# there beside the binary, its tests and their data. Needs bash, awk and coreutils; meant to take under 8 minutes on an H100.
#
#     ./gpu-check.sh [SECTION...]      all sections without arguments
#     ./gpu-check.sh --list
#
# Logs and numbers go to gpu-check-results/ beside this file, or to the folder that OUT names. DEVICE is the device
# (default cuda:0), EXPERTS the number of experts in the benchmark and BENCH_OPTIONS more options for it. For slow devices:
# PATIENCE is a factor on all time limits, CALIBRATION_OPTIONS (--samples 2 --seq-len 32) and PROBLEMS make section 4 shorter.
# The exit code is 1 if any check failed.
set -uo pipefail

readonly HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly OUT=${OUT:-$HERE/gpu-check-results}
readonly DEVICE=${DEVICE:-cuda:0}
readonly PATIENCE=${PATIENCE:-1}
readonly PROBLEMS=${PROBLEMS:-100}
readonly MOEPRUNE=$HERE/bin/moeprune
readonly BENCH=$HERE/bin/moeprune-bench
readonly NANO=$HERE/assets/nano
# shellcheck disable=SC2206 # several options in one variable
readonly CALIBRATION=(--calibration "$NANO/data/calibration.jsonl" ${CALIBRATION_OPTIONS:-})

readonly TITLES=(
    [1]="machine and libraries"
    [2]="kernels against their CPU twins, bit for bit"
    [3]="forward pass against the CPU"
    [4]="the whole pipeline on the embedded model"
    [5]="compute-sanitizer over the kernels"
    [6]="benchmark of an Arctic layer"
)
readonly PIP='python3 -m pip install'
readonly WHEELS='cuda-toolkit[cudart,cublas,curand]==13.0.*'
readonly SANITIZER_WHEEL='cuda-toolkit[sanitizer]==13.0.*'

failed=0 passed=0 skipped=0
section=0

# ---- reporting -------------------------------------------------------------------------------------------------------

now() { date +%s.%N; }
since() { awk -v begun="$1" -v ended="$(now)" 'BEGIN { printf "%.1f s", ended - begun }'; }

ok() { passed=$((passed + 1)); echo "  ok       $*"; }
fail() { failed=$((failed + 1)); echo "  FAILED   $*"; }
skip() { skipped=$((skipped + 1)); echo "  skipped  $*"; }
note() { echo "           $*"; }

log_of() { echo "$OUT/$section-${1//[^A-Za-z0-9]/-}.log"; }

# check SECONDS NAME COMMAND...: runs it with its output in a log. Too slow counts as failed.
check() {
    local limit=$(($1 * PATIENCE)) name=$2 log begun code
    shift 2
    log=$(log_of "$name")
    begun=$(now)
    timeout --kill-after=5 "$limit" "$@" >"$log" 2>&1
    code=$?
    if [ "$code" = 0 ]; then
        ok "$name, $(since "$begun")"
        return 0
    fi
    if [ "$code" = 124 ] || [ "$code" = 137 ]; then
        fail "$name: stopped after $limit s ($log)"
    else
        fail "$name: exit code $code, $(since "$begun") ($log)"
        tail -n 12 "$log" | sed 's/^/           | /'
    fi
    return 1
}

# ---- what is where ---------------------------------------------------------------------------------------------------

# Folders that may hold CUDA 13's libraries: a Python environment's wheels, then a toolkit's, then a container's.
library_folders() {
    local python
    for python in python3 python; do
        "$python" - 2>/dev/null <<'PYTHON'
import os, nvidia
for root in nvidia.__path__:
    print(os.path.join(root, "cu13", "lib"))
PYTHON
    done
    printf '%s\n' /usr/local/cuda-13*/lib64 /usr/local/cuda/lib64 /usr/local/nvidia/lib64 "${CONDA_PREFIX:-/usr}/lib"
}

find_sanitizer() {
    command -v compute-sanitizer && return
    local folder tool
    while read -r folder; do
        for tool in "${folder%/lib*}"/bin/compute-sanitizer "${folder%/lib*}"/compute-sanitizer/compute-sanitizer; do
            [ -x "$tool" ] && { echo "$tool"; return; }
        done
    done < <(library_folders)
    return 1
}

# run_tests CRATE LIMIT NAME [WRAPPER...]: tests that find no device say `skipped:` and pass; here that is a failure.
run_tests() {
    local crate=$1 limit=$2 name=$3 binary log
    shift 3
    binary=$HERE/crates/$crate/cuda
    log=$(log_of "$name")
    if [ ! -x "$binary" ]; then
        fail "$name: this bundle has no tests of $crate"
        return 1
    fi
    # Tests find their data from the folder of their crate, as under cargo.
    check "$limit" "$name" env CARGO_MANIFEST_DIR="$HERE/crates/$crate" "$@" "$binary" --nocapture --test-threads 1 ||
        return
    if grep -qi '^skipped:' "$log"; then
        fail "$name: nothing was tested: $(grep -im 1 '^skipped:' "$log")"
        return 1
    fi
    note "$(sed -n 's/^test result: ok\. \(.* passed\);.*/\1/p' "$log")"
}

# ---- sections --------------------------------------------------------------------------------------------------------

section_1() {
    local missing built here program
    sed 's/^/           /' "$HERE/version.txt"
    note "$(uname -sr), $(nproc) CPUs, $(awk '/MemTotal/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo), $(ldd --version 2>&1 | head -n 1)"
    if command -v nvidia-smi >/dev/null; then
        check 30 "nvidia-smi" nvidia-smi &&
            nvidia-smi --query-gpu=index,name,memory.total,memory.used,driver_version,compute_cap,mig.mode.current \
                --format=csv,noheader | sed 's/^/           /'
        built=$(sed -n 's/.*compute capability \([0-9]*\).*/\1/p' "$HERE/version.txt")
        here=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | tr -d . | sort -u | tr '\n' ' ')
        case " $here" in
            *" $built "*) ok "compute capability $built, for which this was built" ;;
            *) fail "this was built for compute capability $built, and the GPUs here have: $here" ;;
        esac
    else
        skip "nvidia-smi is not there"
    fi
    for program in "$MOEPRUNE" "$BENCH"; do
        echo "$program"
        ldd "$program"
    done >"$OUT/1-ldd.log" 2>&1
    missing=$(awk '/not found/ { print $1 }' "$OUT/1-ldd.log" | sort -u | tr '\n' ' ')
    if [ -z "$missing" ]; then
        ok "all libraries are found"
        awk '/libcu.* => \// && !seen[$1]++ { print "           " $1 " => " $3 }' "$OUT/1-ldd.log"
    else
        fail "missing libraries: $missing"
        case $missing in *libcuda.so.1*) note "libcuda.so.1 comes with NVIDIA's driver, release 580 or later for CUDA 13.0" ;; esac
        case $missing in *libcublas* | *libcurand* | *libcudart*) note "CUDA's libraries: $PIP '$WHEELS'" ;; esac
        case $missing in *GLIBC* | */*) note "$(grep -m 1 'not found' "$OUT/1-ldd.log")" ;; esac
    fi
    check 20 "moeprune starts" "$MOEPRUNE" --version
    check 20 "moeprune-bench starts" "$BENCH" --version
    check 60 "$DEVICE opens" "$MOEPRUNE" eval "$NANO" --task gsm8k_zeroshot --data "$NANO/data/test.jsonl" --limit 1 \
        --device "$DEVICE"
}

section_2() {
    run_tests moeprune-score 60 "masks, N of M, outliers"
    [ -e "$HERE/crates/moeprune-capture" ] && run_tests moeprune-capture 45 "sums of squared inputs"
}

section_3() {
    local folder
    run_tests moeprune-model 60 "logits and router choices"
    # Tests of crates that no section knows by name.
    for folder in "$HERE"/crates/*/; do
        folder=$(basename "$folder")
        case $folder in
            moeprune | moeprune-score | moeprune-model | moeprune-capture) ;;
            *) run_tests "$folder" 60 "tests of $folder" ;;
        esac
    done
}

section_4() {
    local runs=$OUT/pipeline
    rm -rf "$runs" && mkdir -p "$runs" || return
    pipeline_on cpu "$runs/cpu" || return
    pipeline_on "$DEVICE" "$runs/device" || return
    compare_plans "$runs"
    compare_reports "$runs"
    compare_scores "$runs"
    check 60 "$DEVICE in bf16: prune" "$MOEPRUNE" prune "$NANO" "$runs/bf16" "${CALIBRATION[@]}" --device "$DEVICE" || return
    check 30 "$DEVICE in bf16: verify" "$MOEPRUNE" verify "$runs/bf16" --source "$NANO"
    check_resume "$runs"
    run_tests moeprune 60 "the pipeline's own tests"
}

# Everything on one device, a GPU in f32: observe and plan by themselves, prune, verify; eval in bf16.
pipeline_on() {
    local device=$1 to=$2 exact=()
    # In bf16 a token near a routing tie may take another expert, and tokens decide between two alike.
    [ "$device" = cpu ] || exact=(--dtype f32)
    mkdir -p "$to"
    check 60 "$device: observe" "$MOEPRUNE" observe "$NANO" "${CALIBRATION[@]}" -o "$to/observation.safetensors" \
        --device "$device" "${exact[@]}" || return
    check 30 "$device: plan" "$MOEPRUNE" plan "$NANO" --observation "$to/observation.safetensors" --read-experts \
        -o "$to/plan.json" || return
    check 60 "$device: prune" "$MOEPRUNE" prune "$NANO" "$to/pruned" "${CALIBRATION[@]}" --json "$to/report.json" \
        --device "$device" "${exact[@]}" || return
    check 30 "$device: verify" "$MOEPRUNE" verify "$to/pruned" --source "$NANO" || return
    check 60 "$device: eval" "$MOEPRUNE" eval "$to/pruned" --task gsm8k_zeroshot --data "$NANO/data/test.jsonl" \
        --limit "$PROBLEMS" --json "$to/eval.json" --device "$device"
}

# The expert stage's choices in a plan or a report: its layers without ratios and counts of tokens.
decisions() {
    awk '/^  "layers": \[/ { inside = 1 }
         inside && /"tokens": \[/ { counting = !/\]/; next }
         counting { if (/\]/) counting = 0; next }
         inside && !/"(ratio|achieved)"/ { sub(/,$/, ""); print }
         /^  \]/ { inside = 0 }' "$1"
}

compare_plans() {
    local file
    for file in plan report; do
        decisions "$1/cpu/$file.json" >"$1/$file-cpu.txt"
        decisions "$1/device/$file.json" >"$1/$file-device.txt"
        if [ ! -s "$1/$file-cpu.txt" ]; then
            fail "$file.json: no layers found in it"
        elif diff "$1/$file-cpu.txt" "$1/$file-device.txt" >"$OUT/4-$file.diff"; then
            ok "$file.json: the same clusters and survivors"
        else
            fail "$file.json: other clusters or survivors ($OUT/4-$file.diff)"
        fi
    done
}

# Hidden states differ in their last bits, so shares by layer may differ a little; the total is solved for.
compare_reports() {
    achieved() { sed -n 's/^ *"\(linears\|achieved\)": \([0-9.]*\),\{0,1\}$/\1 \2/p' "$1"; }
    paste -d ' ' <(achieved "$1/cpu/report.json") <(achieved "$1/device/report.json") >"$OUT/4-achieved.txt"
    if awk 'function off(a, b) { return a > b ? a - b : b - a }
            $2 > 1 { next }
            $1 == "linears" { most = 0.0001 } $1 == "achieved" { most = 0.02 }
            NF != 4 || $1 != $3 || off($2, $4) > most { bad = 1 } END { exit bad || NR < 2 }' "$OUT/4-achieved.txt"; then
        ok "the same sparsity: total within 0.01 points, layers within 2"
    else
        fail "sparsity differs, CPU and $DEVICE: $OUT/4-achieved.txt"
    fi
}

compare_scores() {
    strict() { sed -n 's/^  "strict-match": \([0-9.]*\),\{0,1\}$/\1/p' "$1"; }
    local cpu device
    cpu=$(strict "$1/cpu/eval.json") device=$(strict "$1/device/eval.json")
    if [ -z "$cpu" ] || [ -z "$device" ]; then
        fail "GSM8K zero-shot: no score in eval.json"
    elif awk -v a="$cpu" -v b="$device" 'BEGIN { exit !(a - b <= 0.05 && b - a <= 0.05) }'; then
        ok "GSM8K zero-shot, $PROBLEMS problems: $cpu on the CPU, $device on $DEVICE"
    else
        fail "GSM8K zero-shot, $PROBLEMS problems: $cpu on the CPU, $device on $DEVICE, more than 0.05 apart"
    fi
}

# Kills a run when its journal has a layer, resumes it, and expects the bytes of the run that was left alone.
check_resume() {
    local to=$1/resumed journal=$1/.resumed.moeprune-partial/state/journal tries=0 child
    local prune=("$MOEPRUNE" prune "$NANO" "$to" "${CALIBRATION[@]}" --device "$DEVICE" --quiet)
    "${prune[@]}" >"$OUT/4-killed.log" 2>&1 &
    child=$!
    # Observing takes a record for each of four layers, after the first; three more are well within pruning.
    while kill -0 "$child" 2>/dev/null && [ "$(cat "$journal" 2>/dev/null | wc -l)" -lt 8 ] && [ $tries -lt $((3000 * PATIENCE)) ]; do
        tries=$((tries + 1))
        sleep 0.01
    done
    kill -KILL "$child" 2>/dev/null
    wait "$child" 2>/dev/null
    if [ -e "$to" ] || [ ! -s "$journal" ]; then
        fail "resume: the run could not be killed half-way ($OUT/4-killed.log)"
        return
    fi
    check 60 "$DEVICE: resume after kill -9" "${prune[@]}" --resume || return
    if cmp "$1/bf16/model.safetensors" "$to/model.safetensors" >"$OUT/4-resumed.log" 2>&1; then
        ok "resumed: the same bytes as without the kill"
    else
        fail "resumed: other bytes than without the kill ($OUT/4-resumed.log)"
    fi
}

section_5() {
    local sanitizer tool
    if ! sanitizer=$(find_sanitizer); then
        skip "compute-sanitizer is not there: $PIP '$SANITIZER_WHEEL'"
        return
    fi
    # Of the forward pass, our kernels only: cuBLAS's are not ours to check, and slow under a tool.
    local ours=(--kernel-name kns=masked_softmax --kernel-name kns=gated_silu --kernel-name kns=add_gated_rows)
    for tool in memcheck racecheck; do
        run_tests moeprune-score 45 "$tool, masks" "$sanitizer" --tool "$tool" --error-exitcode 9
        run_tests moeprune-model 30 "$tool, forward pass" "$sanitizer" --tool "$tool" --error-exitcode 9 "${ours[@]}"
    done
}

section_6() {
    local experts=${EXPERTS:-} free
    free=$(df --output=avail -k "$OUT" | tail -n 1)
    # A whole layer is 27 GB of host memory and as much on disk, twice.
    if [ -z "$experts" ]; then
        experts=32
        [ "$free" -gt 70000000 ] && [ "$(awk '/MemAvailable/ { print $2 }' /proc/meminfo)" -gt 70000000 ] && experts=128
    fi
    # shellcheck disable=SC2086 # several options in one variable
    check 240 "bench arctic-layer, $experts experts" "$BENCH" arctic-layer --device "$DEVICE" \
        --experts "$experts" --dir "$OUT/arctic-layer" --json "$OUT/arctic-layer.json" ${BENCH_OPTIONS:-} &&
        sed 's/^/           /' "$(log_of "bench arctic-layer, $experts experts")"
    rm -rf "$OUT/arctic-layer"
}

# ---- running ---------------------------------------------------------------------------------------------------------

main() {
    local number begun all folder
    if [ "${1:-}" = --list ]; then
        for number in "${!TITLES[@]}"; do echo "$number  ${TITLES[number]}"; done
        exit 0
    fi
    [ $# -gt 0 ] || set -- "${!TITLES[@]}"
    for number; do
        [ -n "${TITLES[$number]:-}" ] || { echo "there is no section $number; --list shows them" >&2; exit 2; }
    done
    mkdir -p "$OUT" || exit 1
    # What the caller set comes first.
    while read -r folder; do
        [ -d "$folder" ] && LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
    done < <(library_folders)
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}
    all=$(now)
    for number; do
        section=$number begun=$(now)
        echo "[$number] ${TITLES[number]}"
        "section_$number"
        echo "    section $number: $(since "$begun")"
    done
    echo "passed $passed, failed $failed, skipped $skipped, $(since "$all"); logs in $OUT"
    [ "$failed" = 0 ]
}

main "$@" 2>&1 | tee >(mkdir -p "$OUT" && cat >"$OUT/summary.txt")
exit "${PIPESTATUS[0]}"
