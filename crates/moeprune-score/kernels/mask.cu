// Zeroes the weights of each row that matter least: a given number of them, those of the lowest scores, and of equal
// scores those in the lower columns.
//
// A block works on a row (or a segment of it, for N:M patterns of large groups). It reads the weights once, keeps their
// rank keys in shared memory and the weights themselves in registers, finds the cut by counting the keys below guesses,
// and writes the weights back. Counts are whole numbers: what is found does not depend on the guesses, nor on the order
// of threads, and is what the CPU's `smallest.rs` finds.
//
// Cost, by reckoning: for rows of 7168 bf16 weights of which 65 % go, a simulation finds the cut of normal weights under
// log-normal factors in 3 to 5 passes over the keys on average. A pass over 28 keys a thread is 7 loads of 16 bytes from
// shared memory and 4 instructions a key, so that a row is some 10 000 warp instructions in all, 2500 cycles of a
// multiprocessor that starts four a cycle: at 1.7 GHz, 4864 rows on 132 of them take 0.05 ms, half of what reading and
// writing the matrix at half of 2.8 TB/s takes. With 29 KB of keys and up to 64 registers a thread, four blocks fit into a
// multiprocessor and hide each other's waits.

#include "weight.cuh"

namespace {

constexpr unsigned THREADS = 256;
constexpr unsigned WARPS = THREADS / 32;
// Blocks that a multiprocessor shall hold, which bounds the registers of a thread.
constexpr unsigned BLOCKS = 4;
// So many keys between the ends of the search are ranked by comparing all pairs.
constexpr unsigned CANDIDATES = 128;

// Keys below `key` go, and the first `ties` of those equal to it.
struct Cut {
    unsigned key;
    unsigned ties;
};

struct Scratch {
    uint4 sums[2][2 * WARPS / 4];
    unsigned candidates[CANDIDATES];
    unsigned found;
    Cut cut;
    unsigned until;
};

// Adds up two numbers over the block. Alternating buffers make one barrier enough.
struct BlockSum {
    Scratch& scratch;
    unsigned turn = 0;

    __device__ __forceinline__ uint2 of_threads(unsigned a, unsigned b) {
        return of_warps(__reduce_add_sync(ALL_LANES, a), __reduce_add_sync(ALL_LANES, b));
    }

    // The numbers of a warp are those of its first lane.
    __device__ __forceinline__ uint2 of_warps(unsigned a, unsigned b) {
        const uint4* sums = share(a, b);
        uint2 total = {0, 0};
        for (unsigned i = 0; i < WARPS / 4; i++) {
            const uint4 as = sums[i], bs = sums[WARPS / 4 + i];
            total.x += as.x + as.y + as.z + as.w;
            total.y += bs.x + bs.y + bs.z + bs.w;
        }
        return total;
    }

    // The numbers of the threads before this one, added up, and of all.
    __device__ __forceinline__ uint2 before(unsigned a) {
        const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        unsigned through = a;
#pragma unroll 1
        for (unsigned step = 1; step < 32; step *= 2) {
            const unsigned other = __shfl_up_sync(ALL_LANES, through, step);
            through += lane >= step ? other : 0;
        }
        const unsigned of_warp = __shfl_sync(ALL_LANES, through, 31);
        const unsigned* sums = reinterpret_cast<const unsigned*>(share(of_warp, 0));
        uint2 result = {through - a, 0};
#pragma unroll 1
        for (unsigned i = 0; i < WARPS; i++) {
            result.x += i < warp ? sums[i] : 0;
            result.y += sums[i];
        }
        return result;
    }

