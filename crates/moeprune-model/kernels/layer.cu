// What candle has no single operation for in a decoder layer. Elements are bf16 or f32; everything is
// computed in f32 and rounded once. Every result element is written by one thread, and sums are taken
// in an order that the shapes alone decide, so results are the same every time.

typedef unsigned short u16;

struct Bf16 {
    u16 bits;
};

__device__ inline float load(const Bf16 *at) { return __uint_as_float((unsigned)at->bits << 16); }

__device__ inline float load(const float *at) { return *at; }

// Rounds to the nearest, to even where two are.
__device__ inline void store(Bf16 *at, float value) {
    unsigned bits = __float_as_uint(value);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    at->bits = (u16)(nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

__device__ inline void store(float *at, float value) { *at = value; }

// Softmax of attention scores over the keys that a query sees, in place.
//
// `scores` is [rows, keys]; row r belongs to query r % queries, which stands at key `first` + that
// number and sees itself and what is before it, `window` keys at most (0: all). A key that is not
// seen gets 0. A block takes a row.

// The largest, or the sum, of what all threads of a block bring; every thread gets it.
template <bool LARGEST>
__device__ float over_block(float value, float *shared) {
    for (int step = 16; step > 0; step /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, value, step);
        value = LARGEST ? fmaxf(value, other) : value + other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        shared[threadIdx.x / 32] = value;
    }
    __syncthreads();
    float all = shared[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) {
        all = LARGEST ? fmaxf(all, shared[warp]) : all + shared[warp];
    }
    return all;
}

template <typename T>
__device__ void masked_softmax(T *scores, unsigned queries, unsigned keys, unsigned first,
                               unsigned window, float scale) {
    __shared__ float shared[32];
    T *row = scores + (unsigned long long)blockIdx.x * keys;
    unsigned end = first + blockIdx.x % queries + 1;
    unsigned begin = window > 0 && end > window ? end - window : 0;
    float most = __int_as_float(0xff800000); // minus infinity
    for (unsigned key = begin + threadIdx.x; key < end; key += blockDim.x) {
        most = fmaxf(most, load(row + key));
    }
    most = over_block<true>(most, shared);
    float sum = 0.0f;
    for (unsigned key = begin + threadIdx.x; key < end; key += blockDim.x) {
        sum += expf((load(row + key) - most) * scale);
    }
    float share = 1.0f / over_block<false>(sum, shared);
    for (unsigned key = threadIdx.x; key < keys; key += blockDim.x) {
        bool seen = key >= begin && key < end;
        store(row + key, seen ? expf((load(row + key) - most) * scale) * share : 0.0f);
    }
}

extern "C" __global__ void masked_softmax_bf16(Bf16 *scores, unsigned queries, unsigned keys,
                                               unsigned first, unsigned window, float scale) {
    masked_softmax(scores, queries, keys, first, window, scale);
}

extern "C" __global__ void masked_softmax_f32(float *scores, unsigned queries, unsigned keys,
                                              unsigned first, unsigned window, float scale) {
    masked_softmax(scores, queries, keys, first, window, scale);
}

// silu(gate) * up for rows that hold `gate` and then `up`: [rows, 2 * inner] to [rows, inner].
// Blocks are (row, some columns).

template <typename T>
__device__ void gated_silu(const T *both, T *out, unsigned inner) {
    unsigned column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= inner) {
        return;
    }
    const T *row = both + (unsigned long long)blockIdx.x * 2 * inner;
    float gate = load(row + column);
    float up = load(row + inner + column);
    store(out + (unsigned long long)blockIdx.x * inner + column, gate / (1.0f + expf(-gate)) * up);
}

extern "C" __global__ void gated_silu_bf16(const Bf16 *both, Bf16 *out, unsigned inner) {
    gated_silu(both, out, inner);
}

extern "C" __global__ void gated_silu_f32(const float *both, float *out, unsigned inner) {
    gated_silu(both, out, inner);
}

// Adds an expert's gated output to the hidden states of its tokens, in place:
// sum[row[i]] += gate[i] * output[i]. `places` holds a row and the bits of a gate for each i; no row
// comes twice in a launch, so no two threads write to one place. Blocks are (i, some columns).

template <typename T>
__device__ void add_gated_rows(T *sum, const T *output, const unsigned *places, unsigned width) {
    unsigned column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= width) {
        return;
    }
    unsigned row = places[2 * blockIdx.x];
    float gate = __uint_as_float(places[2 * blockIdx.x + 1]);
    T *to = sum + (unsigned long long)row * width + column;
    float more = load(output + (unsigned long long)blockIdx.x * width + column);
    store(to, __fadd_rn(load(to), __fmul_rn(gate, more)));
}

extern "C" __global__ void add_gated_rows_bf16(Bf16 *sum, const Bf16 *output,
                                               const unsigned *places, unsigned width) {
    add_gated_rows(sum, output, places, width);
}

extern "C" __global__ void add_gated_rows_f32(float *sum, const float *output,
                                              const unsigned *places, unsigned width) {
    add_gated_rows(sum, output, places, width);
}
