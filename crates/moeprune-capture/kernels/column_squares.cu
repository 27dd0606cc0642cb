// The sum of squares of every column of `[tokens, features]`, in f32 and always in the same order.
//
// The rows are cut into chunks of 64. In a chunk the squares of a column, each rounded, are added one after the other to
// zero; then the sums of the chunks are added one after the other to zero. `column_squares.rs` does the same on the CPU,
// with the same bits. A thread takes a column, so that the lanes of a warp read neighbouring values.
//
// No header of CUDA is used, so that NVRTC compiles this anywhere.

namespace {

constexpr unsigned THREADS = 256;
constexpr unsigned CHUNK = 64;

// The magnitude of a stored value, exact. The sign makes no difference to a square.
struct Bf16 {
    using Stored = unsigned short;

    static __device__ __forceinline__ float magnitude(Stored bits) {
        return __uint_as_float((bits & 0x7fffu) << 16);
    }
};

struct F16 {
    using Stored = unsigned short;

    static __device__ __forceinline__ float magnitude(Stored bits) {
        // As an f32 these bits are too small by 2^112, subnormal numbers included; the product is exact.
        const unsigned rest = bits & 0x7fffu;
        const float finite = __fmul_rn(__uint_as_float(rest << 13), 0x1p112f);
        // The largest exponent stands for infinity and NaN, and stays the largest.
        return rest >= 0x7c00u ? __uint_as_float(__float_as_uint(finite) | 0x7f800000u) : finite;
    }
};

struct F32 {
    using Stored = float;

    static __device__ __forceinline__ float magnitude(Stored value) { return value; }
};

template <class Value>
__device__ __forceinline__ void sum_chunk(
    const typename Value::Stored* values, float* partials, unsigned tokens, unsigned features) {
    const unsigned blocks = (features + THREADS - 1) / THREADS;
    const unsigned column = blockIdx.x % blocks * THREADS + threadIdx.x;
    const unsigned chunk = blockIdx.x / blocks;
    if (column >= features) {
        return;
    }
    const unsigned start = chunk * CHUNK;
    const unsigned rows = tokens - start < CHUNK ? tokens - start : CHUNK;
    const typename Value::Stored* value = values + static_cast<unsigned long long>(start) * features + column;
    float sum = 0.0f;
#pragma unroll 8
    for (unsigned row = 0; row < rows; row++) {
        const float x = Value::magnitude(value[static_cast<unsigned long long>(row) * features]);
        sum = __fadd_rn(sum, __fmul_rn(x, x));
    }
    partials[static_cast<unsigned long long>(chunk) * features + column] = sum;
}

}  // namespace

// The sums of each chunk, `[chunks, features]`: a block of `THREADS` for as many columns of a chunk.
#define COLUMN_SQUARES(TYPE, VALUE)                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) column_squares_##TYPE(                           \
        const VALUE::Stored* values, float* partials, unsigned tokens, unsigned features) {                \
        sum_chunk<VALUE>(values, partials, tokens, features);                                              \
    }

COLUMN_SQUARES(bf16, Bf16)
COLUMN_SQUARES(f16, F16)
COLUMN_SQUARES(f32, F32)

// The chunks of each column added up, a thread a column.
extern "C" __global__ void __launch_bounds__(THREADS) column_squares_total(
    const float* partials, float* sums, unsigned chunks, unsigned features) {
    const unsigned column = blockIdx.x * THREADS + threadIdx.x;
    if (column >= features) {
        return;
    }
    float sum = 0.0f;
#pragma unroll 8
    for (unsigned chunk = 0; chunk < chunks; chunk++) {
        sum = __fadd_rn(sum, partials[static_cast<unsigned long long>(chunk) * features + column]);
    }
    sums[column] = sum;
}