    // Both numbers of every warp, to be read before the next call but one.
    __device__ __forceinline__ const uint4* share(unsigned a, unsigned b) {
        unsigned* sums = reinterpret_cast<unsigned*>(scratch.sums[turn]);
        turn ^= 1;
        if (threadIdx.x % 32 == 0) {
            sums[threadIdx.x / 32] = a;
            sums[WARPS + threadIdx.x / 32] = b;
        }
        __syncthreads();
        return reinterpret_cast<const uint4*>(sums);
    }
};

// A row of which 16 bytes are read and written at a time: it starts and ends at multiples of 16 bytes.
template <class Weight>
struct Vectors {
    using Unit = uint4;
    static constexpr unsigned KEYS = 4 * Weight::PER_WORD;
    // Units a thread holds in registers between reading and writing; those of wider rows are read again.
    static constexpr unsigned KEPT = 4;

    uint4* row;
    const float4* factors;
    unsigned units;

    __device__ Vectors(void* row, const float* factors, unsigned columns, unsigned)
        : row(static_cast<uint4*>(row)),
          factors(reinterpret_cast<const float4*>(factors)),
          units(columns / KEYS) {}

    __device__ __forceinline__ uint4 load(unsigned unit) const { return row[unit]; }

    __device__ __forceinline__ void keys(const uint4& weights, unsigned unit, unsigned (&keys)[KEYS]) const {
        const unsigned words[4] = {weights.x, weights.y, weights.z, weights.w};
#pragma unroll
        for (unsigned part = 0; part < KEYS / 4; part++) {
            const float4 factor = factors[KEYS / 4 * unit + part];
            const float factors[4] = {factor.x, factor.y, factor.z, factor.w};
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                const unsigned j = 4 * part + i;
                const unsigned word = words[j / Weight::PER_WORD];
                keys[j] = rank_key(score_of(Weight::magnitude(word, j % Weight::PER_WORD), factors[i]));
            }
        }
    }

    __device__ __forceinline__ void store(unsigned unit, const uint4& weights, const bool (&gone)[KEYS]) const {
        unsigned words[4] = {weights.x, weights.y, weights.z, weights.w};
#pragma unroll
        for (unsigned j = 0; j < KEYS; j++) {
            constexpr unsigned OTHER_HALF[2] = {0xffff0000u, 0x0000ffffu};
            const unsigned kept = Weight::PER_WORD == 1 ? 0 : OTHER_HALF[j % 2];
            if (gone[j]) {
                words[j / Weight::PER_WORD] &= kept;
            }
        }
        row[unit] = uint4{words[0], words[1], words[2], words[3]};
    }
};

// Any row, a weight at a time.
struct Singles {
    using Unit = unsigned;
    static constexpr unsigned KEYS = 1;
    static constexpr unsigned KEPT = 1;

    void* row;
    const float* factors;
    unsigned units;
    unsigned type;

    __device__ Singles(void* row, const float* factors, unsigned columns, unsigned type)
        : row(row), factors(factors), units(columns), type(type) {}

    __device__ __forceinline__ unsigned load(unsigned unit) const { return load_weight(row, unit, type); }

    __device__ __forceinline__ void keys(unsigned weight, unsigned unit, unsigned (&keys)[1]) const {
        keys[0] = rank_key(score_of(magnitude_of(weight, type), factors[unit]));
    }

    __device__ __forceinline__ void store(unsigned unit, unsigned, const bool (&gone)[1]) const {
        if (gone[0]) {
            store_weight(row, unit, type, 0);
        }
    }
};

// The memory that a launch lets a block share.
__device__ __forceinline__ uint4* dynamic() {
    extern __shared__ uint4 memory[];
    return memory;
}

// The keys of a row in shared memory, in an order that threads write and read without conflicts: the first four of
// every unit, then the second four. Counting does not mind the order.
template <class Row>
struct InShared {
    unsigned units;
    unsigned columns;

    __device__ explicit InShared(const Row& row) : units(row.units), columns(row.units * Row::KEYS) {
        if (Row::KEYS == 1) {
            // The rest of the last four never counts.
            const unsigned end = (columns + 3) / 4 * 4;
            if (columns + threadIdx.x < end) {
                reinterpret_cast<unsigned*>(dynamic())[columns + threadIdx.x] = ~0u;
            }
        }
    }

