// The minimal LSTM and GRU over a whole sequence, forward and backward: gates and scan fused, without the products.
//
//     h = keep * h_prev + take * n,  keep + take = 1                              Feng et al. 2024, sections 3.1, 3.2
//     minLSTM: keep = f / (f + i), take = i / (f + i);  f, i = sigmoid(z_f), sigmoid(z_i);  n = z_n;  z = x W_ih' + b
//     minGRU:  keep = 1 - z, take = z;  z = sigmoid(z_z);  n = z_n
//
// The arithmetic is in kernels/cells/minlstm.cuh and mingru.cuh. One thread computes one unit of one sequence over one
// chunk of the steps. With a single chunk, <cell>_forward does everything. With C chunks,
// 1. <cell>_ends computes how every chunk but the last maps a state: h -> product * h + end,
// 2. scan_carries goes through the chunks, one thread for each unit, and computes the state after each chunk,
// 3. <cell>_forward computes every chunk, beginning with the state after the chunk before it.
// <cell>_backward_ends, scan_carries and <cell>_backward do the same in the opposite direction, since
//     dh_t = dy_t + keep_{t+1} dh_{t+1}
// is a scan too. Gates are computed again in every pass: reading z costs less than storing them.
//
// Parameters that the kernels share:
// zx       (T, B, G*H)  pre-activations from the input, without biases; gates f, i, n or z, n; never NaN
// b_ih     (G*H)        or null for zero
// alive    (T, B)       or null if every step is valid; at an invalid step h does not change, y and gradients are zero
// clear    (T, B)       or null; where true, h_prev of the step is zero
// chunk                 steps in a chunk; the last chunk may have fewer
// reverse               whether time runs from T-1 down to 0
// hs       (T+1, B, H)  states; step t reads row t and writes row t + 1, in reverse reads t + 1 and writes t
// products, ends, carries (C-1, B, H)  for every chunk but the last, in the order of the scan
// Sums and products are ACC whatever REAL is. No pointer may alias another, except where stated.

#include "common.cuh"
#include "cells/mingru.cuh"
#include "cells/minlstm.cuh"

// The coefficients of one unit and step; z and b are those of the unit's first gate.
template <class Cell>
__device__ Coefficients<ACC> coefficients_at(const REAL* z, const REAL* b, long long H)
{
    ACC sum[Cell::gates];
    for (int gate = 0; gate < Cell::gates; ++gate) sum[gate] = load(z[gate * H]) + (b ? load(b[gate * H]) : 0);
    return Cell::coefficients(sum);
}

// The row, in arrays (T, B), of step s of a scan.
__device__ inline long long row_of(long long s, long long b, long long T, long long B, long long backwards)
{
    return (backwards ? T - 1 - s : s) * B + b;
}

// The value of a mask, or `otherwise` if the mask is null.
__device__ inline bool is_set(const bool* mask, long long row, bool otherwise) { return mask ? mask[row] : otherwise; }

// products, ends: out.
// Moves G values a unit and step of the chunks but the last.
template <class Cell>
__device__ void forward_ends(
    const REAL* __restrict__ zx, const REAL* __restrict__ b_ih, const bool* __restrict__ alive,
    const bool* __restrict__ clear, long long T, long long B, long long H, long long chunk, long long reverse,
    ACC* __restrict__ products, ACC* __restrict__ ends)
{
    FOR_EACH(k, (T - 1) / chunk * B * H) {
        long long first = k / (B * H) * chunk, b = k / H % B, j = k % H;
        ACC product = 1, end = 0;
        #pragma unroll 4
        for (long long s = first; s < first + chunk; ++s) {
            long long row = row_of(s, b, T, B, reverse);
            const auto c = coefficients_at<Cell>(zx + row * Cell::gates * H + j, b_ih ? b_ih + j : nullptr, H);
            if (is_set(clear, row, false)) product = end = 0;
            if (is_set(alive, row, true)) {
                product *= c.keep;
                end = c.keep * end + c.take * c.n;
            }
        }
        products[k] = product;
        ends[k] = end;
    }
}

