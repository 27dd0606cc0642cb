// Kernels that use what the emulator offers, and kernels that are wrong on purpose.

extern __shared__ __align__(16) float sums[];

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_down_sync(0xffffffffu, value, offset);
    return value;
}

// One block: out[i] = a[i] + b[i], and total[0] = the sum of out.
extern "C" __global__ void __launch_bounds__(256)
    add_and_total(const float *__restrict__ a, const float *__restrict__ b, float *out, float *total, unsigned length) {
    __shared__ float of_warps[8];
    extern __shared__ unsigned bytes[]; // the same memory
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < length; i += blockDim.x) {
        bytes[i] = __float_as_uint(__fadd_rn(a[i], b[i]));
        sum += sums[i];
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        float all = 0.0f;
        for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) all += of_warps[warp];
        *total = all;
    }
    // Backwards, so that every thread writes what another has summed.
    for (unsigned i = threadIdx.x; i < length; i += blockDim.x) out[length - 1 - i] = sums[length - 1 - i];
}

// out[16 * block + …] = what each warp or block operation gives to the threads of a block of 64, as one number each.
extern "C" __global__ void operations(unsigned *out) {
    unsigned i = threadIdx.x, lane = i % 32;
    const unsigned all = 0xffffffffu;
    unsigned results[16] = {
        (unsigned)__syncthreads_count(i % 3 == 0),
        (unsigned)__syncthreads_and(i < 64),
        (unsigned)__syncthreads_or(i == 63),
        __ballot_sync(all, lane < 4),
        (unsigned)__any_sync(all, lane == 5),
        (unsigned)__all_sync(all, lane == 5),
        __match_any_sync(all, lane / 8),
        __reduce_add_sync(all, i),
        __reduce_max_sync(all, i),
        __shfl_sync(all, i, 3),
        __shfl_up_sync(all, i, 1),
        __shfl_xor_sync(all, i, 1),
        __shfl_sync(all, i, 1, 8),
        (unsigned)__popc(__float_as_uint(1.5f)),
        (unsigned)__clz(1),
        (unsigned)__ffs(8),
    };
    for (unsigned k = 0; k < 16; ++k) out[i * 16 + k] = results[k];
}

extern "C" __global__ void write_behind(float *out, unsigned length) {
    if (threadIdx.x == 0) out[length] = 1.0f;
}

extern "C" __global__ void read_behind(float *out, unsigned length) {
    if (threadIdx.x == 0) out[0] = out[length];
}

// Reads what another thread writes, with nothing between.
extern "C" __global__ void without_barrier(float *out) {
    __shared__ float other[32];
    other[threadIdx.x] = 1.0f;
    out[threadIdx.x] = other[(threadIdx.x + 1) % 32];
}

extern "C" __global__ void half_return(float *out) {
    if (threadIdx.x >= 32) return;
    __syncthreads();
    out[threadIdx.x] = 1.0f;
}

extern "C" __global__ void two_barriers(float *out) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1.0f;
}

extern "C" __global__ void shuffle_without_half(float *out) {
    float value = 1.0f;
    if (threadIdx.x < 16) value = __shfl_xor_sync(0xffffffffu, value, 1);
    __syncthreads();
    out[threadIdx.x] = value;
}
