// Products of two matrices for linear layers, in the engine's own tiles and threads. BLAS has threads of its own, which
// would compete with the engine's for a while after each product.
//
// Threads share the columns of C, or its rows if A is transposed. No element of C depends on how they share them.
#include <new>

#include "exported.h"
#include "math.cuh"
#include "share.h"

namespace GPULSTM_ISA {
#include "lanes.h"
#include "product.h"

namespace {  // since the objects for float and for double share the namespace of the instruction set

using V = Vector<REAL>;
constexpr Size W = lanes<V>, widest = Panels<V>::widest;
constexpr Size block = 128;  // of k: long sums are made of short ones, which lose fewer digits
constexpr Size rows_together = 64;  // rows of C that are computed together if a panel's last columns are missing
constexpr Size blocks_together = 64;  // blocks of W rows of C whose part of a transposed A is packed together

struct Matrix {
    const REAL* at;
    Size row, column;  // numbers from one row to the next, and from one column to the next: one of them is 1
    const REAL* element(Size r, Size c) const { return at + r * row + c * column; }
};

// A thread's buffer for packed numbers.
struct Memory {
    V* vectors;
    explicit Memory(Size numbers) : vectors(new V[(numbers + W - 1) / W]) {}
    ~Memory() { delete[] vectors; }
    Memory(const Memory&) = delete;
    REAL* at() const { return (REAL*)vectors; }
};

struct Multiplication {
    const Matrix a, b;  // (M, K), (K, N)
    const REAL* bias;   // (N), or null
    REAL* c;            // (M, N), contiguous
    REAL* sums;         // (M): A's sums over K, for a transposed A; or null
    const Size M, N, K;

    // Packs `depth` rows of B from k on, and `width` vectors of columns from column n on.
    void pack(Size k, Size depth, Size n, int width, REAL* panel) const {
        for (int i = 0; i < width; i++) {
            const Size at = n + i * W, valid = N - at < W ? N - at : W;
            if (b.row == 1) pack_rows<V>(b.element(k, at), b.column, valid, depth, panel + i * W, width);
        }
        if (b.row != 1)
            for (Size r = 0; r < depth; r++) pack_row<V>(b.element(k + r, n), N - n, panel + r * width * W, width);
    }

    // Computes C's rows [m, m + rows) and the columns of a panel: adds the product of A's part from k on.
    template <bool TRANSPOSED>
    void add(const REAL* left, Size lda, Size m, Size rows, Size k, Size depth, Size n, int width, const REAL* panel,
             REAL* edge) const {
        REAL* out = c + m * N + n;
        const REAL* before = k ? out : bias ? bias + n : nullptr;
        const Size valid = N - n < width * W ? N - n : width * W, step = k ? N : 0;
        if (valid == width * W)
            return multiply_panel<V, TRANSPOSED>(width, rows, left, lda, panel, depth, before, step, out, N);
        // The parts have nearly the same height: one or two rows alone would be summed in another order.
        Size parts = (rows + rows_together - 1) / rows_together, r0 = 0;
        for (; parts > 0; parts--) {
            const Size some = (rows - r0 + parts - 1) / parts;
            const REAL* from = left + r0 * (TRANSPOSED ? 1 : lda);
            multiply_panel<V, TRANSPOSED>(width, some, from, lda, panel, depth, nullptr, 0, edge, width * W);
            for (Size r = r0; r < r0 + some; r++)
                for (Size i = 0; i < valid; i++)
                    out[r * N + i] = edge[(r - r0) * width * W + i] + (before ? before[r * step + i] : 0);
            r0 += some;
        }
    }

    // Computes every row of C for the vectors of columns [first, last).
    void columns(Size first, Size last) const {
        Memory memory((block + rows_together) * widest * W);
        REAL *panel = memory.at(), *edge = panel + block * widest * W;
        for (Size k = 0; k < K; k += block) {
            const Size depth = K - k < block ? K - k : block;
            Size panels = (last - first + widest - 1) / widest;
            for (Size v = first; panels > 0; panels--) {  // of nearly the same width
                const int width = (int)((last - v + panels - 1) / panels);
                pack(k, depth, v * W, width, panel);
                add<false>(a.element(0, k), a.row, 0, M, k, depth, v * W, width, panel, edge);
                v += width;
            }
        }
    }

    // Computes every column of C for the blocks of W rows [first, last). A is transposed, and its columns are packed.
    void rows(Size first, Size last) const {
        const Size most = last - first < blocks_together ? last - first : blocks_together;
        Memory memory((block + rows_together) * widest * W + most * W * block);
        REAL *panel = memory.at(), *edge = panel + block * widest * W, *left = edge + rows_together * widest * W;
        for (Size m0 = first; m0 < last; m0 += blocks_together) {
            const Size some = last - m0 < blocks_together ? last - m0 : blocks_together;
            for (Size k = 0; k < K; k += block) {
                const Size depth = K - k < block ? K - k : block, vectors = (N + W - 1) / W;
                for (Size m = 0; m < some; m++) pack_left((m0 + m) * W, k, depth, left + m * W * depth);
                Size panels = (vectors + widest - 1) / widest;
                for (Size v = 0; panels > 0; panels--) {
                    const int width = (int)((vectors - v + panels - 1) / panels);
                    pack(k, depth, v * W, width, panel);
                    for (Size m = 0; m < some; m++) {
                        const Size row = (m0 + m) * W, valid = M - row < W ? M - row : W;
                        add<true>(left + m * W * depth, W, row, valid, k, depth, v * W, width, panel, edge);
                    }
                    v += width;
                }
            }
        }
    }

    // Packs W rows of A from row m on, k by k, and computes their sums.
    void pack_left(Size m, Size k, Size depth, REAL* to) const {
        V sum{};
        for (Size r = 0; r < depth; r++) {
            const V v = load<V>(a.element(m, k + r), M - m);
            store(to + r * W, v);
            sum += v;
        }
        if (sums) store(sums + m, k ? load<V>(sums + m, M - m) + sum : sum, M - m);
    }
};

}  // namespace
}  // namespace GPULSTM_ISA

// C (M, N) = A B + bias; M, N and K are above 0. With `sums`, for a transposed A, also A's sums over K.
EXPORTED void ENTRY(matmul)(
    const REAL* a, long long a_row, long long a_column, const REAL* b, long long b_row, long long b_column,
    const REAL* bias, REAL* c, REAL* sums, long long M, long long N, long long K)
{
    using namespace GPULSTM_ISA;
    const Multiplication product = {{a, a_row, a_column}, {b, b_row, b_column}, bias, c, sums, M, N, K};
    const long long work = M * N * K / 16;  // a product is many times as fast as a pass over as many numbers
    if (a_column == 1 && !sums)
        share((N + W - 1) / W, work, [&](long long first, long long last) { if (first < last) product.columns(first, last); });
    else
        share((M + W - 1) / W, work, [&](long long first, long long last) { if (first < last) product.rows(first, last); });
}
