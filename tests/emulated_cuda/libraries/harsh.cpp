// Elementary functions, off by one unit in the last place where a test asks for it: CUDA promises no more of them.
//
// The linker sends every call of a kernel's to f here, to __wrap_f (compile.py).
#include <math.h>
#include <stdint.h>
#include <string.h>

extern "C" double exp10(double);
extern "C" float exp10f(float);

extern int emulated_harsh;

namespace emulated {

template <class T, class Bits> inline T off_by_one(T y) {
    if (!emulated_harsh || !isfinite(y) || y == 0) return y;
    Bits bits;
    memcpy(&bits, &y, sizeof bits);
    // Up or down, as the value itself decides, so that it is the same from run to run.
    T other = nextafter(y, (bits * 0x9e3779b1u >> 7 & 1) ? (T)INFINITY : -(T)INFINITY);
    return isfinite(other) ? other : y;
}
inline float off(float y) { return off_by_one<float, uint32_t>(y); }
inline double off(double y) { return off_by_one<double, uint64_t>(y); }

}  // namespace emulated

// At 0 all of them are exact, CUDA's too.
#define EMULATED_OFF(name)                                                                          \
    extern "C" double __wrap_##name(double x) { return x ? emulated::off(name(x)) : name(x); }      \
    extern "C" float __wrap_##name##f(float x) { return x ? emulated::off(name##f(x)) : name##f(x); }
EMULATED_OFF(exp) EMULATED_OFF(exp2) EMULATED_OFF(exp10) EMULATED_OFF(expm1)
EMULATED_OFF(log) EMULATED_OFF(log2) EMULATED_OFF(log10) EMULATED_OFF(log1p)
EMULATED_OFF(sinh) EMULATED_OFF(cosh) EMULATED_OFF(tan) EMULATED_OFF(erfc)
// Never beyond 1, CUDA's neither.
template <class T> T within(T y) { return y > 1 ? 1 : y < -1 ? -1 : y; }
#define EMULATED_WITHIN(name)                                                                               \
    extern "C" double __wrap_##name(double x) { return x ? within(emulated::off(name(x))) : name(x); }      \
    extern "C" float __wrap_##name##f(float x) { return x ? within(emulated::off(name##f(x))) : name##f(x); }
EMULATED_WITHIN(tanh) EMULATED_WITHIN(sin) EMULATED_WITHIN(cos) EMULATED_WITHIN(erf)
template <class T> bool exact(T x, T y) { return x == 1 || y == 0 || y == 1; }
extern "C" double __wrap_pow(double x, double y) { return exact(x, y) ? pow(x, y) : emulated::off(pow(x, y)); }
extern "C" float __wrap_powf(float x, float y) { return exact(x, y) ? powf(x, y) : emulated::off(powf(x, y)); }