    __device__ __forceinline__ void put(unsigned unit, const unsigned (&keys)[Row::KEYS]) const {
        if constexpr (Row::KEYS == 1) {
            reinterpret_cast<unsigned*>(dynamic())[unit] = keys[0];
        } else {
#pragma unroll
            for (unsigned part = 0; part < Row::KEYS / 4; part++) {
                const unsigned* from = keys + 4 * part;
                dynamic()[part * units + unit] = uint4{from[0], from[1], from[2], from[3]};
            }
        }
    }

    __device__ __forceinline__ void get(
        const Row&, const typename Row::Unit&, unsigned unit, unsigned (&keys)[Row::KEYS]) const {
        if constexpr (Row::KEYS == 1) {
            keys[0] = reinterpret_cast<const unsigned*>(dynamic())[unit];
        } else {
#pragma unroll
            for (unsigned part = 0; part < Row::KEYS / 4; part++) {
                const uint4 four = dynamic()[part * units + unit];
                keys[4 * part] = four.x;
                keys[4 * part + 1] = four.y;
                keys[4 * part + 2] = four.z;
                keys[4 * part + 3] = four.w;
            }
        }
    }

    // Some key, another one for another place.
    __device__ __forceinline__ unsigned sampled(const Row&, unsigned place) const {
        return reinterpret_cast<const unsigned*>(dynamic())[place];
    }

    template <unsigned UNROLL = 1, class Look>
    __device__ __forceinline__ void each(const Row&, Look look) const {
        const unsigned fours = (columns + 3) / 4;
#pragma unroll UNROLL
        for (unsigned i = threadIdx.x; i < fours; i += THREADS) {
            const uint4 four = dynamic()[i];
            look(four.x);
            look(four.y);
            look(four.z);
            look(four.w);
        }
    }
};

// The keys of a row that shared memory cannot hold, worked out whenever they are wanted.
template <class Row>
struct Recomputed {
    __device__ explicit Recomputed(const Row&) {}

    __device__ __forceinline__ void put(unsigned, const unsigned (&)[Row::KEYS]) const {}

    __device__ __forceinline__ void get(
        const Row& row, const typename Row::Unit& weights, unsigned unit, unsigned (&keys)[Row::KEYS]) const {
        row.keys(weights, unit, keys);
    }

    __device__ __forceinline__ unsigned sampled(const Row& row, unsigned place) const {
        unsigned keys[Row::KEYS];
        row.keys(row.load(place / Row::KEYS), place / Row::KEYS, keys);
        return keys[0];
    }

    template <unsigned UNROLL = 1, class Look>
    __device__ __forceinline__ void each(const Row& row, Look look) const {
#pragma unroll 1
        for (unsigned unit = threadIdx.x; unit < row.units; unit += THREADS) {
            unsigned keys[Row::KEYS];
            row.keys(row.load(unit), unit, keys);
            for (unsigned j = 0; j < Row::KEYS; j++) {
                look(keys[j]);
            }
        }
    }
};

// Fewer than `quota` keys are below `low`, more are below `high`; the cut lies between them. The same in all threads.
template <class Row, class Keys>
struct Search {
    const Row& row;
    const Keys& keys;
    Scratch& scratch;
    BlockSum& sum;
    unsigned columns;
    unsigned quota;
    unsigned low = 0;
    unsigned below_low = 0;
    unsigned high = UNRANKABLE;
    unsigned below_high = columns;

    __device__ __forceinline__ Cut cut() {
        bool sampled = false, evenly = true;
        for (;;) {
            const unsigned between = below_high - below_low;
            if (between <= CANDIDATES) {
                return among_candidates();
            }
            if (high - low == 1) {
                return Cut{low, quota - below_low};
            }
            const uint2 guess = !sampled ? around_sample() : evenly ? interpolation() : thirds();
            const uint2 below = counts_below(guess);
            if (below.x == quota) {
                return Cut{guess.x, 0};
            }
            if (below.y == quota) {
                return Cut{guess.y, 0};
            }
            narrow(guess.x, below.x);
            narrow(guess.y, below.y);
            // Many equal keys are no even spread: interpolation alone would take for ever.
            evenly = !evenly || 2 * (below_high - below_low) <= between;
            if (!evenly) {
                tighten();
            }
            sampled = true;
        }
    }

