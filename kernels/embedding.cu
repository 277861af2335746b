// The gradient of an embedding table, without atomics: each element of the table is summed by one thread, in the
// order of the tokens, so that two runs agree bit for bit.
//
//     dtable[v] = sum of dy[n] over the tokens n with ids[n] == v
//
// The tokens are sorted by id (order, stable), so that the tokens of a row are next to each other. One thread would be
// slow on a frequent id. Therefore the sorted tokens are cut into pieces of equal length. embedding_pieces sums every
// piece that belongs to a single row, and embedding_backward adds such a piece as one number. Every gradient is read
// once, by one of the two. Consecutive threads take consecutive columns.

#include "common.cuh"

// dy        (N, D)           gradient of each token's row
// order     (N)              token numbers sorted by id
// ids       (N)              the ids in that order
// piece_sum (N / piece, D)   out: sum of the tokens piece * p ... piece * p + piece - 1 of the order; not written if
//                            these belong to several rows
// Moves at most 1 + 2 / D values an element of dy: dy, order and ids in.
extern "C" __global__ void embedding_pieces(
    const REAL* __restrict__ dy, const long long* __restrict__ order, const long long* __restrict__ ids,
    ACC* __restrict__ piece_sum, long long N, long long D, long long piece)
{
    FOR_EACH(k, N / piece * D) {
        long long p = k / D, d = k % D, start = p * piece;
        if (ids[start] != ids[start + piece - 1]) continue;
        ACC sum = 0;
        for (long long n = start; n < start + piece; ++n) sum += load(dy[order[n] * D + d]);
        piece_sum[k] = sum;
    }
}

// dy, order, piece_sum        as above
// starts    (V + 1)           the tokens of row v are order[starts[v]] ... order[starts[v + 1] - 1]
// dtable    (V, D)            out: every element is written, 0 for a row without tokens and for row padding_idx
// padding_idx                 the row that gets no gradient; -1 for none
// Moves 1 value an element of dtable, and the part of dy that embedding_pieces has not read.
extern "C" __global__ void embedding_backward(
    const REAL* __restrict__ dy, const long long* __restrict__ order, const long long* __restrict__ starts,
    const ACC* __restrict__ piece_sum, REAL* __restrict__ dtable, long long V, long long D, long long piece,
    long long padding_idx)
{
    FOR_EACH(k, V * D) {
        long long v = k / D, d = k % D;
        long long n = starts[v], last = v == padding_idx ? n : starts[v + 1];
        long long p = (n + piece - 1) / piece;  // the first piece that starts inside the row
        ACC sum = 0;
        for (; n < last && n < p * piece; ++n) sum += load(dy[order[n] * D + d]);
        for (; n + piece <= last; n += piece, ++p) sum += piece_sum[p * D + d];
        for (; n < last; ++n) sum += load(dy[order[n] * D + d]);
        dtable[k] = store(sum);
    }
}
