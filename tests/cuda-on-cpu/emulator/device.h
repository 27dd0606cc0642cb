// CUDA C++ as g++ understands it: put before every kernel source. `__global__` and `__shared__` are not here: the
// build replaces them after preprocessing.
#pragma once

#include <math.h> // puts isnan and its like outside of std, as CUDA has them

#include <cassert>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "runtime.h"

#define __CUDACC__ 1
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#define __host__
#define __device__
#define __constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)

// Vector types

#define CUDA_ON_CPU_VECTORS(name, type)                                                                                \
    struct name##1 { type x; };                                                                                        \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                                                           \
    struct name##3 { type x, y, z; };                                                                                  \
    struct alignas(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; };                        \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                                   \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                                        \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
CUDA_ON_CPU_VECTORS(char, signed char)
CUDA_ON_CPU_VECTORS(uchar, unsigned char)
CUDA_ON_CPU_VECTORS(short, short)
CUDA_ON_CPU_VECTORS(ushort, unsigned short)
CUDA_ON_CPU_VECTORS(int, int)
CUDA_ON_CPU_VECTORS(uint, unsigned)
CUDA_ON_CPU_VECTORS(longlong, long long)
CUDA_ON_CPU_VECTORS(ulonglong, unsigned long long)
CUDA_ON_CPU_VECTORS(float, float)
CUDA_ON_CPU_VECTORS(double, double)
#undef CUDA_ON_CPU_VECTORS

namespace cuda_on_cpu {

template <class To, class From> To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <class T> uint64_t pack(T value) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
    uint64_t packed = 0;
    memcpy(&packed, &value, sizeof value);
    return packed;
}

template <class T> T unpack(uint64_t packed) {
    T value;
    memcpy(&value, &packed, sizeof value);
    return value;
}

// A kernel with its parameters' types, registered when its library is loaded.
template <auto function> struct Registration;
template <class... Parameters, void (*function)(Parameters...)> struct Registration<function> {
    static constexpr size_t sizes[] = {sizeof(Parameters)..., 0};
    static constexpr bool is_pointer[] = {std::is_pointer_v<Parameters>..., false};

    template <size_t... i> static void call(void **parameters, std::index_sequence<i...>) {
        function(*static_cast<std::remove_const_t<Parameters> *>(parameters[i])...);
    }
    static void call(void **parameters) { call(parameters, std::index_sequence_for<Parameters...>{}); }

    explicit Registration(const char *name) {
        register_kernel({name, call, sizes, is_pointer, sizeof...(Parameters)});
    }
};

// What the build makes of `__shared__ T name;`: one per place in the source (`Unique`) and template instance.
template <class T, class Unique> T &static_shared(Unique) {
    static void *memory = new_static_shared_memory(sizeof(T));
    return *static_cast<T *>(memory);
}

// What it makes of `extern __shared__ T name[];`, in a function or outside: a pointer that each launch sets.
template <class T> T *&dynamic_shared() {
    static T *pointer = static_cast<T *>(point_to_dynamic_shared_memory(reinterpret_cast<void **>(&pointer)));
    return pointer;
}

} // namespace cuda_on_cpu

// Barriers and warps. The place of a call comes along, to tell one barrier from another.

#define CUDA_ON_CPU_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_ON_CPU_PLACE) { cuda_on_cpu::block_barrier(false, {"__syncthreads", file, line}); }
inline int __syncthreads_count(int predicate, CUDA_ON_CPU_PLACE) {
    return cuda_on_cpu::block_barrier(predicate != 0, {"__syncthreads_count", file, line});
}
inline int __syncthreads_or(int predicate, CUDA_ON_CPU_PLACE) {
    return cuda_on_cpu::block_barrier(predicate != 0, {"__syncthreads_or", file, line}) > 0;
}
inline int __syncthreads_and(int predicate, CUDA_ON_CPU_PLACE) {
    return cuda_on_cpu::block_barrier(predicate == 0, {"__syncthreads_and", file, line}) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffff, CUDA_ON_CPU_PLACE) {
    cuda_on_cpu::warp_exchange(mask, 0, {"__syncwarp", file, line});
}

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_ON_CPU_PLACE) {
    auto *seen = cuda_on_cpu::warp_exchange(mask, cuda_on_cpu::pack(value), {"__shfl_sync", file, line});
    unsigned first = cuda_on_cpu::lane() & ~(width - 1);
    return cuda_on_cpu::unpack<T>(seen[first | (source & (width - 1))]);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_CPU_PLACE) {
    auto *seen = cuda_on_cpu::warp_exchange(mask, cuda_on_cpu::pack(value), {"__shfl_up_sync", file, line});
    unsigned lane = cuda_on_cpu::lane(), inside = lane & (width - 1);
    return inside < delta ? value : cuda_on_cpu::unpack<T>(seen[lane - delta]);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_CPU_PLACE) {
    auto *seen = cuda_on_cpu::warp_exchange(mask, cuda_on_cpu::pack(value), {"__shfl_down_sync", file, line});
    unsigned lane = cuda_on_cpu::lane(), inside = lane & (width - 1);
    return inside + delta >= unsigned(width) ? value : cuda_on_cpu::unpack<T>(seen[lane + delta]);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CUDA_ON_CPU_PLACE) {
    auto *seen = cuda_on_cpu::warp_exchange(mask, cuda_on_cpu::pack(value), {"__shfl_xor_sync", file, line});
    unsigned lane = cuda_on_cpu::lane(), source = lane ^ lanes, last = lane | (width - 1);
    return source > last ? value : cuda_on_cpu::unpack<T>(seen[source]);
}

