// Vectors of float and double for the processor, and math.cuh's functions of them. They use GCC's and Clang's vector
// types and no intrinsics, so that SSE2, AVX2, AVX-512 and NEON share the same code. Only math.cuh includes this file.
//
// Errors are at most 2.5 units in the last place, with and without fused multiply-adds; tests/test_math.py measures
// them. An exp_ below 2^-125.5 (2^-1021.5 in double) is 0, since subnormal numbers are slow on some processors.
#pragma once
#pragma GCC diagnostic ignored "-Wpsabi"  // every function here is inlined, so calling conventions do not matter

#ifndef GPULSTM_VECTOR_BYTES
#if defined(__AVX512F__)
#define GPULSTM_VECTOR_BYTES 64
#elif defined(__AVX__)
#define GPULSTM_VECTOR_BYTES 32
#else
#define GPULSTM_VECTOR_BYTES 16  // SSE2, NEON
#endif
#endif

namespace GPULSTM_ISA {

template <class T, int bytes> struct Register {
    typedef T type __attribute__((vector_size(bytes)));
};
template <class T> using Vector = typename Register<T, GPULSTM_VECTOR_BYTES>::type;  // the widest one

// The properties of a vector type V.
template <class T> struct Bare { using type = T; };
template <class T> struct Bare<T&> { using type = T; };
template <class T> struct Bare<T&&> { using type = T; };
template <class V> struct Traits {
    using Scalar = typename Bare<decltype(V{}[0])>::type;
    using Integer = decltype(V{} < V{});  // a vector of as many signed integers, each as wide
    static constexpr int lanes = sizeof(V) / sizeof(Scalar);
};

// Loads the first `count` numbers at `at`, which need not be aligned, and then zeros; store writes only `count`.
template <class V> FN V load(const Scalar<V>* at, long long count = Traits<V>::lanes) {
    V v{};
    if (count >= Traits<V>::lanes) __builtin_memcpy(&v, at, sizeof(V));  // one instruction
    else if (count > 0) __builtin_memcpy(&v, at, count * sizeof(Scalar<V>));
    return v;
}
template <class V> FN void store(Scalar<V>* at, V v, long long count = Traits<V>::lanes) {
    if (count >= Traits<V>::lanes) __builtin_memcpy(at, &v, sizeof(V));
    else if (count > 0) __builtin_memcpy(at, &v, count * sizeof(Scalar<V>));
}

// The constants in which the two floating-point formats differ.
template <class T> struct Format;
template <> struct Format<float> {
    using Integer = int;
    static constexpr int mantissa = 23;                               // bits
    static constexpr Integer one = 127 << 23, sqrt_half = 0x3f3504f3;  // bits of 1 and sqrt(1/2)
    static constexpr float infinity = __builtin_inff();
    static constexpr double rounding = 0x1.8p23;   // x + rounding is x rounded to an integer, in the lowest bits
    static constexpr float least = -87.25, most = 89, flat = 20;  // exp is 0, is infinite; tanh(flat / 2) is 1
    static constexpr double ln2 = 0x1.62e4p-1, ln2_rest = 0x1.7f7d1cf8p-20;  // ln2 with few bits: products are exact
};
template <> struct Format<double> {
    using Integer = long long;
    static constexpr int mantissa = 52;
    static constexpr Integer one = 1023LL << 52, sqrt_half = 0x3fe6a09e667f3bcd;
    static constexpr double infinity = __builtin_inf();
    static constexpr double rounding = 0x1.8p52;
    static constexpr double least = -708.25, most = 710, flat = 40;
    static constexpr double ln2 = 0x1.62e42feep-1, ln2_rest = 0x1.a39ef35793c76p-33;
};

// first + x * (second + x * (third + ...))
template <class V> FN V polynomial(V, double first) { return number<V>(first); }
template <class V, class... Numbers> FN V polynomial(V x, double first, Numbers... others) {
    return polynomial(x, others...) * x + number<V>(first);
}

// exp(x) = 2 * (half + scaled), half = 2^(n-1), scaled = half * (exp(x - n ln 2) - 1), for the integer n nearest to
// x / ln 2. x must be a number from Format's least to most, or NaN; at least half is 0, at most the sum is infinite.
template <class V> struct Power { V half, scaled; };
template <class V> FN Power<V> power(V x) {
    using F = Format<Scalar<V>>;
    using Integer = typename Traits<V>::Integer;
    V shifted = x * number<V>(1.4426950408889634) + number<V>(F::rounding);
    V n = shifted - number<V>(F::rounding);
    V r = (x - n * number<V>(F::ln2)) - n * number<V>(F::ln2_rest);  // |r| <= ln 2 / 2
    V q;                                                             // exp(r) = 1 + r + r^2 q, q a minimax polynomial
    if constexpr (sizeof(Scalar<V>) == sizeof(float))
        q = polynomial(r, 0.5, 0.166665435, 0.0416664481, 0.00836654566, 0.00139365147);
    else
        q = polynomial(r, 0.5, 0.1666666666666668, 0.041666666666619535, 0.0083333333333182776, 0.0013888888920714122,
                       0.00019841269895761981, 2.480151606534536e-5, 2.755723391564647e-6, 2.7622347553989761e-7,
                       2.511272735345559e-8);
    V half = (V)(((Integer)shifted << F::mantissa) + (F::one - (1LL << F::mantissa)));
    return {half, half * (r * r * q + r)};
}

template <class V> FN V exp_(V x) {
    using F = Format<Scalar<V>>;
    Power<V> p = power(where(x < F::least, number<V>(F::least), where(x > F::most, number<V>(F::most), x)));
    return 2 * (p.half + p.scaled);
}

template <class V> FN V expm1_(V x) {
    using F = Format<Scalar<V>>;
    Power<V> p = power(where(x < F::least, number<V>(F::least), where(x > F::most, number<V>(F::most), x)));
    return 2 * ((p.half - number<V>(0.5)) + p.scaled);
}

template <class V> FN V absolute(V x) {
    using Integer = typename Traits<V>::Integer;
    return (V)((Integer)x & ~(Integer)number<V>(-0.0));
}

// tanh |x| = t / (t + 2), t = exp(2 |x|) - 1
template <class V> FN V tanh_(V x) {
    using Integer = typename Traits<V>::Integer;
    V twice = 2 * absolute(x), flat = number<V>(Format<Scalar<V>>::flat);
    Power<V> p = power(where(twice > flat, flat, twice));
    V t = 2 * ((p.half - number<V>(0.5)) + p.scaled);
    return (V)((Integer)(t / (t + 2)) | ((Integer)x & (Integer)number<V>(-0.0)));
}

// log(1 + x) = k ln 2 + log(1 + f), 1 + f from sqrt(1/2) to sqrt(2); log(1 + f) = 2 atanh(s), s = f / (2 + f).
template <class V> FN V log1p_(V x) {
    using F = Format<Scalar<V>>;
    using Integer = typename Traits<V>::Integer;
    constexpr typename F::Integer shift = F::one - F::sqrt_half, below = (1LL << F::mantissa) - 1;
    V u = 1 + x;
    V lost = where(x < 1, x - (u - 1), 1 - (u - x)) / u;  // in u's rounding: log(1 + x) = log(u) + lost
    Integer bits = (Integer)u + shift;
    V k = (V)((bits >> F::mantissa) + ((Integer)number<V>(F::rounding) - (F::one >> F::mantissa)));
    k -= number<V>(F::rounding);
    V f = (V)((bits & below) + F::sqrt_half) - 1;
    V s = f / (2 + f), z = s * s, square = f * f * number<V>(0.5), r;
    if constexpr (sizeof(Scalar<V>) == sizeof(float))
        r = polynomial(z, 0.666667759, 0.399775833, 0.298708051);
    else
        r = polynomial(z, 0.6666666666666734, 0.39999999999416713, 0.28571428742007399, 0.22222198607148572,
                       0.1818356275784952, 0.15314086661896839, 0.14795621758637306);
    V rest = s * (square + z * r) + (k * number<V>(F::ln2_rest) + lost);
    V log = k * number<V>(F::ln2) + (f - (square - rest));
    V limit = where(u > 0, u, where(u == 0, number<V>(-F::infinity), number<V>(__builtin_nan(""))));
    return where((u > 0) & (u < F::infinity), log, limit);
}

// One lane after another, which compilers turn into one instruction (-fno-math-errno).
template <class V> FN V sqrt_(V x) {
    for (int lane = 0; lane < Traits<V>::lanes; ++lane) x[lane] = sqrt_(x[lane]);
    return x;
}

}  // namespace GPULSTM_ISA