// carries: the `ends` that scan_carries wrote, or null with a single chunk
// hs:      in: the row that the first step reads; out: all others
// y        (T, B, H)  out: h, zero at invalid steps; or null, for example if every step is valid
// Moves G + 1 values a unit and step, one more with y.
template <class Cell>
__device__ void forward(
    const REAL* __restrict__ zx, const REAL* __restrict__ b_ih, const bool* __restrict__ alive,
    const bool* __restrict__ clear, const ACC* __restrict__ carries, long long T, long long B, long long H,
    long long chunk, long long reverse, REAL* __restrict__ hs, REAL* __restrict__ y)
{
    FOR_EACH(k, ((T - 1) / chunk + 1) * B * H) {
        long long units = B * H, first = k / units * chunk, unit = k % units, b = unit / H, j = unit % H;
        ACC h = first == 0 ? load(hs[(reverse ? T : 0) * units + unit]) : carries[k - units];
        long long stop = min(first + chunk, T);
        #pragma unroll 4
        for (long long s = first; s < stop; ++s) {
            long long row = row_of(s, b, T, B, reverse);
            const auto c = coefficients_at<Cell>(zx + row * Cell::gates * H + j, b_ih ? b_ih + j : nullptr, H);
            bool counts = is_set(alive, row, true);
            if (is_set(clear, row, false)) h = 0;
            if (counts) h = c.keep * h + c.take * c.n;
            hs[row * H + j + (reverse ? 0 : units)] = store(h);
            if (y) y[row * H + j] = store(counts ? h : 0);
        }
    }
}

// dy       (T, B, H)  gradient of y, or null for zero; not used at invalid steps
// products, ends: out, how a chunk maps the gradient that its last state gets from later steps.
// Moves G + 1 values a unit and step of the chunks but the last.
template <class Cell>
__device__ void backward_ends(
    const REAL* __restrict__ zx, const REAL* __restrict__ b_ih, const bool* __restrict__ alive,
    const bool* __restrict__ clear, const REAL* __restrict__ dy, long long T, long long B, long long H,
    long long chunk, long long reverse, ACC* __restrict__ products, ACC* __restrict__ ends)
{
    FOR_EACH(k, (T - 1) / chunk * B * H) {
        long long first = k / (B * H) * chunk, b = k / H % B, j = k % H;
        ACC product = 1, end = 0;
        #pragma unroll 4
        for (long long s = first; s < first + chunk; ++s) {
            long long row = row_of(s, b, T, B, !reverse);
            const auto c = coefficients_at<Cell>(zx + row * Cell::gates * H + j, b_ih ? b_ih + j : nullptr, H);
            if (is_set(alive, row, true)) {
                product *= c.keep;
                end = c.keep * (end + (dy ? load(dy[row * H + j]) : 0));
            }
            if (is_set(clear, row, false)) product = end = 0;
        }
        products[k] = product;
        ends[k] = end;
    }
}

// hs:      as forward left them
// dy       (T, B, H)    as backward_ends
// dh_n     (B, H)       gradient of the last state, or null for zero
// carries: the `ends` that scan_carries wrote, or null with a single chunk
// dzx      (T, B, G*H)  out: gradient of the pre-activations
// dh0      (B, H)       out: gradient of the initial state
// Moves 2 G + 2 values a unit and step.
template <class Cell>
__device__ void backward(
    const REAL* __restrict__ zx, const REAL* __restrict__ b_ih, const bool* __restrict__ alive,
    const bool* __restrict__ clear, const REAL* __restrict__ hs, const REAL* __restrict__ dy,
    const REAL* __restrict__ dh_n, const ACC* __restrict__ carries, long long T, long long B, long long H,
    long long chunk, long long reverse, REAL* __restrict__ dzx, REAL* __restrict__ dh0)
{
    FOR_EACH(k, ((T - 1) / chunk + 1) * B * H) {
        long long units = B * H, first = k / units * chunk, unit = k % units, b = unit / H, j = unit % H;
        ACC dh = first > 0 ? carries[k - units] : dh_n ? load(dh_n[unit]) : 0;
        long long stop = min(first + chunk, T);
        #pragma unroll 4
        for (long long s = first; s < stop; ++s) {
            long long row = row_of(s, b, T, B, !reverse);
            const auto c = coefficients_at<Cell>(zx + row * Cell::gates * H + j, b_ih ? b_ih + j : nullptr, H);
            bool counts = is_set(alive, row, true), cleared = is_set(clear, row, false);
            ACC h_prev = cleared ? 0 : load(hs[row * H + j + (reverse ? units : 0)]);
            if (counts && dy) dh += load(dy[row * H + j]);
            ACC dz[Cell::gates];
            Cell::gradients(c, h_prev, counts ? dh : 0, dz);
            for (int gate = 0; gate < Cell::gates; ++gate) dzx[(row * Cell::gates + gate) * H + j] = store(dz[gate]);
            if (counts) dh *= c.keep;
            if (cleared) dh = 0;
        }
        if (stop == T) dh0[unit] = store(dh);
    }
}

