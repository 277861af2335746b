// What the engine adds to the vectors of math.cuh: lanes, sums over lanes, shuffles.

using Size = long long;

#define OUTLINED __attribute__((noinline))
#define UNROLLED _Pragma("GCC unroll 16")

template <class V> constexpr int lanes = Traits<V>::lanes;
template <class V> using Mask = typename Traits<V>::Integer;

template <class V> FN V fill(Scalar<V> x) { return x - V{}; }

template <class T, int n> struct Lanes { typedef T Vector __attribute__((vector_size(n * sizeof(T)))); };

// The sum of n lanes in double: one half of them is added to the other, until one is left.
template <class T, int n> FN double folded(typename Lanes<T, n>::Vector v) {
    if constexpr (n == 1) return v[0];
    else {
        using Half = typename Lanes<T, n / 2>::Vector;
        using Wide = typename Lanes<double, n / 2>::Vector;
        Half halves[2];
        __builtin_memcpy(halves, &v, sizeof v);
        return folded<double, n / 2>(__builtin_convertvector(halves[0], Wide) + __builtin_convertvector(halves[1], Wide));
    }
}

// The sum of the first `count` lanes, in double.
template <class V> FN double sum_of(V v, Size count) {
    if (count >= lanes<V>) return folded<Scalar<V>, lanes<V>>(v);
    double sum = 0;
    for (Size i = 0; i < count; i++) sum += v[i];
    return sum;
}

// Selects lanes of two vectors by number; the lanes of b are numbered after those of a.
template <class V> FN V shuffle(V a, V b, Mask<V> which) {
#if defined(__clang__)
    V out;
    for (int i = 0; i < lanes<V>; i++) out[i] = which[i] < lanes<V> ? a[which[i]] : b[which[i] - lanes<V>];
    return out;
#else
    return __builtin_shuffle(a, b, which);
#endif
}
