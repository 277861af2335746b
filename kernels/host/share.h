// Loops over long arrays: shared between the pool's threads, and cut into vectors.
#pragma once

#include "math.cuh"
#include "pool.h"

#define INLINED __attribute__((always_inline)) // to be written after a lambda's parameters

namespace GPULSTM_ISA {

// Splits 0 <= k < pieces into parts and calls work(first, last) for each of them, in parallel. A loop over few numbers
// runs on one thread: it would end before another thread could begin.
template <class Work> void share(long long pieces, long long numbers, const Work& work) {
    struct Context {
        long long pieces;
        const Work& work;
    } context{pieces, work};
    auto part = [](void* given, int thread, int threads) {
        const Context& c = *static_cast<Context*>(given);
        c.work(c.pieces * thread / threads, c.pieces * (thread + 1) / threads);
    };
    gpulstm_parallel(numbers < 50000 ? 1 : 256, part, &context);
}

// Calls work(k, count) for every vector of n numbers: k is the index of its first number, count is how many it has.
template <class V, class Work> FN void for_vectors(long long n, const Work& work) {
    long long k = 0;
    for (; k + Traits<V>::lanes <= n; k += Traits<V>::lanes) work(k, (long long)Traits<V>::lanes);
    if (k < n) work(k, n - k);
}

} // namespace GPULSTM_ISA