    __device__ __forceinline__ uint2 counts_below(uint2 guess) {
        unsigned a = 0, b = 0;
        keys.template each<4>(row, [&](unsigned key) {
            a += key < guess.x;
            b += key < guess.y;
        });
        return sum.of_threads(a, b);
    }

    __device__ __forceinline__ void narrow(unsigned guess, unsigned below) {
        if (below < quota && guess > low) {
            low = guess;
            below_low = below;
        }
        if (below > quota && guess < high) {
            high = guess;
            below_high = below;
        }
    }

    // Quantiles of 256 keys to both sides of where the cut is expected, two places in 32 away: every warp sorts its
    // share, and the mean over the warps is taken.
    __device__ __forceinline__ uint2 around_sample() {
        const unsigned lane = threadIdx.x % 32;
        const unsigned place = static_cast<unsigned>(
            static_cast<unsigned long long>(threadIdx.x) * columns / THREADS);
        unsigned key = keys.sampled(row, place);
#pragma unroll
        for (unsigned size = 2; size <= 32; size *= 2) {
#pragma unroll
            for (unsigned step = size / 2; step > 0; step /= 2) {
                const unsigned other = __shfl_xor_sync(ALL_LANES, key, step);
                const bool lower = ((lane & size) == 0) == ((lane & step) == 0);
                key = lower == (other < key) ? other : key;
            }
        }
        const int expected = static_cast<int>(33.0f * __fdividef(quota, columns) - 0.5f);
        const unsigned a = __shfl_sync(ALL_LANES, key, expected < 2 ? 0 : expected - 2);
        const unsigned b = __shfl_sync(ALL_LANES, key, expected > 29 ? 31 : expected + 2);
        const uint2 mean = sum.of_warps(a / WARPS, b / WARPS);
        return uint2{inside(mean.x), inside(mean.y + 1)};
    }

    // One guess to either side of where the cut is expected if keys are evenly spread, three standard deviations away.
    __device__ __forceinline__ uint2 interpolation() const {
        const float one = __fdividef(1.0f, below_high - below_low);
        const float share = (quota - below_low) * one;
        const float variance = share * (1.0f - share) * one;
        const float spread = 3.0f * variance * rsqrtf(variance) + 0.5f * one;
        const float width = high - low;
        const float a = share - spread, b = share + spread;
        return uint2{
            inside(low + static_cast<unsigned>((a > 0.0f ? a : 0.0f) * width)),
            inside(low + static_cast<unsigned>((b < 1.0f ? b : 1.0f) * width)),
        };
    }

    // Two numbers that make three equal parts.
    __device__ __forceinline__ uint2 thirds() const {
        const unsigned third = (high - low + 2) / 3;
        return uint2{low + third, high - third};
    }

    __device__ __forceinline__ unsigned inside(unsigned guess) const {
        return guess <= low ? low + 1 : guess >= high ? high - 1 : guess;
    }

    // Moves both ends to keys that are there.
    __device__ __forceinline__ void tighten() {
        unsigned least = high - 1, most = low;
        keys.each(row, [&](unsigned key) {
            least = key >= low && key < least ? key : least;
            most = key < high && key > most ? key : most;
        });
        least = __reduce_min_sync(ALL_LANES, least);
        most = __reduce_max_sync(ALL_LANES, most);
        const unsigned* shared = reinterpret_cast<const unsigned*>(sum.share(least, most));
#pragma unroll 1
        for (unsigned i = 0; i < WARPS; i++) {
            least = shared[i] < least ? shared[i] : least;
            most = shared[WARPS + i] > most ? shared[WARPS + i] : most;
        }
        low = least;
        high = most + 1;
    }

