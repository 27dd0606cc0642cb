// libcudart.so.13: kernels that nvcc linked into a program announce themselves when it starts, and are never launched
// here. candle's quantised kernels do so; the driver interface does all else.
#include <cstdio>

namespace {

int unsupported(const char *name) {
    fprintf(stderr, "cuda-on-cpu: %s is not emulated\n", name);
    return 801; // cudaErrorNotSupported
}

} // namespace

extern "C" {

void **__cudaRegisterFatBinary(void *) { static void *handle; return &handle; }
void __cudaRegisterFatBinaryEnd(void **) {}
void __cudaUnregisterFatBinary(void **) {}
void __cudaRegisterFunction() {}
void __cudaRegisterVar() {}

int __cudaGetKernel() { return unsupported("__cudaGetKernel"); }
int __cudaLaunchKernel_ptsz() { return unsupported("__cudaLaunchKernel"); }
int __cudaPopCallConfiguration() { return unsupported("__cudaPopCallConfiguration"); }
int __cudaPushCallConfiguration() { return unsupported("__cudaPushCallConfiguration"); }
int cudaDeviceGetAttribute() { return unsupported("cudaDeviceGetAttribute"); }
int cudaFree() { return unsupported("cudaFree"); }
int cudaFreeAsync_ptsz() { return unsupported("cudaFreeAsync"); }
int cudaFuncGetAttributes() { return unsupported("cudaFuncGetAttributes"); }
int cudaFuncSetAttribute() { return unsupported("cudaFuncSetAttribute"); }
int cudaGetDevice() { return unsupported("cudaGetDevice"); }
int cudaGetDeviceCount() { return unsupported("cudaGetDeviceCount"); }
const char *cudaGetErrorName(int) { return "cudaErrorNotSupported"; }
const char *cudaGetErrorString(int) { return "not emulated"; }
int cudaGetLastError() { return 0; }
int cudaMalloc() { return unsupported("cudaMalloc"); }
int cudaMallocAsync_ptsz() { return unsupported("cudaMallocAsync"); }
int cudaMemsetAsync_ptsz() { return unsupported("cudaMemsetAsync"); }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags() { return unsupported("cudaOccupancyMaxActiveBlocks"); }
int cudaPeekAtLastError() { return 0; }
int cudaSetDevice() { return unsupported("cudaSetDevice"); }
int cudaStreamSynchronize_ptsz() { return unsupported("cudaStreamSynchronize"); }

} // extern "C"
