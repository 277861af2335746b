// Loops over long arrays: shared between the pool's threads, and cut into vectors.
#pragma once

#include "math.cuh"
#include "pool.h"

#define INLINED __attribute__((always_inline)) // behind a lambda's parameters

namespace GPULSTM_ISA {

// Calls work(first, last) for parts of 0 <= k < pieces that together are all of it, side by side. A loop over few
// numbers is over before another thread would have begun.
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

// Calls work(k, count) for every vector of n numbers: the place of its first one, and how many it has.
template <class V, class Work> FN void for_vectors(long long n, const Work& work) {
    long long k = 0;
    for (; k + Traits<V>::lanes <= n; k += Traits<V>::lanes) work(k, (long long)Traits<V>::lanes);
    if (k < n) work(k, n - k);
}

} // namespace GPULSTM_ISA