namespace cuda_on_cpu {

// Calls `visit` with what each lane of the mask that exists brought, in the order of lanes.
template <class T, class Visit> void for_lanes(unsigned mask, T value, Place place, Visit visit) {
    auto *seen = warp_exchange(mask, pack(value), place);
    for (unsigned i = 0; i < 32; ++i)
        if ((mask & existing_lanes()) >> i & 1) visit(i, unpack<T>(seen[i]));
}

template <class T, class Join> T reduce(unsigned mask, T value, Place place, Join join) {
    bool first = true;
    T all{};
    for_lanes(mask, value, place, [&](unsigned, T one) {
        all = first ? one : join(all, one);
        first = false;
    });
    return all;
}

} // namespace cuda_on_cpu

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_ON_CPU_PLACE) {
    unsigned set = 0;
    cuda_on_cpu::for_lanes(mask, predicate != 0, {"__ballot_sync", file, line},
                           [&](unsigned lane, bool one) { set |= unsigned(one) << lane; });
    return set;
}
inline int __any_sync(unsigned mask, int predicate, CUDA_ON_CPU_PLACE) {
    return cuda_on_cpu::reduce<int>(mask, predicate != 0, {"__any_sync", file, line}, [](int a, int b) { return a | b; });
}
inline int __all_sync(unsigned mask, int predicate, CUDA_ON_CPU_PLACE) {
    return cuda_on_cpu::reduce<int>(mask, predicate != 0, {"__all_sync", file, line}, [](int a, int b) { return a & b; });
}
template <class T> unsigned __match_any_sync(unsigned mask, T value, CUDA_ON_CPU_PLACE) {
    unsigned set = 0;
    cuda_on_cpu::for_lanes(mask, value, {"__match_any_sync", file, line}, [&](unsigned lane, T one) {
        set |= unsigned(cuda_on_cpu::pack(one) == cuda_on_cpu::pack(value)) << lane;
    });
    return set;
}
template <class T> unsigned __match_all_sync(unsigned mask, T value, int *all, CUDA_ON_CPU_PLACE) {
    *all = 1;
    cuda_on_cpu::for_lanes(mask, value, {"__match_all_sync", file, line}, [&](unsigned, T one) {
        *all &= cuda_on_cpu::pack(one) == cuda_on_cpu::pack(value);
    });
    return *all ? mask : 0;
}

#define CUDA_ON_CPU_REDUCE(name, type, expression)                                                                     \
    inline type name(unsigned mask, type value, CUDA_ON_CPU_PLACE) {                                                   \
        return cuda_on_cpu::reduce(mask, value, {#name, file, line},                                                   \
                                   [](type a, type b) -> type { return expression; });                                 \
    }
CUDA_ON_CPU_REDUCE(__reduce_add_sync, unsigned, a + b)
CUDA_ON_CPU_REDUCE(__reduce_add_sync, int, a + b)
CUDA_ON_CPU_REDUCE(__reduce_min_sync, unsigned, a < b ? a : b)
CUDA_ON_CPU_REDUCE(__reduce_min_sync, int, a < b ? a : b)
CUDA_ON_CPU_REDUCE(__reduce_max_sync, unsigned, a > b ? a : b)
CUDA_ON_CPU_REDUCE(__reduce_max_sync, int, a > b ? a : b)
CUDA_ON_CPU_REDUCE(__reduce_and_sync, unsigned, a & b)
CUDA_ON_CPU_REDUCE(__reduce_or_sync, unsigned, a | b)
CUDA_ON_CPU_REDUCE(__reduce_xor_sync, unsigned, a ^ b)
#undef CUDA_ON_CPU_REDUCE

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}
[[noreturn]] inline void __trap(CUDA_ON_CPU_PLACE) { cuda_on_cpu::trap({"__trap", file, line}); }
template <class T> T __ldg(const T *address) { return *address; }
template <class T> T __ldcs(const T *address) { return *address; }
template <class T> T __ldcg(const T *address) { return *address; }
template <class T> void __stcs(T *address, std::common_type_t<T> value) { *address = value; }
template <class T> void __stcg(T *address, std::common_type_t<T> value) { *address = value; }