    // Ranks the few keys that are left. Their order in the list is of no consequence.
    __device__ __forceinline__ Cut among_candidates() {
        const unsigned width = high - low;
        keys.each(row, [&](unsigned key) {
            if (key - low < width) {
                scratch.candidates[atomicAdd(&scratch.found, 1u)] = key;
            }
        });
        __syncthreads();
        const unsigned count = below_high - below_low;
        const unsigned wanted = quota - below_low;
        if (threadIdx.x < count) {
            const unsigned mine = scratch.candidates[threadIdx.x];
            unsigned less = 0, up_to = 0, equal_before = 0;
#pragma unroll 1
            for (unsigned i = 0; i < count; i++) {
                const unsigned other = scratch.candidates[i];
                less += other < mine;
                up_to += other <= mine;
                equal_before += other == mine && i < threadIdx.x;
            }
            if (less + equal_before + 1 == wanted) {
                scratch.cut = up_to == wanted ? Cut{mine + 1, 0} : Cut{mine, wanted - less};
            }
        }
        __syncthreads();
        return scratch.cut;
    }
};

// The column after the last of the equal keys that go.
template <class Row, class Keys>
__device__ __forceinline__ unsigned after_ties(
    const Row& row, const Keys& stored, const Cut& cut, Scratch& scratch, BlockSum& sum) {
    unsigned ties = cut.ties;
#pragma unroll 1
    for (unsigned start = 0; start < row.units; start += THREADS) {
        const unsigned unit = start + threadIdx.x;
        unsigned equal = 0;
        if (unit < row.units) {
            unsigned keys[Row::KEYS];
            stored.get(row, row.load(unit), unit, keys);
#pragma unroll
            for (unsigned j = 0; j < Row::KEYS; j++) {
                equal |= (keys[j] == cut.key) << j;
            }
        }
        const uint2 before = sum.before(__popc(equal));
        if (before.x < ties && ties <= before.x + __popc(equal)) {
#pragma unroll 1
            for (unsigned skip = ties - before.x - 1; skip > 0; skip--) {
                equal &= equal - 1;
            }
            scratch.until = unit * Row::KEYS + __ffs(equal);
        }
        if (before.y >= ties) {
            break;
        }
        ties -= before.y;
    }
    __syncthreads();
    return scratch.until;
}

// Zeroes `quota` weights of a row. Returns whether all scores can be ranked; if not, the row is left alone.
template <class Row, class Keys>
__device__ __forceinline__ bool mask_row(const Row& row, unsigned quota) {
    __shared__ Scratch scratch;
    BlockSum sum{scratch};
    const unsigned columns = row.units * Row::KEYS;
    const Keys stored(row);
    typename Row::Unit kept[Row::KEPT];
    unsigned worst = 0;

#pragma unroll
    for (unsigned i = 0; i < Row::KEPT; i++) {
        const unsigned unit = threadIdx.x + i * THREADS;
        if (unit < row.units) {
            kept[i] = row.load(unit);
        }
    }
    const auto score = [&](unsigned unit, const typename Row::Unit& weights) {
        unsigned keys[Row::KEYS];
        row.keys(weights, unit, keys);
#pragma unroll
        for (unsigned j = 0; j < Row::KEYS; j++) {
            worst = keys[j] > worst ? keys[j] : worst;
        }
        stored.put(unit, keys);
    };
#pragma unroll
    for (unsigned i = 0; i < Row::KEPT; i++) {
        const unsigned unit = threadIdx.x + i * THREADS;
        if (unit < row.units) {
            score(unit, kept[i]);
        }
    }
#pragma unroll 1
    for (unsigned unit = threadIdx.x + Row::KEPT * THREADS; unit < row.units; unit += THREADS) {
        score(unit, row.load(unit));
    }
    if (threadIdx.x == 0) {
        scratch.found = 0;
    }
    if (__syncthreads_or(worst >= UNRANKABLE)) {
        return false;
    }
    if (quota == 0) {
        return true;
    }

    Cut cut{UNRANKABLE, 0};
    if (quota < columns) {
        cut = Search<Row, Keys>{row, stored, scratch, sum, columns, quota}.cut();
    }

    const unsigned until = cut.ties > 0 ? after_ties(row, stored, cut, scratch, sum) : 0;
    const auto zero = [&](unsigned unit, const typename Row::Unit& weights) {
        unsigned keys[Row::KEYS];
        stored.get(row, weights, unit, keys);
        bool gone[Row::KEYS];
#pragma unroll
        for (unsigned j = 0; j < Row::KEYS; j++) {
            gone[j] = keys[j] < cut.key + (unit * Row::KEYS + j < until);
        }
        row.store(unit, weights, gone);
    };
#pragma unroll
    for (unsigned i = 0; i < Row::KEPT; i++) {
        const unsigned unit = threadIdx.x + i * THREADS;
        if (unit < row.units) {
            zero(unit, kept[i]);
        }
    }
#pragma unroll 1
    for (unsigned unit = threadIdx.x + Row::KEPT * THREADS; unit < row.units; unit += THREADS) {
        zero(unit, row.load(unit));
    }
    return true;
}

