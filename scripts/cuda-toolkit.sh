#!/usr/bin/env bash
# Assembles a CUDA 13.0 toolkit from NVIDIA's wheels on PyPI, to build the `cuda` feature on a machine without CUDA and
# without a GPU. Needs python3 with pip or venv, and gcc. About 1.2 GB.
#
#     scripts/cuda-toolkit.sh DIR
#     cargo xtask gpu-bundle --toolkit DIR
#
# or, for a build by hand:
#
#     CUDA_HOME=DIR PATH=DIR/bin:$PATH CUDA_COMPUTE_CAP=90 cargo build --release --package moeprune-cli --features cuda
#
# DIR/lib64/stubs/libcuda.so.1 satisfies the linker only: each call of it reports that there is no device.
set -euo pipefail

toolkit=${1:?usage: scripts/cuda-toolkit.sh DIR}
mkdir -p "$toolkit"
toolkit=$(cd "$toolkit" && pwd)
wheels=$toolkit/wheels/nvidia/cu13

if [ ! -x "$wheels/bin/nvcc" ]; then
    # 13.0 and no other: cudarc does not know every later nvcc, and a driver refuses PTX of a compiler newer than itself.
    packages='cuda-toolkit[nvcc,cudart,cccl,cublas,curand,nvrtc]==13.0.*'
    if python3 -m pip --version >/dev/null 2>&1; then
        python=python3
    else
        python3 -m venv "$toolkit/venv"
        python=$toolkit/venv/bin/python3
    fi
    "$python" -m pip install --quiet --upgrade --target "$toolkit/wheels" "$packages"
fi

# The wheels lack what a linker looks for: `lib64`, and libraries without a version in their names.
mkdir -p "$toolkit/lib64/stubs"
for part in bin include nvvm; do
    ln -sfn "$wheels/$part" "$toolkit/$part"
done
ln -sfn lib64 "$toolkit/lib"
for library in "$wheels"/lib/lib*; do
    name=$(basename "$library")
    ln -sf "$library" "$toolkit/lib64/$name"
    case $name in
        *.so.*) ln -sf "$name" "$toolkit/lib64/${name%%.so.*}.so" ;;
    esac
done

# The driver's library comes with a driver. In its place, every name that its headers declare; 100 is
# CUDA_ERROR_NO_DEVICE.
stub=$toolkit/lib64/stubs
grep -ohE '\bcu[A-Z][A-Za-z0-9]*(_v[0-9]+)?\b' "$toolkit"/include/cuda*.h | sort -u |
    sed 's/.*/int &(void) { return 100; }/' >"$stub/libcuda.c"
gcc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$stub/libcuda.so.1" "$stub/libcuda.c"
ln -sf libcuda.so.1 "$stub/libcuda.so"

release=$("$toolkit/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
[ "$release" = 13.0 ] || { echo "expected nvcc 13.0, got ${release:-none}" >&2; exit 1; }
echo "CUDA $release is in $toolkit"