// Atomics: one thread runs at a time, so each is a plain read and write. They return what was there before.

#define CUDA_ON_CPU_ATOMIC(name, expression)                                                                           \
    template <class T> T name(T *address, std::common_type_t<T> value) {                                               \
        T old = *address;                                                                                              \
        *address = expression;                                                                                         \
        return old;                                                                                                    \
    }
CUDA_ON_CPU_ATOMIC(atomicAdd, old + value)
CUDA_ON_CPU_ATOMIC(atomicSub, old - value)
CUDA_ON_CPU_ATOMIC(atomicMin, value < old ? value : old)
CUDA_ON_CPU_ATOMIC(atomicMax, value > old ? value : old)
CUDA_ON_CPU_ATOMIC(atomicAnd, old & value)
CUDA_ON_CPU_ATOMIC(atomicOr, old | value)
CUDA_ON_CPU_ATOMIC(atomicXor, old ^ value)
CUDA_ON_CPU_ATOMIC(atomicExch, value)
CUDA_ON_CPU_ATOMIC(atomicInc, old >= value ? T(0) : old + 1)
#undef CUDA_ON_CPU_ATOMIC
template <class T> T atomicCAS(T *address, std::common_type_t<T> expected, std::common_type_t<T> value) {
    T old = *address;
    if (old == expected) *address = value;
    return old;
}

// Integers

inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
inline int __clz(int a) { return a ? __builtin_clz(a) : 32; }
inline int __clzll(long long a) { return a ? __builtin_clzll(a) : 64; }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __ffsll(long long a) { return __builtin_ffsll(a); }
inline unsigned __brev(unsigned a) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; ++i) reversed |= (a >> i & 1) << (31 - i);
    return reversed;
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    uint64_t bytes = uint64_t(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= unsigned(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return result;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t(a) * b >> 32; }
inline int __mulhi(int a, int b) { return int64_t(a) * b >> 32; }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return (uint64_t(high) << 32 | low) << (shift & 31) >> 32;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return (uint64_t(high) << 32 | low) >> (shift & 31);
}

#define CUDA_ON_CPU_MIN_MAX(type)                                                                                      \
    inline type min(type a, type b) { return b < a ? b : a; }                                                          \
    inline type max(type a, type b) { return a < b ? b : a; }
CUDA_ON_CPU_MIN_MAX(int)
CUDA_ON_CPU_MIN_MAX(unsigned)
CUDA_ON_CPU_MIN_MAX(long)
CUDA_ON_CPU_MIN_MAX(unsigned long)
CUDA_ON_CPU_MIN_MAX(long long)
CUDA_ON_CPU_MIN_MAX(unsigned long long)
#undef CUDA_ON_CPU_MIN_MAX
inline unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
inline unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }
inline unsigned max(int a, unsigned b) { return max(unsigned(a), b); }
inline unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// Floating point. The build forbids contraction, so an operator rounds once, as the _rn intrinsics do.

inline float __uint_as_float(unsigned a) { return cuda_on_cpu::bits<float>(a); }
inline unsigned __float_as_uint(float a) { return cuda_on_cpu::bits<unsigned>(a); }
inline float __int_as_float(int a) { return cuda_on_cpu::bits<float>(a); }
inline int __float_as_int(float a) { return cuda_on_cpu::bits<int>(a); }
inline double __longlong_as_double(long long a) { return cuda_on_cpu::bits<double>(a); }
inline long long __double_as_longlong(double a) { return cuda_on_cpu::bits<long long>(a); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __double2float_rn(double a) { return float(a); }
inline int __float2int_rn(float a) { return int(nearbyintf(a)); }
inline int __float2int_rz(float a) { return int(a); }
inline unsigned __float2uint_rn(float a) { return unsigned(nearbyintf(a)); }
inline unsigned __float2uint_rz(float a) { return unsigned(a); }
inline float __int2float_rn(int a) { return float(a); }
inline float __uint2float_rn(unsigned a) { return float(a); }
inline float __ll2float_rn(long long a) { return float(a); }
inline float __ull2float_rn(unsigned long long a) { return float(a); }
inline double __ull2double_rn(unsigned long long a) { return double(a); }
inline float __saturatef(float a) { return a > 0.0f ? fminf(a, 1.0f) : 0.0f; }
inline float __expf(float a) { return expf(a); }
inline float __logf(float a) { return logf(a); }
inline float __powf(float a, float b) { return powf(a, b); }
inline float __sinf(float a) { return sinf(a); }
inline float __cosf(float a) { return cosf(a); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
inline double rsqrt(double a) { return 1.0 / sqrt(a); }
inline float normcdff(float a) { return 0.5f * erfcf(-a * 0.70710678f); }
inline double normcdf(double a) { return 0.5 * erfc(-a * 0.70710678118654752); }
