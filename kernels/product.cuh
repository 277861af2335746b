// The product of a time step for a tile of units and sequences, by a whole block: weights times x, sums in registers.
//
// A block serves UNITS units, each with OUTPUTS numbers (forward: its gates; backward: one), and ROWS = 8 * TILES
// sequences. Its warps share K: warp w takes the k-steps w, w + WARPS, ..., each four granules of every row. Weights
// are the left operand, so that a batch of eight fills the tensor cores; how lanes hold them stands at multiply_tile.
// Where there are no tensor cores a lane multiplies its weights' granules with those of all eight sequences of a tile,
// and four lanes add up what they have. Both ways read the same arrays:
//
// packed  [unit block][k-step][m tile][half][lane] granules: of line 16 * m + 8 * half + lane / 4 of the block's weights,
//         where line output * UNITS + unit has an output of a unit; zeros beyond the last unit, output and K
// x       (rows, K), K padded to whole k-steps with zeros, the rows to whole tiles
//
// Weights of RESIDENT k-steps a warp stay in registers for all time steps of a launch (0: they are read in each).

#pragma once

#include "device.cuh"

constexpr int WARPS = THREADS / 32, ROWS = 8 * TILES;
constexpr int PER_GRANULE = 16 / sizeof(REAL), DEPTH = 4 * PER_GRANULE;  // numbers along K: of a granule, of a k-step

__device__ inline long long k_steps_of(long long K) { return (K + DEPTH - 1) / DEPTH; }

template <int OUTPUTS> struct Product {
    static constexpr int M = (OUTPUTS * UNITS + 15) / 16;      // tiles of 16 lines
    static constexpr int STRIDE = 16 * M + 4;                  // of a sequence in `shared`: a warp writes to all banks
    static constexpr int TAKEN = TENSOR_CORES ? TILES : ROWS;  // granules of x that a lane takes in a k-step
    static constexpr int PLACES = TENSOR_CORES ? 4 : 16;       // numbers of a tile that a lane adds up
    // Whether there are registers to read the next k-step while one is multiplied.
    static constexpr bool AHEAD = 8 * (2 * M + TAKEN) + M * TILES * PLACES * (int)sizeof(ACC) / 4 < 128;

    const Granule* weights;  // the lane's
    int k_steps;
    Granule held[RESIDENT ? RESIDENT : 1][M][2];
    ACC sums[M][TILES][PLACES];

    __device__ inline Product(const REAL* packed, long long unit_block, long long K) : k_steps(k_steps_of(K)) {
        weights = (const Granule*)packed + unit_block * k_steps * (64 * M) + lane();
#pragma unroll
        for (int n = 0; n < RESIDENT; ++n) fetch_weights(warp() + n * WARPS, held[n]);
    }

    __device__ inline void fetch_weights(int k, Granule (&a)[M][2]) const {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                a[m][half] = k < k_steps ? load_constant(weights + (2LL * k * M + 2 * m + half) * 32) : Granule{};
    }

    __device__ inline void fetch_x(const Granule* x, int k, Granule (&b)[TAKEN]) const {
#pragma unroll
        for (int n = 0; n < TAKEN; ++n) {
            int row = TENSOR_CORES ? 8 * n + lane() / 4 : n;
            b[n] = k < k_steps ? load_exchanged(x + 4 * ((long long)row * k_steps + k) + lane() % 4) : Granule{};
        }
    }

    __device__ inline void multiply(const Granule (&a)[M][2], const Granule (&b)[TAKEN]) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < TILES; ++n) {
                if constexpr (TENSOR_CORES) multiply_tile(sums[m][n], a[m][0], a[m][1], b[n]);
                else multiply_numbers(sums[m][n], a[m], b + 8 * n);
            }
    }

    __device__ inline void multiply_numbers(ACC (&sum)[PLACES], const Granule (&a)[2], const Granule* b) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int row = 0; row < 8; ++row)
