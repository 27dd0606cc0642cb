// Floating-point types of 16 and 8 bits: stored small, computed in f32, rounded to the nearest, ties to even, after each
// operation. For +, -, * and / of 16-bit types that is what a device computes.
#pragma once

#include "../device.h"

namespace cuda_on_cpu {

// The nearest value with `mantissa_bits`, and exponents from `min_exponent` on, before overflow is looked at.
inline float round_to(float value, int mantissa_bits, int min_exponent) {
    if (value == 0.0f || !std::isfinite(value)) return value;
    int exponent;
    frexpf(value, &exponent); // value = 0.1… * 2^exponent
    int ulp = (exponent - 1 < min_exponent ? min_exponent : exponent - 1) - mantissa_bits;
    return ldexpf(nearbyintf(ldexpf(value, -ulp)), ulp);
}

} // namespace cuda_on_cpu

// `encode` makes bits of an f32, `decode` an f32 of bits.
#define CUDA_ON_CPU_SMALL_FLOAT(name, storage, encode, decode)                                                         \
    struct name {                                                                                                      \
        storage __x;                                                                                                   \
        name() = default;                                                                                              \
        template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> name(T value) : __x(encode(float(value))) {} \
        operator float() const { return decode(__x); }                                                                 \
        friend name operator+(name a, name b) { return float(a) + float(b); }                                          \
        friend name operator-(name a, name b) { return float(a) - float(b); }                                          \
        friend name operator*(name a, name b) { return float(a) * float(b); }                                          \
        friend name operator/(name a, name b) { return float(a) / float(b); }                                          \
        name operator-() const { return -float(*this); }                                                               \
        name &operator+=(name b) { return *this = *this + b; }                                                         \
        name &operator-=(name b) { return *this = *this - b; }                                                         \
        name &operator*=(name b) { return *this = *this * b; }                                                         \
        name &operator/=(name b) { return *this = *this / b; }                                                         \
        friend bool operator==(name a, name b) { return float(a) == float(b); }                                        \
        friend bool operator!=(name a, name b) { return float(a) != float(b); }                                        \
        friend bool operator<(name a, name b) { return float(a) < float(b); }                                          \
        friend bool operator>(name a, name b) { return float(a) > float(b); }                                          \
        friend bool operator<=(name a, name b) { return float(a) <= float(b); }                                        \
        friend bool operator>=(name a, name b) { return float(a) >= float(b); }                                        \
    }

// The functions that cuda_fp16.h and cuda_bf16.h both have.
#define CUDA_ON_CPU_SMALL_FLOAT_FUNCTIONS(name)                                                                        \
    inline bool __hisnan(name a) { return std::isnan(float(a)); }                                                      \
    inline name __habs(name a) { return fabsf(a); }                                                                    \
    inline name __hmax(name a, name b) { return fmaxf(a, b); }                                                         \
    inline name __hmin(name a, name b) { return fminf(a, b); }                                                         \
    inline name __hmax_nan(name a, name b) { return __hisnan(a) ? a : __hisnan(b) ? b : __hmax(a, b); }                \
    inline name __hmin_nan(name a, name b) { return __hisnan(a) ? a : __hisnan(b) ? b : __hmin(a, b); }                \
    inline name hsqrt(name a) { return sqrtf(a); }                                                                     \
    inline name hcos(name a) { return cosf(a); }                                                                       \
    inline name hsin(name a) { return sinf(a); }                                                                       \
    inline name hlog(name a) { return logf(a); }                                                                       \
    inline name hexp(name a) { return expf(a); }
