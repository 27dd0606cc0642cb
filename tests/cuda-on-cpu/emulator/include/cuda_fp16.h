#pragma once

#include "cuda_small_float.h"

namespace cuda_on_cpu {

inline unsigned short encode_f16(float value) {
    unsigned short sign = bits<unsigned>(value) >> 16 & 0x8000;
    if (std::isnan(value)) return 0x7fff;
    value = fabsf(round_to(value, 10, -14));
    if (value > 65504.0f) return sign | 0x7c00;
    if (value < 0x1p-14f) return sign | (unsigned short)(value * 0x1p24f);
    return sign | (unsigned short)((bits<unsigned>(value) >> 13) - (112 << 10));
}

inline float decode_f16(unsigned short half) {
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    float value = exponent == 0    ? mantissa * 0x1p-24f
                  : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                   : ldexpf(1024 + mantissa, exponent - 25);
    return half & 0x8000 ? -value : value;
}

} // namespace cuda_on_cpu

CUDA_ON_CPU_SMALL_FLOAT(__half, unsigned short, cuda_on_cpu::encode_f16, cuda_on_cpu::decode_f16);
CUDA_ON_CPU_SMALL_FLOAT_FUNCTIONS(__half)
typedef __half half;

inline float __half2float(__half a) { return a; }
inline __half __float2half(float a) { return a; }
inline unsigned short __half_as_ushort(__half a) { return a.__x; }
inline __half __ushort_as_half(unsigned short a) { return cuda_on_cpu::bits<__half>(a); }
