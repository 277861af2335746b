// Connectionist temporal classification on the processor: what kernels/ctc.cu computes, with the positions of a
// sequence side by side in vectors, and with the sequences shared between threads.
#include <string.h>

#include "exported.h"
#include "math.cuh"
#include "share.h"

namespace GPULSTM_ISA {
#include "ctc.cuh"

namespace {

using V = Vector<REAL>;
constexpr REAL nothing = -Format<REAL>::infinity;

// 0 where first <= s + lane < last, minus infinity elsewhere.
FN V within(long long first, long long last, long long s) {
    V v = number<V>(nothing);
    for (long long lane = 0; lane < Traits<V>::lanes; lane++)
        if (first <= s + lane && s + lane < last) v[lane] = 0;
    return v;
}

// Calls work(s, count) for every vector of L positions, and returns the largest number that work returns.
template <class Work> FN REAL largest(long long L, const Work& work) {
    V most = number<V>(nothing);
    for_vectors<V>(L, [&](long long s, long long n) INLINED {
        most = maximum(most, work(s, n) + within(s, s + n, s));
    });
    REAL of_all = most[0];
    for (int lane = 1; lane < Traits<V>::lanes; lane++) of_all = maximum(of_all, (REAL)most[lane]);
    return of_all;
}

// The log probabilities of the positions from s on, at step t.
FN V log_prob(const Sequence<REAL>& q, long long t, long long s, long long n) {
    V v{};
    for (long long lane = 0; lane < n; lane++) v[lane] = q.log_prob(t, s + lane);
    return v;
}

REAL forward(const Sequence<REAL>& q) {
    double taken = 0;
    REAL most = 0;
    for (long long t = 0; t < q.T; t++) {
        const REAL *before = q.row(t + 1), *skip = q.skip();
        REAL* now = q.row(t);
        taken += most;
        most = finite_or_0(largest(q.L, [&](long long s, long long n) INLINED {
            V sum = within(0, 2, s);
            if (t > 0)
                sum = log_sum(load<V>(before + s, n), load<V>(before + s - 1, n),
                              load<V>(before + s - 2, n) + load<V>(skip + s, n));
            sum += log_prob(q, t, s, n) - most;
            store(now + s, sum, n);
            return sum;
        }));
        memcpy(q.alpha + t * q.L, now, q.L * sizeof(REAL));
    }
    if (q.T == 0) return q.L > 1 ? -nothing : 0;
    const REAL* end = q.row(q.T - 1) + q.L;
    return -(log_sum(end[-1], end[-2], nothing) + taken);
}

void backward(const Sequence<REAL>& q, REAL scale, REAL* dlogits) {
    REAL most = 0, *share = q.share();
    for (long long t = q.T - 1; t >= 0; t--) {
        const REAL *behind = q.row(t + 1), *skip = q.skip(); // beta + log p of the next step
        REAL *now = q.row(t), *gradient = dlogits + t * q.stride, sum = 0;
        const REAL share_largest = largest(q.L, [&](long long s, long long n) INLINED {
            V beta = within(q.L - 2, q.L, s);
            if (t + 1 < q.T)
                beta = log_sum(load<V>(behind + s, n), load<V>(behind + s + 1, n),
                               load<V>(behind + s + 2, n) + load<V>(skip + s + 2, n));
            store(now + s, beta + log_prob(q, t, s, n) - most, n);
            const V v = load<V>(q.alpha + t * q.L + s, n) + beta;
            store(share + s, v, n);
            return v;
        });
        most = finite_or_0(largest(q.L, [&](long long s, long long n) INLINED { return load<V>(now + s, n); }));
        for_vectors<V>(q.L, [&](long long s, long long n) INLINED {
            store(share + s, exp_(load<V>(share + s, n) - share_largest), n);
        });
        for (long long s = 0; s < q.L; s++) sum += share[s];
        for_vectors<V>(q.C, [&](long long c, long long n) INLINED {
            store(gradient + c, exp_(load<V>(q.log_probs + t * q.stride + c, n)) * scale, n);
        });
        for (long long s = 0; s < q.L; s++) gradient[q.classes[s]] -= scale / sum * share[s];
    }
}

template <class Work> void for_sequences(const Batch<REAL>& a, const Work& work) {
    share(a.B, a.T * a.B * (2 * a.S + 1), [&](long long first, long long last) {
        for (long long b = first; b < last; b++) {
            const Sequence<REAL> q(a, b);
            for (long long k = 0; k < q.width; k++) q.prepare(k);
            work(q, b);
        }
    });
}

} // namespace
} // namespace GPULSTM_ISA

// The parameters are those of the kernels in ctc.cu.
EXPORTED void ENTRY(ctc_alpha)(
    const REAL* log_probs, const long long* targets, const long long* lengths, REAL* alpha, REAL* rows,
    long long* classes, REAL* loss, long long T, long long B, long long C, long long S, long long blank)
{
    using namespace GPULSTM_ISA;
    for_sequences({log_probs, targets, lengths, alpha, rows, classes, T, B, C, S, blank},
                  [=](const Sequence<REAL>& q, long long b) { loss[b] = forward(q); });
}

EXPORTED void ENTRY(ctc_gradient)(
    const REAL* log_probs, const long long* targets, const long long* lengths, REAL* alpha, REAL* rows,
    long long* classes, const REAL* scale, REAL* dlogits, long long T, long long B, long long C, long long S,
    long long blank)
{
    using namespace GPULSTM_ISA;
    memset(dlogits, 0, T * B * C * sizeof(REAL));
    for_sequences({log_probs, targets, lengths, alpha, rows, classes, T, B, C, S, blank},
                  [=](const Sequence<REAL>& q, long long b) {
                      if (scale[b] != 0) backward(q, scale[b], dlogits + b * C);
                  });
}
