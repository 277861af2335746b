// Matrix products for the engine: register tiles over packed panels, and the packing. Nothing here depends on a cell.
//
// A panel is a few vectors of columns of the right factor, side by side for every k: (K, N, W) numbers. A tile holds R
// rows times N vectors of the result in registers while it goes through K. Whatever the tile, each element of a result
// is one sum over k in order, unless there are only one or two rows in all. So the bits of a result do not depend on
// how rows and columns are shared between threads.

#if GPULSTM_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr bool many_registers = true;
#else
constexpr bool many_registers = false;
#endif

template <class V> struct Panels {
    static constexpr int W = lanes<V>;
    static constexpr int registers = many_registers ? 32 : 16;
    static constexpr int widest = registers == 32 ? 4 : 2;  // vectors of a panel
    static constexpr int widest_short = registers == 32 ? 4 : 3;  // for products of at most W rows
    // Rows of a tile: its sums, a row of the panel and one broadcast number fill the registers.
    static constexpr int rows(int n) { return (registers - n - 1) / n < 12 ? (registers - n - 1) / n : 12; }
};

// R rows of C = A times the panel + init. A's element (r, k) is a[r * lda + k], or with TRANSPOSED a[r + k * lda].
// init's rows are ldi apart (0: one row for all); null for zero. C may be init.
template <class V, int R, int N, bool TRANSPOSED>
OUTLINED void tile(const Scalar<V>* a, Size lda, const Scalar<V>* panel, Size K, const Scalar<V>* init, Size ldi,
                   Scalar<V>* c, Size ldc) {
    constexpr int W = lanes<V>, chains = R == 1 ? 4 : R == 2 ? 2 : 1;  // few rows: several independent sums
    V sum[chains][R][N] = {};
    if (init)  // prefetched during the sums
        UNROLLED for (int r = 0; r < R; r++) {
            __builtin_prefetch(init + r * ldi);
            __builtin_prefetch(init + r * ldi + N * W - 1);
        }
    Size k = 0;
    for (; k + chains <= K; k += chains)
        UNROLLED for (int i = 0; i < chains; i++) {
            V right[N];
            UNROLLED for (int n = 0; n < N; n++) right[n] = load<V>(panel + ((k + i) * N + n) * W);
            UNROLLED for (int r = 0; r < R; r++) {
                V left = fill<V>(a[TRANSPOSED ? r + (k + i) * lda : r * lda + k + i]);
                UNROLLED for (int n = 0; n < N; n++) sum[i][r][n] += left * right[n];
            }
        }
    for (; k < K; k++)
        for (int r = 0; r < R; r++)
            for (int n = 0; n < N; n++)
                sum[0][r][n] += fill<V>(a[TRANSPOSED ? r + k * lda : r * lda + k]) * load<V>(panel + (k * N + n) * W);
    for (int i = 1; i < chains; i++)
        for (int r = 0; r < R; r++)
            for (int n = 0; n < N; n++) sum[0][r][n] += sum[i][r][n];
    if (init)  // added last: every term would lose digits beside a large initial number
        for (int r = 0; r < R; r++)
            for (int n = 0; n < N; n++) sum[0][r][n] += load<V>(init + r * ldi + n * W);
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) store(c + r * ldc + n * W, sum[0][r][n]);
}

// A tile of `rows` <= R rows.
template <class V, int R, int N, bool TRANSPOSED, class... More>
inline void tile_of(int rows, More... more) {
    if constexpr (R > 0) {
        if (rows == R) tile<V, R, N, TRANSPOSED>(more...);
        else tile_of<V, R - 1, N, TRANSPOSED>(rows, more...);
    }
}

// M rows, in tiles of nearly the same height.
template <class V, int N, bool TRANSPOSED>
OUTLINED void rows_of_panel(Size M, const Scalar<V>* a, Size lda, const Scalar<V>* panel, Size K,
                            const Scalar<V>* init, Size ldi, Scalar<V>* c, Size ldc) {
    constexpr int most = Panels<V>::rows(N);
    Size tiles = (M + most - 1) / most, row = 0;
    for (Size left = tiles; left > 0; left--) {
        int rows = (int)((M - row + left - 1) / left);
        tile_of<V, most, N, TRANSPOSED>(rows, a + row * (TRANSPOSED ? 1 : lda), lda, panel, K,
                                        init ? init + row * ldi : nullptr, ldi, c + row * ldc, ldc);
        row += rows;
    }
}

// C (M, n vectors) = init + A (M, K) times a panel.
template <class V, bool TRANSPOSED>
inline void multiply_panel(int n, Size M, const Scalar<V>* a, Size lda, const Scalar<V>* panel, Size K,
                           const Scalar<V>* init, Size ldi, Scalar<V>* c, Size ldc) {
    switch (n) {
        case 1: return rows_of_panel<V, 1, TRANSPOSED>(M, a, lda, panel, K, init, ldi, c, ldc);
        case 2: return rows_of_panel<V, 2, TRANSPOSED>(M, a, lda, panel, K, init, ldi, c, ldc);
    }
    constexpr int most = TRANSPOSED ? Panels<V>::widest_short : Panels<V>::widest;
    if constexpr (most > 2)
        if (n == 3) return rows_of_panel<V, 3, TRANSPOSED>(M, a, lda, panel, K, init, ldi, c, ldc);
    if constexpr (most > 3) rows_of_panel<V, 4, TRANSPOSED>(M, a, lda, panel, K, init, ldi, c, ldc);
}

