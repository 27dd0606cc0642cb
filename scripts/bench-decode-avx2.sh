#!/usr/bin/env bash
# Times `cargo xtask bench-decode` with loops for AVX2 on a processor that has AVX-512 too: builds it from a copy of this checkout in
# which no loop of an encoding has a version for AVX-512, and runs it here and there, one after the other.
#
#     scripts/bench-decode-avx2.sh [OPTION...]
#
# Options go to `cargo xtask bench-decode` (--rows, --cols, --tile, --passes, --python). Two builds take a few minutes.
set -euo pipefail

case ${1-} in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac

root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

(cd "$root" && git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create --file=-) |
    tar --extract --directory="$copy"
widest='"x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", '
loops=$(grep --recursive --files-with-matches --fixed-strings "$widest" "$copy/crates" || true)
[ -n "$loops" ] || { echo "no loop has a version for AVX-512: this script is out of date" >&2; exit 1; }
printf '%s\n' "$loops" | xargs sed -i "s/$widest//"

# Each has a folder of builds of its own: in one, cargo takes the crates of both for the same.
build() {
    (cd "$1" && CARGO_TARGET_DIR="$3" cargo build --quiet --release --locked --package moeprune-bench)
    cp "$3/release/moeprune-bench" "$copy/$2"
}
build "$copy" without "$copy/target"
build "$root" with "$root/target"

echo "with loops for AVX-512, where the processor has it:"
"$copy/with" decode "$@"
echo
echo "without:"
"$copy/without" decode "$@"
