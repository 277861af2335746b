// CUDA's words for the processor's compiler: what nvrtc knows without an #include, as plain C++17.
//
// Only what a portable kernel may use is here. Atomics, shuffles, printf and the fast approximate functions
// (__expf) are left out on purpose, so that a kernel which uses them does not compile.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <algorithm>
#include <deque>
#include <string>
#include <utility>
#include <vector>

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

#include "grid.h"
#include "signature.h"
#include "warps.h"

#pragma GCC poison printf

// These stay as marks in the preprocessed text, where compile.py reads them: __global__ begins a kernel,
// __shared__ becomes static memory, __launch_bounds__ gives the kernel's largest block.
#define __global__ EMULATED_GLOBAL
#define __shared__ EMULATED_SHARED
#define __launch_bounds__(...) EMULATED_BOUNDS(__VA_ARGS__)

#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__
#define __align__(n) alignas(n)
#define __syncthreads() emulated::barrier(__LINE__)

template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
template <class T> inline T __ldg(const T* at) { return *at; }
inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return (uint64_t)((unsigned __int128)a * b >> 64); }

template <class To, class From> inline To emulated_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "the same width");
    To bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline int __float_as_int(float x) { return emulated_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
inline float __int_as_float(int x) { return emulated_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emulated_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulated_bits<double>(x); }
