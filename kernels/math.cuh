// The elementary functions of the cells, for every type V that a cell's arithmetic is compiled for.
//
// V is float or double (CUDA: one unit of a layer), and on the processor also a vector of them (units side by side;
// host/vector.h). An object for the processor is compiled with -DGPULSTM_ISA=<instruction set>. Everything is in a
// namespace of that name, since objects for several instruction sets must not share an inline function.
//
// exp_ expm1_ log1p_ tanh_ sigmoid sqrt_ absolute (v), minimum maximum (a, b)
// where(condition, a, b)  condition is a comparison of V, or several joined by & and |; a and b are of type V
// number<V>(x)            the constant x as a V; only small integers need no number<V> beside a V: 1 - v
// stored(v)               v as an array would store it: rounded if the arrays are of a half type, else unchanged
// Scalar<V>               V's element type
// FN marks a function, RARE one that is large and rarely called.
// NaN stays NaN, in minimum and maximum too. Infinite and very large arguments give the limits of a function.
#pragma once

#ifdef GPULSTM_ISA
#define FN inline __attribute__((always_inline))
#define RARE __attribute__((noinline))
#define LIBM(name) __builtin_##name
namespace GPULSTM_ISA {
#else
#define FN __device__ inline
#define RARE FN
#define LIBM(name) name
#if defined(REAL_IS_HALF)
#include <cuda_fp16.h>
#elif defined(REAL_IS_BFLOAT16)
#include <cuda_bf16.h>
#endif
#endif

template <class V> struct Traits;  // of vectors: host/vector.h
template <> struct Traits<float> {
    using Scalar = float;
    static constexpr int lanes = 1;
};
template <> struct Traits<double> {
    using Scalar = double;
    static constexpr int lanes = 1;
};
template <class V> using Scalar = typename Traits<V>::Scalar;

// The subtraction turns the number into a vector and changes no value, not even -0.
template <class V> FN V number(double x) { return (Scalar<V>)x - V{}; }

template <class Condition, class V> FN V where(Condition condition, V a, V b) { return condition ? a : b; }
template <class V> FN V minimum(V a, V b) { return where((a < b) | (a != a), a, b); }
template <class V> FN V maximum(V a, V b) { return where((a > b) | (a != a), a, b); }

FN float exp_(float x) { return LIBM(expf)(x); }
FN double exp_(double x) { return LIBM(exp)(x); }
FN float expm1_(float x) { return LIBM(expm1f)(x); }
FN double expm1_(double x) { return LIBM(expm1)(x); }
FN float log_(float x) { return LIBM(logf)(x); }
FN double log_(double x) { return LIBM(log)(x); }
FN float log1p_(float x) { return LIBM(log1pf)(x); }
FN double log1p_(double x) { return LIBM(log1p)(x); }
FN float tanh_(float x) { return LIBM(tanhf)(x); }
FN double tanh_(double x) { return LIBM(tanh)(x); }
FN float sqrt_(float x) { return LIBM(sqrtf)(x); }
FN double sqrt_(double x) { return LIBM(sqrt)(x); }
FN float absolute(float x) { return LIBM(fabsf)(x); }
FN double absolute(double x) { return LIBM(fabs)(x); }

#if defined(REAL_IS_HALF)
FN float stored(float v) { return __half2float(__float2half(v)); }
#elif defined(REAL_IS_BFLOAT16)
FN float stored(float v) { return __bfloat162float(__float2bfloat16(v)); }
#else
template <class V> FN V stored(V v) { return v; }
#endif

#ifdef GPULSTM_ISA
}  // namespace GPULSTM_ISA
#include "host/vector.h"
namespace GPULSTM_ISA {
#endif

template <class V> FN V sigmoid(V x) { return 1 / (1 + exp_(-x)); }

#ifdef GPULSTM_ISA
}  // namespace GPULSTM_ISA
#endif
