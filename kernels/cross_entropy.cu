// Softmax cross-entropy of each row, and its gradient with respect to the logits, in one launch.
//
//     loss = (1 - s) w_y nll + s / C * smooth,  nll = log(total) + largest - x_y = -log p_y
//                                               smooth = sum_c w_c (nll + x_y - x_c) = -sum_c w_c log p_c
//     dx_c = (1 - s) w_y (p_c - [c = y]) + s / C * (p_c * sum_w - w_c)
//
// The arithmetic and the names are those of gpulstm/functional/cross_entropy.py. LANES threads share a row, and each
// takes every LANES-th class; a block of THREADS threads computes THREADS / LANES rows at a time. Both are powers of
// two and compile-time constants, so that the kernel suits rows of two classes and rows of fifty thousand.

#include "common.cuh"

#ifndef THREADS
#define THREADS 128
#endif
#ifndef LANES
#define LANES 32
#endif
// IN_PLACE: dx is x. Otherwise the compiler may read far ahead of the writes.
#ifdef IN_PLACE
#define APART
#else
#define APART __restrict__
#endif
#define ROWS (THREADS / LANES)
// The lowest finite number. Since it is finite, a logit of minus infinity gives a class of probability 0.
#define LOWEST ((ACC)(sizeof(ACC) == 4 ? -3.4028234e38 : -1.7976931348623157e308))

// Returns the sum of v over the threads of a row, in a fixed order, to each of them. Every thread of the block must
// call it; scratch is shared memory of THREADS values.
__device__ inline ACC row_sum(ACC v, ACC* scratch) {
    int lane = threadIdx.x % LANES;
    scratch[threadIdx.x] = v;
    __syncthreads();
    for (int half = LANES / 2; half > 0; half /= 2) {
        if (lane < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
        __syncthreads();
    }
    ACC total = scratch[threadIdx.x - lane];
    __syncthreads();  // scratch may be used again at once
    return total;
}

// Returns the largest v of a row in the same way.
__device__ inline ACC row_max(ACC v, ACC* scratch) {
    int lane = threadIdx.x % LANES;
    scratch[threadIdx.x] = v;
    __syncthreads();
    for (int half = LANES / 2; half > 0; half /= 2) {
        if (lane < half && scratch[threadIdx.x + half] > scratch[threadIdx.x])
            scratch[threadIdx.x] = scratch[threadIdx.x + half];
        __syncthreads();
    }
    ACC largest = scratch[threadIdx.x - lane];
    __syncthreads();
    return largest;
}

// x          (rows, C)  logits
// target     (rows)     class of each row, 0 <= target < C, or ignore_index; the caller has checked it
// weight     (C)        weight of each class, or null for ones
// loss       (rows)     out: 0 for an ignored row
// row_weight (rows)     out: weight of the row's class, 0 for an ignored row
// dx         (rows, C)  out: gradient of loss; 0 for an ignored row, even if its logits are NaN
// No two may overlap, except x and dx with IN_PLACE: a thread reads each logit for the last time just before it writes
// there, and x[y] is read before the sums that synchronise all threads of the row.
// Moves 3 values an element: x in twice (the second time from the cache if the current rows fit there), dx out.
extern "C" __global__ void cross_entropy(
    const REAL* APART x, const long long* __restrict__ target, const REAL* __restrict__ weight,
    ACC* __restrict__ loss, ACC* __restrict__ row_weight, REAL* APART dx,
    long long rows, long long C, long long ignore_index, double label_smoothing)
{
    __shared__ ACC scratch[THREADS];
    int lane = threadIdx.x % LANES;
    bool smooth = label_smoothing > 0;
    ACC smoothing = (ACC)label_smoothing, spread = smoothing / (ACC)C;
    // Every thread of the block runs the same number of iterations, since the sums synchronise all of them.
    for (long long first = (long long)blockIdx.x * ROWS; first < rows; first += (long long)gridDim.x * ROWS) {
        long long row = first + threadIdx.x / LANES;
        long long y = row < rows ? target[row] : ignore_index;
        bool kept = y != ignore_index;
        const REAL* x_row = x + row * C;
        REAL* dx_row = dx + row * C;
        ACC x_y = kept ? load(x_row[y]) : 0;
        ACC w_y = !kept ? 0 : weight ? load(weight[y]) : 1;

        // One pass computes the largest logit and the sum of exp(x - largest): whenever a larger logit is found, the
        // sum so far is rescaled (Milakov & Gimelshein 2018).
        ACC largest = LOWEST, total = 0, sum_w = 0, sum_wx = 0;
        for (long long c = lane; kept && c < C; c += LANES) {
            ACC x_c = load(x_row[c]);
            if (x_c > largest) {
                total = total * exp_(largest - x_c) + 1;
                largest = x_c;
            } else {
                total += exp_(x_c - largest);
            }
            if (smooth) {
                ACC w_c = weight ? load(weight[c]) : 1;
                sum_w += w_c;
                sum_wx += w_c * (x_c - x_y);
            }
        }
        ACC own_largest = largest;
        largest = row_max(own_largest, scratch);
        total = row_sum(total * exp_(own_largest - largest), scratch);
        ACC nll = log_(total) + (largest - x_y), l = (1 - smoothing) * w_y * nll;
        if (smooth) {
            sum_w = row_sum(sum_w, scratch);
            l += spread * (sum_w * nll - row_sum(sum_wx, scratch));
        }
        if (row >= rows) continue;
        if (lane == 0) {
            loss[row] = kept ? l : 0;
            row_weight[row] = w_y;
        }
        for (long long c = lane; c < C; c += LANES) {
            ACC dx_c = 0;
            if (kept) {
                ACC p_c = exp_(load(x_row[c]) - largest) / total;
                dx_c = (1 - smoothing) * w_y * (p_c - (c == y ? 1 : 0));
                if (smooth) dx_c += spread * (p_c * sum_w - (weight ? load(weight[c]) : 1));
            }
            dx_row[c] = store(dx_c);
        }
    }
}
