// What CuPy's own kernels use beside what stands in emulation.h.
#pragma once

#include <initializer_list>

#define __CUDA_ARCH__ 900
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_RTC__
#define assert(condition)

// NVRTC has min and max of two types.
template <class A, class B, class = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B> && !std::is_same_v<A, B>>>
inline std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <class A, class B, class = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B> && !std::is_same_v<A, B>>>
inline std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }

#ifndef REAL  // gpulstm's own kernels have none: a sum whose order is left to chance is not the same from run to run
// Threads take turns, so that an atomic operation is a plain one.
template <class T> inline T atomicCAS(T* at, T expected, T fresh) { T old = *at; if (old == expected) *at = fresh; return old; }
template <class T> inline T atomicExch(T* at, T fresh) { T old = *at; *at = fresh; return old; }
#define EMULATED_ATOMIC(name, type, expression) \
    inline type name(type* at, type x) { type old = *at; *at = (expression); return old; }
#define EMULATED_ATOMICS(type)                         \
    EMULATED_ATOMIC(atomicMax, type, old < x ? x : old) \
    EMULATED_ATOMIC(atomicMin, type, x < old ? x : old) \
    EMULATED_ATOMIC(atomicAnd, type, old & x)           \
    EMULATED_ATOMIC(atomicOr, type, old | x)            \
    EMULATED_ATOMIC(atomicXor, type, old ^ x)
EMULATED_ATOMICS(int)
EMULATED_ATOMICS(unsigned)
EMULATED_ATOMICS(unsigned long long)
EMULATED_ATOMIC(atomicAdd, int, old + x)
EMULATED_ATOMIC(atomicAdd, unsigned, old + x)
EMULATED_ATOMIC(atomicAdd, unsigned long long, old + x)
EMULATED_ATOMIC(atomicAdd, float, old + x)
EMULATED_ATOMIC(atomicAdd, double, old + x)
#endif

#define __syncwarp(...) emulated::meet(__LINE__, [](emulated::Lanes&) {})
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
