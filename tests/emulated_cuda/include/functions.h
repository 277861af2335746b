// CUDA's elementary functions: C's, with C++'s overloads for float. The headers of C++ would take half of the time that
// it takes to compile a kernel.
#pragma once

#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS
#include <math.h>
#undef _GLIBCXX_INCLUDE_NEXT_C_HEADERS
#undef isnan
#undef isinf
#undef isfinite
#undef signbit

extern "C" double exp10(double);
extern "C" float exp10f(float);

#define EMULATED_ONE(name) inline float name(float x) { return name##f(x); }
EMULATED_ONE(exp) EMULATED_ONE(exp2) EMULATED_ONE(exp10) EMULATED_ONE(expm1)
EMULATED_ONE(log) EMULATED_ONE(log2) EMULATED_ONE(log10) EMULATED_ONE(log1p)
EMULATED_ONE(tanh) EMULATED_ONE(sinh) EMULATED_ONE(cosh) EMULATED_ONE(sin) EMULATED_ONE(cos) EMULATED_ONE(tan)
EMULATED_ONE(asin) EMULATED_ONE(acos) EMULATED_ONE(atan) EMULATED_ONE(asinh) EMULATED_ONE(acosh) EMULATED_ONE(atanh)
EMULATED_ONE(erf) EMULATED_ONE(erfc) EMULATED_ONE(sqrt) EMULATED_ONE(cbrt) EMULATED_ONE(lgamma) EMULATED_ONE(tgamma)
EMULATED_ONE(floor) EMULATED_ONE(ceil) EMULATED_ONE(trunc) EMULATED_ONE(rint) EMULATED_ONE(round) EMULATED_ONE(nearbyint)
EMULATED_ONE(fabs)
#define EMULATED_TWO(name) inline float name(float x, float y) { return name##f(x, y); }
EMULATED_TWO(pow) EMULATED_TWO(fmod) EMULATED_TWO(atan2) EMULATED_TWO(fmin) EMULATED_TWO(fmax) EMULATED_TWO(copysign)
EMULATED_TWO(hypot) EMULATED_TWO(nextafter) EMULATED_TWO(remainder) EMULATED_TWO(fdim)
inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
inline float ldexp(float x, int n) { return ldexpf(x, n); }
inline float frexp(float x, int* n) { return frexpf(x, n); }
inline float modf(float x, float* whole) { return modff(x, whole); }

#define EMULATED_TYPE(T)                                              \
    inline bool isnan(T x) { return __builtin_isnan(x); }             \
    inline bool isinf(T x) { return __builtin_isinf(x); }             \
    inline bool isfinite(T x) { return __builtin_isfinite(x); }       \
    inline bool signbit(T x) { return __builtin_signbit(x); }         \
    inline T abs(T x) { return fabs(x); }
EMULATED_TYPE(float)
EMULATED_TYPE(double)
inline int abs(int x) { return x < 0 ? -x : x; }
inline long abs(long x) { return x < 0 ? -x : x; }
inline long long abs(long long x) { return x < 0 ? -x : x; }
