// The sum of the squares of all gradients of a model, and their scaling. Sums are computed chunk by chunk, so that they
// do not depend on the number of threads.
#include "exported.h"
#include "math.cuh"
#include "share.h"
#include "table.cuh"

namespace GPULSTM_ISA {

// Calls work(grad, n, chunk) for every chunk: grad is where it begins, n is how many numbers it has.
template <class Work> static void for_each_chunk(
    const long long* first_chunk, const long long* arrays, long long count, long long chunk_size, const Work& work)
{
    const long long chunks = first_chunk[count];
    share(chunks, chunks * chunk_size, [&](long long first, long long last) {
        for (long long chunk = first; chunk < last; chunk++) {
            const long long a = array_of(first_chunk, count, chunk);
            const long long begin = (chunk - first_chunk[a]) * chunk_size, left = arrays[2 * a + 1] - begin;
            work((REAL*)arrays[2 * a] + begin, left < chunk_size ? left : chunk_size, chunk);
        }
    });
}

static double squares(const REAL* x, long long n) {
    using V = Vector<REAL>;
    constexpr int several = 4, lanes = Traits<V>::lanes; // four independent sums, which need not wait for each other
    V sums[several] = {};
    const long long whole = n - n % (several * lanes);
    for (long long k = 0; k < whole; k += several * lanes) {
        for (int s = 0; s < several; s++) {
            const V v = load<V>(x + k + s * lanes);
            sums[s] += v * v;
        }
    }
    for_vectors<V>(n - whole, [&](long long k, long long count) INLINED {
        const V v = load<V>(x + whole + k, count);
        sums[0] += v * v;
    });
    const V all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    double sum = 0;
    for (int lane = 0; lane < lanes; lane++) sum += all[lane];
    return sum;
}

} // namespace GPULSTM_ISA

// first_chunk (count + 1), arrays (count, 2) and partial (chunks) as in kernels/norm.cu.
EXPORTED void ENTRY(norm_partial)(
    const long long* first_chunk, const long long* arrays, double* partial, long long count, long long chunk_size)
{
    using namespace GPULSTM_ISA;
    for_each_chunk(first_chunk, arrays, count, chunk_size, [=](const REAL* grad, long long n, long long chunk) {
        partial[chunk] = squares(grad, n);
    });
}

// Multiplies every array.
EXPORTED void ENTRY(norm_scale)(
    const long long* first_chunk, const long long* arrays, double coefficient, long long count, long long chunk_size)
{
    using namespace GPULSTM_ISA;
    using V = Vector<REAL>;
    for_each_chunk(first_chunk, arrays, count, chunk_size, [=](REAL* grad, long long n, long long) {
        for_vectors<V>(n, [&](long long k, long long count) INLINED {
            store(grad + k, load<V>(grad + k, count) * number<V>(coefficient), count);
        });
    });
}
