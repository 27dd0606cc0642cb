// A stored weight, decoded and scored as the CPU does it, bit for bit.
//
// No header of CUDA is used, so that NVRTC compiles this anywhere. Nothing is contracted or flushed to zero: products
// are `__fmul_rn`, and the code is compiled without `--use_fast_math`.

#pragma once

// The least key of a score that cannot be ranked: the bits of infinity.
constexpr unsigned UNRANKABLE = 0x7f800000u;
constexpr unsigned ALL_LANES = 0xffffffffu;

// How many weights a 32-bit word holds, and the bits of the magnitude of one of them as an f32; exact. The first weight
// of a word is in its low bits.
struct Bf16 {
    static constexpr int PER_WORD = 2;

    static __device__ __forceinline__ unsigned magnitude(unsigned word, int place) {
        return (place == 0 ? word << 16 : word) & 0x7fff0000u;
    }
};

struct F16 {
    static constexpr int PER_WORD = 2;

    static __device__ __forceinline__ unsigned magnitude(unsigned word, int place) {
        const unsigned bits = (place == 0 ? word : word >> 16) & 0x7fffu;
        // As an f32 these bits are too small by 2^112, subnormal numbers included; the product is exact.
        const unsigned finite = __float_as_uint(__fmul_rn(__uint_as_float(bits << 13), 0x1p112f));
        // The largest exponent stands for infinity and NaN, and stays the largest.
        return bits >= 0x7c00u ? finite | UNRANKABLE : finite;
    }
};

struct F32 {
    static constexpr int PER_WORD = 1;

    static __device__ __forceinline__ unsigned magnitude(unsigned word, int) {
        return word & 0x7fffffffu;
    }
};

// The score of a weight: one rounding.
static __device__ __forceinline__ float score_of(unsigned magnitude, float factor) {
    return __fmul_rn(__uint_as_float(magnitude), factor);
}

// Bits that order as scores do and are below `UNRANKABLE` for finite scores that are not negative, and for minus zero,
// which is made zero. All others have the sign bit set or the largest exponent.
static __device__ __forceinline__ unsigned rank_key(float score) {
    return __float_as_uint(__fadd_rn(score, 0.0f));
}

// Types as the host numbers them, for code that does not mind choosing while it runs.
enum Type : unsigned { TYPE_F32 = 0, TYPE_F16 = 1, TYPE_BF16 = 2 };

// A single weight of any type in a row of them.
static __device__ __forceinline__ unsigned load_weight(const void* row, unsigned column, unsigned type) {
    return type == TYPE_F32 ? static_cast<const unsigned*>(row)[column]
                            : static_cast<const unsigned short*>(row)[column];
}

static __device__ __forceinline__ void store_weight(void* row, unsigned column, unsigned type, unsigned word) {
    if (type == TYPE_F32) {
        static_cast<unsigned*>(row)[column] = word;
    } else {
        static_cast<unsigned short*>(row)[column] = static_cast<unsigned short>(word);
    }
}

static __device__ __forceinline__ unsigned magnitude_of(unsigned word, unsigned type) {
    return type == TYPE_F32   ? F32::magnitude(word, 0)
           : type == TYPE_F16 ? F16::magnitude(word, 0)
                              : Bf16::magnitude(word, 0);
}

static __device__ __forceinline__ unsigned weight_size(unsigned type) {
    return type == TYPE_F32 ? 4 : 2;
}