#pragma unroll
                for (int k = 0; k < PER_GRANULE; ++k)
                    sum[8 * half + row] += load(a[half].numbers[k]) * load(b[row].numbers[k]);
    }

    // The sums of the block's tile with x, its first row, into `shared`, a part from each warp.
    __device__ inline void run(const REAL* first, ACC* shared) {
        const Granule* x = (const Granule*)first;
#pragma unroll
        for (int k = 0; k < M * TILES * PLACES; ++k) sums[k / PLACES / TILES][k / PLACES % TILES][k % PLACES] = 0;
        if constexpr (RESIDENT > 0) multiply_held(x);
        else multiply_read(x);
        if constexpr (!TENSOR_CORES) gather();
#pragma unroll
        for (int k = 0; k < M * TILES * 4; ++k) {
            int m = k / 4 / TILES, n = k / 4 % TILES, place = k % 4;
            int row = 8 * n + lane() % 4 * 2 + place % 2, line = 16 * m + lane() / 4 + place / 2 * 8;
            shared[(warp() * ROWS + row) * STRIDE + line] = sums[m][n][place];
        }
        __syncthreads();
    }

    __device__ inline void multiply_held(const Granule* x) {
        constexpr int GROUP = TAKEN < 8 ? 8 / TAKEN : 1;  // k-steps whose x is read at once
#pragma unroll
        for (int first = 0; first < RESIDENT; first += GROUP) {
            Granule b[GROUP][TAKEN];
#pragma unroll
            for (int n = 0; n < GROUP; ++n)
                if (first + n < RESIDENT) fetch_x(x, warp() + (first + n) * WARPS, b[n]);
#pragma unroll
            for (int n = 0; n < GROUP; ++n)
                if (first + n < RESIDENT) multiply(held[first + n], b[n]);
        }
    }

    __device__ inline void multiply_read(const Granule* x) {
        Granule a[AHEAD + 1][M][2], b[AHEAD + 1][TAKEN];
        fetch(x, warp(), a[0], b[0]);
#pragma unroll 1
        for (int k = warp(); k < k_steps; k += (AHEAD + 1) * WARPS) {
            if constexpr (AHEAD) fetch(x, k + WARPS, a[1], b[1]);
            multiply(a[0], b[0]);
            fetch(x, k + (AHEAD + 1) * WARPS, a[0], b[0]);
            if constexpr (AHEAD)
                if (k + WARPS < k_steps) multiply(a[1], b[1]);
        }
    }

    __device__ inline void fetch(const Granule* x, int k, Granule (&a)[M][2], Granule (&b)[TAKEN]) const {
        fetch_weights(k, a);
        fetch_x(x, k, b);
    }

    // Without tensor cores the four lanes of a row have each a part of the sums of all eight sequences. They halve them
    // twice: lane q keeps sequences 2 q and 2 q + 1, the places where a tensor core leaves them.
    __device__ inline void gather() {
        bool high = lane() & 2, odd = lane() & 1;
#pragma unroll
        for (int k = 0; k < M * TILES * 2; ++k) {
            ACC* tile = sums[k / 2 / TILES][k / 2 % TILES];
            ACC *all = tile + k % 2 * 8, four[4];
#pragma unroll
            for (int n = 0; n < 4; ++n)
                four[n] = (high ? all[n + 4] : all[n]) + shuffle_xor(high ? all[n] : all[n + 4], 2);
#pragma unroll
            for (int n = 0; n < 2; ++n)
                tile[k % 2 * 2 + n] = (odd ? four[n + 2] : four[n]) + shuffle_xor(odd ? four[n] : four[n + 2], 1);
        }
    }

    // Output `output` of a unit for a sequence, both numbered within the block.
    __device__ inline static ACC total(const ACC* shared, int row, int unit, int output) {
        ACC sum = 0;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) sum += shared[(w * ROWS + row) * STRIDE + output * UNITS + unit];
        return sum;
    }
};

// No product.
template <> struct Product<0> {
    __device__ inline Product(const REAL* packed, long long unit_block, long long K) {}
    __device__ inline void run(const REAL* first, ACC* shared) {}
    __device__ inline static ACC total(const ACC* shared, int row, int unit, int output) { return 0; }
};
