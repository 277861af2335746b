// What the engine adds to the vectors of math.cuh: lanes, sums over lanes, shuffles.

using Size = long long;

#define OUTLINED __attribute__((noinline))
#define UNROLLED _Pragma("GCC unroll 16")

template <class V> constexpr int lanes = Traits<V>::lanes;
template <class V> using Mask = typename Traits<V>::Integer;

template <class V> FN V fill(Scalar<V> x) { return x - V{}; }

template <class V> FN double sum_of(V v, Size count) {
    double sum = 0;
    for (Size i = 0; i < (count < lanes<V> ? count : lanes<V>); i++) sum += v[i];
    return sum;
}

// Lanes of two vectors by their numbers, those of the second counting on from the first's.
template <class V> FN V shuffle(V a, V b, Mask<V> which) {
#if defined(__clang__)
    V out;
    for (int i = 0; i < lanes<V>; i++) out[i] = which[i] < lanes<V> ? a[which[i]] : b[which[i] - lanes<V>];
    return out;
#else
    return __builtin_shuffle(a, b, which);
#endif
}
