#pragma once

#include "cuda_small_float.h"

namespace cuda_on_cpu {

inline unsigned short encode_bf16(float value) {
    unsigned all = bits<unsigned>(value);
    return std::isnan(value) ? 0x7fff : (all + 0x7fff + (all >> 16 & 1)) >> 16;
}

inline float decode_bf16(unsigned short upper) { return bits<float>(unsigned(upper) << 16); }

} // namespace cuda_on_cpu

CUDA_ON_CPU_SMALL_FLOAT(__nv_bfloat16, unsigned short, cuda_on_cpu::encode_bf16, cuda_on_cpu::decode_bf16);
CUDA_ON_CPU_SMALL_FLOAT_FUNCTIONS(__nv_bfloat16)

inline float __bfloat162float(__nv_bfloat16 a) { return a; }
inline __nv_bfloat16 __float2bfloat16(float a) { return a; }
inline __nv_bfloat16 __float2bfloat16_rn(float a) { return a; }

struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline __nv_bfloat162 __hadd2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x + b.x, a.y + b.y}; }
inline __nv_bfloat162 __hsub2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x - b.x, a.y - b.y}; }
inline __nv_bfloat162 __hmul2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x * b.x, a.y * b.y}; }