// first  (units)     the state before the first chunk, or null for zero
// ends   (C, units)  in: the state after each chunk if it began with zero; out: the state after it; C = chunks
// Moves 3 values a unit and chunk.
extern "C" __global__ void scan_carries(
    const ACC* __restrict__ products, const REAL* __restrict__ first, long long chunks, long long units,
    ACC* __restrict__ ends)
{
    FOR_EACH(unit, units) {
        ACC h = first ? load(first[unit]) : 0;
        #pragma unroll 4
        for (long long k = unit; k < chunks * units; k += units) {
            ACC product = products[k];  // 0 if h is cleared; 0 * inf would give NaN instead
            ends[k] = h = (product == 0 ? 0 : product * h) + ends[k];
        }
    }
}

extern "C" __global__ void minlstm_ends(
    const REAL* zx, const REAL* b_ih, const bool* alive, const bool* clear, long long T, long long B, long long H,
    long long chunk, long long reverse, ACC* products, ACC* ends)
{
    forward_ends<MinLstm>(zx, b_ih, alive, clear, T, B, H, chunk, reverse, products, ends);
}

extern "C" __global__ void minlstm_forward(
    const REAL* zx, const REAL* b_ih, const bool* alive, const bool* clear, const ACC* carries, long long T,
    long long B, long long H, long long chunk, long long reverse, REAL* hs, REAL* y)
{
    forward<MinLstm>(zx, b_ih, alive, clear, carries, T, B, H, chunk, reverse, hs, y);
}

extern "C" __global__ void minlstm_backward_ends(
    const REAL* zx, const REAL* b_ih, const bool* alive, const bool* clear, const REAL* dy, long long T, long long B,
    long long H, long long chunk, long long reverse, ACC* products, ACC* ends)
{
    backward_ends<MinLstm>(zx, b_ih, alive, clear, dy, T, B, H, chunk, reverse, products, ends);
}

extern "C" __global__ void minlstm_backward(
    const REAL* zx, const REAL* b_ih, const bool* alive, const bool* clear, const REAL* hs, const REAL* dy,
    const REAL* dh_n, const ACC* carries, long long T, long long B, long long H, long long chunk, long long reverse,
    REAL* dzx, REAL* dh0)
{
    backward<MinLstm>(zx, b_ih, alive, clear, hs, dy, dh_n, carries, T, B, H, chunk, reverse, dzx, dh0);
}

extern "C" __global__ void mingru_ends(
    const REAL* zx, const REAL* b_ih, const bool* alive, const bool* clear, long long T, long long B, long long H,
    long long chunk, long long reverse, ACC* products, ACC* ends)
{
    forward_ends<MinGru>(zx, b_ih, alive, clear, T, B, H, chunk, reverse, products, ends);
}

extern "C" __global__ void mingru_forward(
    const REAL* zx, const REAL* b_ih, const bool* alive, const bool* clear, const ACC* carries, long long T,
    long long B, long long H, long long chunk, long long reverse, REAL* hs, REAL* y)
{
    forward<MinGru>(zx, b_ih, alive, clear, carries, T, B, H, chunk, reverse, hs, y);
}

extern "C" __global__ void mingru_backward_ends(
    const REAL* zx, const REAL* b_ih, const bool* alive, const bool* clear, const REAL* dy, long long T, long long B,
    long long H, long long chunk, long long reverse, ACC* products, ACC* ends)
{
    backward_ends<MinGru>(zx, b_ih, alive, clear, dy, T, B, H, chunk, reverse, products, ends);
}

extern "C" __global__ void mingru_backward(
    const REAL* zx, const REAL* b_ih, const bool* alive, const bool* clear, const REAL* hs, const REAL* dy,
    const REAL* dh_n, const ACC* carries, long long T, long long B, long long H, long long chunk, long long reverse,
    REAL* dzx, REAL* dh0)
{
    backward<MinGru>(zx, b_ih, alive, clear, hs, dy, dh_n, carries, T, B, H, chunk, reverse, dzx, dh0);
}
