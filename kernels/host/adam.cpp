// One step of Adam for every parameter of an optimiser; the arithmetic and the table's numbers are those of
// kernels/adam.cuh and adam.cu.
#include "adam.cuh"
#include "exported.h"
#include "share.h"
#include "table.cuh"

namespace GPULSTM_ISA {

static void update(const long long* arrays, const Adam<Vector<REAL>>& adam, long long first, long long end) {
    using V = Vector<REAL>;
    REAL *param = (REAL*)arrays[0], *exp_avg = (REAL*)arrays[2], *exp_avg_sq = (REAL*)arrays[3];
    REAL* max_exp_avg_sq = (REAL*)arrays[4];
    const REAL* grad = (const REAL*)arrays[1];
    for_vectors<V>(end - first, [&](long long at, long long n) INLINED {
        const long long k = first + at;
        V m = load<V>(exp_avg + k, n), v = load<V>(exp_avg_sq + k, n), largest{};
        if (max_exp_avg_sq) largest = load<V>(max_exp_avg_sq + k, n);
        V p = load<V>(param + k, n), g = load<V>(grad + k, n);
        store(param + k, adam.step(p, g, m, v, largest, max_exp_avg_sq != nullptr), n);
        store(exp_avg + k, m, n);
        store(exp_avg_sq + k, v, n);
        if (max_exp_avg_sq) store(max_exp_avg_sq + k, largest, n);
    });
}

} // namespace GPULSTM_ISA

// first_chunk (count + 1), arrays (count, 6), numbers (count, 6) as in adam.cu, with addresses of REAL.
EXPORTED void ENTRY(adam)(
    const long long* first_chunk, const long long* arrays, const double* numbers, long long count, long long chunk_size)
{
    using namespace GPULSTM_ISA;
    const long long chunks = first_chunk[count];
    share(chunks, chunks * chunk_size, [=](long long first, long long last) {
        for (long long chunk = first; chunk < last; chunk++) {
            const long long a = array_of(first_chunk, count, chunk), size = arrays[6 * a + 5];
            const long long begin = (chunk - first_chunk[a]) * chunk_size, end = begin + chunk_size;
            update(arrays + 6 * a, Adam<Vector<REAL>>(numbers + 6 * a), begin, end < size ? end : size);
        }
    });
}
