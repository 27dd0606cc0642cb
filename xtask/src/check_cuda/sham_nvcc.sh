#!/bin/sh
# Stands in for nvcc where there is no CUDA: writes empty files under the names asked for, so that build scripts pass and
# code can be type-checked. Nothing that is linked with its output runs.
previous='' mode='' source='' output='' folder='.'
for argument; do
    case $previous in
        -o) output=$argument ;;
        --output-directory) folder=$argument ;;
    esac
    case $argument in
        --version | --list-gpu-code | --ptx | --lib | -c) mode=$argument ;;
        *.cu) source=$argument ;;
    esac
    previous=$argument
done

case $mode in
    --version)
        echo 'nvcc: NVIDIA (R) Cuda compiler driver'
        echo 'A sham for type checks'
        echo '-'
        echo 'Cuda compilation tools, release 13.0, V13.0.0'
        ;;
    --list-gpu-code) printf 'sm_80\nsm_90\n' ;;
    --ptx) : >"$folder/$(basename "$source" .cu).ptx" ;;
    -c) : >"$output" ;;
    --lib) printf '!<arch>\n' >"$output" ;;
    *)
        echo "the sham nvcc does not know what to do with: $*" >&2
        exit 1
        ;;
esac
