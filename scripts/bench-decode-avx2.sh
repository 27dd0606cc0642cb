#!/usr/bin/env bash
# Times `cargo xtask bench-decode` with loops for AVX2 on a processor that has AVX-512 too: builds it from a copy of this checkout in
# which no loop of an encoding has a version for AVX-512, and runs it here and there, one after the other.
#
#     scripts/bench-decode-avx2.sh [OPTION...]
#
# Options go to `cargo xtask bench-decode` (--rows, --cols, --tile, --passes, --python). The copy is built in a temporary folder,
# which takes a few minutes and about 2 GB.
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

build() { (cd "$1" && cargo build --quiet --release --locked --package moeprune-bench); }
build "$root"
export CARGO_TARGET_DIR="$copy/target"
build "$copy"
unset CARGO_TARGET_DIR

echo "as built here:"
"$root/target/release/moeprune-bench" decode "$@"
echo
echo "no loop for AVX-512:"
"$copy/target/release/moeprune-bench" decode "$@"
