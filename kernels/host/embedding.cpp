// The gradient of an embedding table: dtable[v] = sum of dy[n] over the tokens n with ids[n] == v, in their order.
#include <string.h>

#include "exported.h"
#include "share.h"

// dy (N, D), ids (N), 0 <= id < V; dtable (V, D) out: every row is written, 0 for one without tokens and for padding.
EXPORTED void ENTRY(embedding_backward)(
    const REAL* dy, const long long* ids, REAL* dtable, long long V, long long D, long long N, long long padding)
{
    // Each thread has rows of its own, and looks for the tokens of these rows.
    GPULSTM_ISA::share(V, (V + N) * D, [=](long long first, long long last) {
        memset(dtable + first * D, 0, (last - first) * D * sizeof(REAL));
        for (long long n = 0; n < N; n++) {
            if (ids[n] < first || ids[n] >= last || ids[n] == padding) continue;
            REAL* row = dtable + ids[n] * D;
            for (long long d = 0; d < D; d++) row[d] += dy[n * D + d];
        }
    });
}