// The right factor of a product, with its columns cut into panels. These are as wide as the registers allow, or
// `period` vectors wide if that fits better.
template <class V> struct Packed {
    using S = Scalar<V>;
    static constexpr int W = lanes<V>;
    static constexpr Size block = 512;  // rows of a panel that stay in the first-level cache
    S* panels = nullptr;
    Size K = 0, vectors = 0;
    int widest = 1;

    Packed() = default;
    Packed(S* memory, Size K, Size vectors, Size period) : panels(memory), K(K), vectors(vectors), widest(width_for(period)) {}

    static int width_for(Size period) {
        constexpr int most = Panels<V>::widest;
        return period == 3 && most > 3 ? 3 : most;
    }
    int width(Size left) const { return (int)(left < widest ? left : widest); }
    S* panel(Size v) const { return panels + v * W * K; }

    // C (M, own vectors) = init + A times all panels; `first` (a multiple of the width) and `count` select some.
    void multiply(Size M, const S* a, Size lda, const S* init, Size ldi, S* c, Size ldc, Size first = 0,
                  Size count = -1) const {
        Size stop = count < 0 ? vectors : first + count;
        for (Size k = 0; k < (K ? K : 1); k += block) {
            Size depth = K - k < block ? K - k : block;
            for (Size v = first; v < stop;) {
                int n = width(stop - v);
                S* out = c + (v - first) * W;
                const S* start = k ? out : init ? init + (v - first) * W : nullptr;
                multiply_panel<V, false>(n, M, a + k, lda, panel(v) + k * n * W, depth, start, k ? ldc : ldi, out, ldc);
                v += n;
            }
        }
    }
};

// Transposes W x W numbers in W vectors, by log2(W) perfect shuffles of the rows.
template <class V> FN void transpose(V* rows) {
    constexpr int W = lanes<V>;
    Mask<V> low, high;
    for (int i = 0; i < W; i++) {
        low[i] = i / 2 + i % 2 * W;
        high[i] = W / 2 + i / 2 + i % 2 * W;
    }
    for (int done = 1; done < W; done *= 2) {
        V next[W];
        UNROLLED for (int i = 0; i < W / 2; i++) {
            next[2 * i] = shuffle(rows[i], rows[i + W / 2], low);
            next[2 * i + 1] = shuffle(rows[i], rows[i + W / 2], high);
        }
        UNROLLED for (int i = 0; i < W; i++) rows[i] = next[i];
    }
}

// Packs `valid` <= W rows of a matrix, K numbers each, as one vector of a panel (n vectors wide) for every k; lanes
// without a row are zero.
template <class V> OUTLINED void pack_rows(const Scalar<V>* rows, Size ld, Size valid, Size K, Scalar<V>* out, int n) {
    constexpr int W = lanes<V>;
    Size k = 0;
    if (valid == W)
        for (; k + W <= K; k += W) {
            V square[W];
            for (int i = 0; i < W; i++) square[i] = load<V>(rows + i * ld + k);
            transpose(square);
            for (int i = 0; i < W; i++) store(out + (k + i) * n * W, square[i]);
        }
    for (; k < K; k++)
        for (Size i = 0; i < W; i++) out[k * n * W + i] = i < valid ? rows[i * ld + k] : 0;
}

// Packs one row of a panel n vectors wide: `valid` numbers and then zeros, or only zeros for a null row.
template <class V> FN void pack_row(const Scalar<V>* row, Size valid, Scalar<V>* out, int n) {
    constexpr int W = lanes<V>;
    for (int i = 0; i < n; i++) store(out + i * W, row ? load<V>(row + i * W, valid - i * W) : V{});
}

// (M, rows) = A (M, K) times the transposed rows of an unpacked matrix: for so small an M that packing would take
// longer than the product. Element (m, r) goes to c[m * ldc + r].
template <class V> OUTLINED void multiply_rows(Size M, const Scalar<V>* a, Size lda, const Scalar<V>* rows, Size ld,
                                               Size count, Size K, Scalar<V>* c, Size ldc) {
    constexpr int W = lanes<V>, together = 4;
    for (Size r = 0; r < count; r += together) {
        Size n = count - r < together ? count - r : together;
        const Scalar<V>* at[together];
        for (int i = 0; i < together; i++) at[i] = rows + (r + (i < n ? i : 0)) * ld;
        for (Size m = 0; m < M; m++) {
            const Scalar<V>* left = a + m * lda;
            V sums[together] = {};
            Size k = 0;
            for (; k + W <= K; k += W)
                UNROLLED for (int i = 0; i < together; i++) sums[i] += load<V>(left + k) * load<V>(at[i] + k);
            if (k < K)
                for (int i = 0; i < together; i++) sums[i] += load<V>(left + k, K - k) * load<V>(at[i] + k, K - k);
            for (Size i = 0; i < n; i++) c[m * ldc + r + i] = (Scalar<V>)sum_of(sums[i], W);
        }
    }
}
