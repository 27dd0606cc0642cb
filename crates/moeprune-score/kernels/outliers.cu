// Sums of the scores of each row, and counts of those above a threshold: what OWL's outliers are made of.
//
// A warp takes a row. Scores are added in f64 in the order of the CPU's `sum.rs`, so that sums are equal to the last
// bit; the host adds the rows in their order. `bad` has a word a row, set where a score cannot be ranked.

#include "weight.cuh"

namespace {

constexpr unsigned THREADS = 256;

// One weight a lane: the lane is the column modulo 32, which the order of the sums asks for.
template <class Weight>
struct Row {
    const void* weights;
    const float* factors;
    unsigned columns;

    __device__ __forceinline__ float score(unsigned column) const {
        const unsigned word = Weight::PER_WORD == 1 ? static_cast<const unsigned*>(weights)[column]
                                                    : static_cast<const unsigned short*>(weights)[column];
        return score_of(Weight::magnitude(word, 0), factors[column]);
    }
};

// The row of this warp; past the last one, `row` is `rows` or more.
template <class Weight>
__device__ __forceinline__ Row<Weight> row_of_warp(
    const unsigned char* weights, const float* factors, unsigned columns, unsigned row) {
    constexpr unsigned SIZE = 4 / Weight::PER_WORD;
    return Row<Weight>{weights + static_cast<unsigned long long>(row) * columns * SIZE, factors, columns};
}

__device__ __forceinline__ unsigned warp_index() {
    return blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
}

template <class Weight>
__device__ __forceinline__ void sum_row(
    const unsigned char* weights, const float* factors, unsigned* bad, double* sums, unsigned rows, unsigned columns) {
    const unsigned index = warp_index(), lane = threadIdx.x % 32;
    if (index >= rows) {
        return;
    }
    const Row<Weight> row = row_of_warp<Weight>(weights, factors, columns, index);
    const unsigned whole = columns / 32 * 32;
    double sum = 0.0;
    unsigned worst = 0;
#pragma unroll 8
    for (unsigned column = lane; column < whole; column += 32) {
        const float score = row.score(column);
        worst = rank_key(score) > worst ? rank_key(score) : worst;
        sum = __dadd_rn(sum, static_cast<double>(score));
    }
    // Lanes eight apart are added first, in the order of lanes, then neighbours in pairs.
    double eighth = __dadd_rn(0.0, __shfl_sync(ALL_LANES, sum, lane % 8));
    for (unsigned from = 8; from < 32; from += 8) {
        eighth = __dadd_rn(eighth, __shfl_sync(ALL_LANES, sum, from + lane % 8));
    }
    for (unsigned apart = 1; apart < 8; apart *= 2) {
        eighth = __dadd_rn(eighth, __shfl_xor_sync(ALL_LANES, eighth, apart));
    }
    // The rest of the columns, one after the other.
    float rest = 0.0f;
    if (whole + lane < columns) {
        rest = row.score(whole + lane);
        worst = rank_key(rest) > worst ? rank_key(rest) : worst;
    }
    for (unsigned j = 0; whole + j < columns; j++) {
        eighth = __dadd_rn(eighth, static_cast<double>(__shfl_sync(ALL_LANES, rest, j)));
    }
    worst = __reduce_max_sync(ALL_LANES, worst);
    if (lane == 0) {
        sums[index] = eighth;
        bad[index] = worst >= UNRANKABLE;
    }
}

template <class Weight>
__device__ __forceinline__ void count_row(
    const unsigned char* weights, const float* factors, unsigned* bad, unsigned* counts, unsigned rows,
    unsigned columns, float floor) {
    const unsigned index = warp_index(), lane = threadIdx.x % 32;
    if (index >= rows) {
        return;
    }
    const Row<Weight> row = row_of_warp<Weight>(weights, factors, columns, index);
    unsigned count = 0, worst = 0;
#pragma unroll 8
    for (unsigned column = lane; column < columns; column += 32) {
        const float score = row.score(column);
        worst = rank_key(score) > worst ? rank_key(score) : worst;
        count += score > floor;
    }
    count = __reduce_add_sync(ALL_LANES, count);
    worst = __reduce_max_sync(ALL_LANES, worst);
    if (lane == 0) {
        counts[index] = count;
        bad[index] = worst >= UNRANKABLE;
    }
}

}  // namespace

#define OUTLIERS(TYPE, WEIGHT)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) score_sum_##TYPE(                                        \
        const unsigned char* weights, const float* factors, unsigned* bad, double* sums, unsigned rows,            \
        unsigned columns) {                                                                                        \
        sum_row<WEIGHT>(weights, factors, bad, sums, rows, columns);                                               \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) count_above_##TYPE(                                      \
        const unsigned char* weights, const float* factors, unsigned* bad, unsigned* counts, unsigned rows,        \
        unsigned columns, float floor) {                                                                           \
        count_row<WEIGHT>(weights, factors, bad, counts, rows, columns, floor);                                    \
    }

OUTLIERS(bf16, Bf16)
OUTLIERS(f16, F16)
OUTLIERS(f32, F32)