// A matrix cut into segments of columns, each with a quota of its own.
struct Segments {
    // Columns of a row.
    unsigned columns;
    // Columns of a segment, but for the last of a row, which may be shorter.
    unsigned width;
    // Weights that a segment of full width loses.
    unsigned quota;
    // The first rows lose one more.
    unsigned one_more;
    // Weights that a shorter segment loses.
    unsigned last_quota;
};

template <class Row, class Keys>
__device__ __forceinline__ void mask_segment(
    unsigned char* weights, const float* factors, unsigned* bad, unsigned type, const Segments& cut) {
    const unsigned segments = (cut.columns + cut.width - 1) / cut.width;
    const unsigned index = blockIdx.x / segments;
    const unsigned start = blockIdx.x % segments * cut.width;
    const unsigned left = cut.columns - start;
    const unsigned width = left < cut.width ? left : cut.width;
    const unsigned quota = left < cut.width ? cut.last_quota : cut.quota + (index < cut.one_more);
    const unsigned long long offset = static_cast<unsigned long long>(index) * cut.columns + start;
    const Row row(weights + offset * weight_size(type), factors + start, width, type);
    if (!mask_row<Row, Keys>(row, quota) && threadIdx.x == 0) {
        bad[index] = 1;
    }
}

}  // namespace

// The kernels, one block of `THREADS` a segment, all with the same arguments: weights, a factor a column, a word a row
// that is set where a score cannot be ranked (the row or segment is then left as it is), the type of the weights, and
// the segments. Kernels of one type want segments that start and end at multiples of 16 bytes; shared memory holds four
// bytes a column, rounded up to 16.

#define MASK(NAME, ROW, KEYS, TYPE)                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(                                              \
        unsigned char* weights, const float* factors, unsigned* bad, unsigned type, unsigned columns, unsigned width, \
        unsigned quota, unsigned one_more, unsigned last_quota) {                                                    \
        mask_segment<ROW, KEYS<ROW>>(                                                                                \
            weights, factors, bad, TYPE, Segments{columns, width, quota, one_more, last_quota});                     \
    }

MASK(mask_bf16, Vectors<Bf16>, InShared, TYPE_BF16)
MASK(mask_f16, Vectors<F16>, InShared, TYPE_F16)
MASK(mask_f32, Vectors<F32>, InShared, TYPE_F32)
// Rows of any type and alignment.
MASK(mask_any, Singles, InShared, type)
// Rows too long for shared memory, which these need none of.
MASK(mask_long, Singles, Recomputed, type)
