// The two passes of softmax cross-entropy over the logits; gpulstm/functional/cross_entropy.py computes what is one
// number for each row.
#include "exported.h"
#include "math.cuh"
#include "share.h"

namespace GPULSTM_ISA {

using V = Vector<REAL>;

// The first `count` lanes of v, and the other lanes of `rest`.
FN V with_rest(V v, long long count, V rest) {
    for (long long lane = count; lane < Traits<V>::lanes; lane++) v[lane] = rest[lane];
    return v;
}

static REAL row_max(const REAL* x, long long C) {
    V largest = number<V>(x[0]);
    for_vectors<V>(C, [&](long long c, long long n) INLINED {
        largest = maximum(largest, with_rest(load<V>(x + c, n), n, largest));
    });
    REAL most = largest[0];
    for (int lane = 1; lane < Traits<V>::lanes; lane++) most = maximum(most, (REAL)largest[lane]);
    return most;
}

static REAL sum(V v) {
    REAL all = v[0];
    for (int lane = 1; lane < Traits<V>::lanes; lane++) all += v[lane];
    return all;
}

} // namespace GPULSTM_ISA

// x      (rows, C)  logits, C >= 1
// y      (rows)     the class of each row
// weight (C)        of each class
// exps   (rows, C)  out: exp(x - largest of the row); may be x
// total  (rows)     out: their sums
// nll    (rows)     out: -log p_y
// smooth (rows)     out: -sum of w_c (x_c - largest), or null
EXPORTED void ENTRY(cross_entropy)(
    const REAL* x, const long long* y, const REAL* weight, REAL* exps, REAL* total, REAL* nll, REAL* smooth,
    long long rows, long long C)
{
    using namespace GPULSTM_ISA;
    share(rows, rows * C, [=](long long first, long long last) {
        for (long long row = first; row < last; row++) {
            const REAL *of = x + row * C, largest = row_max(of, C), x_y = of[y[row]];
            V sum_exps{}, sum_z{};
            for_vectors<V>(C, [&](long long c, long long n) INLINED {
                const V z = load<V>(of + c, n) - largest, e = with_rest(exp_(z), n, V{});
                store(exps + row * C + c, e, n);
                sum_exps += e;
                if (smooth) sum_z += load<V>(weight + c, n) * z; // the weights after the last class are zero
            });
            total[row] = sum(sum_exps);
            nll[row] = log_(total[row]) - (x_y - largest);
            if (smooth) smooth[row] = -sum(sum_z);
        }
    });
}

//     dx_c = part exp_c - (c == y ? own : 0) - spread w_c
//
// exps, y, weight    as above
// own, part, spread  (rows)     of the equation; spread is null for zero
// kept               (rows)     which rows have a gradient; the others get 0
// dx                 (rows, C)  out; may be exps
EXPORTED void ENTRY(cross_entropy_backward)(
    const REAL* exps, const long long* y, const REAL* weight, const REAL* own, const REAL* part, const REAL* spread,
    const bool* kept, REAL* dx, long long rows, long long C)
{
    using namespace GPULSTM_ISA;
    share(rows, rows * C, [=](long long first, long long last) {
        for (long long row = first; row < last; row++) {
            REAL* to = dx + row * C;
            for_vectors<V>(C, [&](long long c, long long n) INLINED {
                V d = load<V>(exps + row * C + c, n) * part[row];
                if (spread) d -= load<V>(weight + c, n) * spread[row];
                store(to + c, kept[row] ? d : V{}, n);
            });
            if (kept[row]) to[y[row]] -= own[row];
        }
    });
}
