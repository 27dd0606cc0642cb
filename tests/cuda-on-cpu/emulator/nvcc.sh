#!/bin/sh
# Stands in for nvcc when candle is built for the emulation. The kernels' code comes from their sources, so PTX is empty.
# Candle also links launchers of quantised and mixture-of-experts kernels, which nothing here calls: each ends the process.
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
    --version) echo 'Cuda compilation tools, release 13.0, V13.0.0' ;;
    --list-gpu-code) printf 'sm_80\nsm_90\n' ;;
    --ptx) : >"$folder/$(basename "$source" .cu).ptx" ;;
    -c) : >"$output" ;;
    --lib)
        {
            echo '#include <stdlib.h>'
            sed -n 's/^ *pub fn \([a-z0-9_A-Z]*\)(.*/void \1(void) { abort(); }/p' src/ffi.rs
        } >"$output.c"
        cc -c -fPIC "$output.c" -o "$output.o" && ar rcs "$output" "$output.o"
        ;;
    *)
        echo "the emulation's nvcc does not know what to do with: $*" >&2
        exit 1
        ;;
esac
