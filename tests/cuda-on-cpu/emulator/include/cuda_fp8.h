#pragma once

#include "cuda_fp16.h"

namespace cuda_on_cpu {

// No infinities: what is too large becomes the largest.
inline unsigned char encode_e4m3(float value) {
    unsigned char sign = bits<unsigned>(value) >> 24 & 0x80;
    if (std::isnan(value)) return 0x7f;
    value = fminf(fabsf(round_to(value, 3, -6)), 448.0f);
    if (value < 0x1p-6f) return sign | (unsigned char)(value * 0x1p9f);
    return sign | (unsigned char)((bits<unsigned>(value) >> 20) - (120 << 3));
}

inline float decode_e4m3(unsigned char small) {
    int exponent = small >> 3 & 15, mantissa = small & 7;
    float value = (small & 0x7f) == 0x7f ? NAN
                  : exponent == 0        ? mantissa * 0x1p-9f
                                         : ldexpf(8 + mantissa, exponent - 10);
    return small & 0x80 ? -value : value;
}

} // namespace cuda_on_cpu

CUDA_ON_CPU_SMALL_FLOAT(__nv_fp8_e4m3, unsigned char, cuda_on_cpu::encode_e4m3, cuda_on_cpu::decode_e4m3);

enum __nv_fp8_interpretation_t { __NV_E4M3 };
inline __half __nv_cvt_fp8_to_halfraw(unsigned char a, __nv_fp8_interpretation_t) { return cuda_on_cpu::decode_e4m3(a); }
