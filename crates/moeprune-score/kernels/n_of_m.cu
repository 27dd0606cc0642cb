// In each group of `m` neighbouring columns zeroes the `n` weights of the lowest scores; of equal scores, those in the
// lower columns.
//
// A group is small enough for all of its pairs to be compared. What a thread or a block reads, it alone writes, and
// only after it has read all of it.

#include "weight.cuh"

namespace {

constexpr unsigned THREADS = 256;
// Columns of a thread of the kernels for groups of 2, 4 and 8, which are whole 16 bytes of every type.
constexpr unsigned COLUMNS = 8;

// Marks the `n` lowest of each whole group of `M`.
template <unsigned M>
__device__ __forceinline__ void mark_groups(const unsigned (&keys)[COLUMNS], unsigned n, bool (&gone)[COLUMNS]) {
#pragma unroll
    for (unsigned start = 0; start < COLUMNS; start += M) {
        unsigned lower[M] = {};
#pragma unroll
        for (unsigned right = 1; right < M; right++) {
#pragma unroll
            for (unsigned left = 0; left < right; left++) {
                // An equal score on the left counts as lower.
                const unsigned left_is_lower = keys[start + left] <= keys[start + right];
                lower[right] += left_is_lower;
                lower[left] += 1 - left_is_lower;
            }
        }
#pragma unroll
        for (unsigned j = 0; j < M; j++) {
            gone[start + j] = lower[j] < n;
        }
    }
}

template <class Weight>
__device__ __forceinline__ void small_groups(
    uint4* weights, const float* factors, unsigned* bad, unsigned columns, unsigned long long count, unsigned n,
    unsigned m) {
    constexpr unsigned WORDS = COLUMNS / Weight::PER_WORD;
    const unsigned long long index = static_cast<unsigned long long>(blockIdx.x) * THREADS + threadIdx.x;
    if (index >= count) {
        return;
    }
    const unsigned per_row = columns / COLUMNS;
    const unsigned long long row = index / per_row;
    const unsigned column = static_cast<unsigned>(index % per_row) * COLUMNS;
    uint4* mine = weights + index * (WORDS / 4);
    unsigned words[WORDS];
#pragma unroll
    for (unsigned i = 0; i < WORDS / 4; i++) {
        const uint4 four = mine[i];
        words[4 * i] = four.x;
        words[4 * i + 1] = four.y;
        words[4 * i + 2] = four.z;
        words[4 * i + 3] = four.w;
    }
    unsigned keys[COLUMNS];
    unsigned worst = 0;
#pragma unroll
    for (unsigned part = 0; part < COLUMNS / 4; part++) {
        const float4 four = reinterpret_cast<const float4*>(factors + column)[part];
        const float factor[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            const unsigned j = 4 * part + i;
            const unsigned magnitude = Weight::magnitude(words[j / Weight::PER_WORD], j % Weight::PER_WORD);
            keys[j] = rank_key(score_of(magnitude, factor[i]));
            worst = keys[j] > worst ? keys[j] : worst;
        }
    }
    if (worst >= UNRANKABLE) {
        bad[row] = 1;
        return;
    }
    bool gone[COLUMNS];
    if (m == 2) {
        mark_groups<2>(keys, n, gone);
    } else if (m == 4) {
        mark_groups<4>(keys, n, gone);
    } else {
        mark_groups<8>(keys, n, gone);
    }
#pragma unroll
    for (unsigned j = 0; j < COLUMNS; j++) {
        constexpr unsigned OTHER_HALF[2] = {0xffff0000u, 0x0000ffffu};
        const unsigned kept = Weight::PER_WORD == 1 ? 0 : OTHER_HALF[j % 2];
        if (gone[j]) {
            words[j / Weight::PER_WORD] &= kept;
        }
    }
#pragma unroll
    for (unsigned i = 0; i < WORDS / 4; i++) {
        mine[i] = uint4{words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]};
    }
}

}  // namespace

// Groups of 2, 4 or 8 in a matrix whose columns are a multiple of eight and that starts at a multiple of 16 bytes. A
// thread takes eight columns; `count` is how many such there are. `bad` has a word a row, set where a score cannot be
// ranked; the group of it is then left as it is.
#define N_OF_M(NAME, WEIGHT)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(                                                    \
        uint4* weights, const float* factors, unsigned* bad, unsigned columns, unsigned long long count, unsigned n, \
        unsigned m) {                                                                                              \
        small_groups<WEIGHT>(weights, factors, bad, columns, count, n, m);                                         \
    }

N_OF_M(n_of_m_bf16, Bf16)
N_OF_M(n_of_m_f16, F16)
N_OF_M(n_of_m_f32, F32)

// Groups of up to 256 in any matrix, a thread a weight. A block takes as many whole groups of a row as it has threads
// for; `blocks` is the number of such blocks that a row takes. A last group of fewer columns loses `last_n`.
extern "C" __global__ void __launch_bounds__(THREADS) n_of_m_any(
    unsigned char* weights, const float* factors, unsigned* bad, unsigned type, unsigned columns, unsigned blocks,
    unsigned n, unsigned m, unsigned last_n) {
    __shared__ unsigned keys[THREADS];
    const unsigned row = blockIdx.x / blocks;
    const unsigned whole = THREADS / m * m;
    const unsigned start = blockIdx.x % blocks * whole;
    const unsigned left = columns - start;
    const unsigned width = left < whole ? left : whole;
    void* mine = weights + (static_cast<unsigned long long>(row) * columns + start) * weight_size(type);
    unsigned key = 0;
    if (threadIdx.x < width) {
        const unsigned magnitude = magnitude_of(load_weight(mine, threadIdx.x, type), type);
        key = rank_key(score_of(magnitude, factors[start + threadIdx.x]));
    }
    keys[threadIdx.x] = key;
    if (__syncthreads_or(key >= UNRANKABLE)) {
        if (threadIdx.x == 0) {
            bad[row] = 1;
        }
        return;
    }
    if (threadIdx.x >= width) {
        return;
    }
    const unsigned group = threadIdx.x / m * m;
    const unsigned end = group + m < width ? group + m : width;
    unsigned lower = 0;
    for (unsigned j = group; j < end; j++) {
        lower += j < threadIdx.x ? keys[j] <= key : keys[j] < key;
    }
    if (lower < (end - group < m ? last_n : n)) {
        store_weight(mine, threadIdx.x, type, 0);
    }
}
