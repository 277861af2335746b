// The gates of the LSTM with peepholes, one time step, forward and backward: everything that is not a matrix product.
//
//     i, f = sigmoid(z_i + p_i * c_prev), sigmoid(z_f + p_f * c_prev);  g = tanh(z_g)
//     c = f * c_prev + i * g                                          z = x W_ih' + h_prev W_hh' + b
//     o = sigmoid(z_o + p_o * c)
//     h = o * tanh(c)                                                 Gers & Schmidhuber 2000
//
// peephole_* have these diagonal peepholes. peephole_full_* have matrices, whose products come in with zr: those of
// c_prev before the step, that of c between peephole_full_inner, which computes c, and peephole_full_forward.
//
// The arithmetic is that of gpulstm/cells/peephole.py under the same names. One thread serves one unit of one
// sequence; gates lie side by side in a row in the order i, f, g, o. c, its gradient and that of weight_ch are ACC,
// everything else is stored as REAL.

#include "common.cuh"

// The peepholes of one unit, zero where there is no weight_ch (full: they stand in zr).
struct Peepholes {
    ACC i, f, o;
};

__device__ inline Peepholes peepholes_of(const REAL* weight_ch, long long j, long long H) {
    if (!weight_ch) return {0, 0, 0};
    return {load(weight_ch[j]), load(weight_ch[H + j]), load(weight_ch[2 * H + j])};
}

__device__ inline void forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* c_prev,
    const REAL* weight_ch, const bool* alive, const REAL* keep_h, const REAL* keep_c, long long B, long long H,
    REAL* gates, REAL* h, ACC* c)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        Peepholes p = peepholes_of(weight_ch, j, H);
        ACC i = sigmoid(pre_activation(zx, zr, b_ih, b_hh, b, j, 4 * H) + p.i * c_prev[k]);
        ACC f = sigmoid(pre_activation(zx, zr, b_ih, b_hh, b, H + j, 4 * H) + p.f * c_prev[k]);
        ACC g = tanh_(pre_activation(zx, zr, b_ih, b_hh, b, 2 * H + j, 4 * H));
        ACC c_new = f * c_prev[k] + i * g;
        ACC o = sigmoid(pre_activation(zx, zr, b_ih, b_hh, b, 3 * H + j, 4 * H) + p.o * c_new);
        ACC h_new = o * tanh_(c_new);
        REAL* gate = gates + b * 4 * H + j;
        gate[0] = store(i);
        gate[H] = store(f);
        gate[2 * H] = store(g);
        gate[3 * H] = store(o);
        c[k] = mixed(share_kept(alive, keep_c, b, k), c_prev[k], c_new);
        h[k] = store(mixed(share_kept(alive, keep_h, b, k), h_prev ? load(h_prev[k]) : 0, h_new));
    }
}

__device__ inline void backward(
    const REAL* gates, const ACC* c_prev, const REAL* weight_ch, const bool* alive, const REAL* keep_h,
    const REAL* keep_c, const REAL* dy, const REAL* dh, REAL* direct, long long B, long long H, REAL* dz, ACC* dc,
    ACC* dweight_ch)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        const REAL* gate = gates + b * 4 * H + j;
        REAL* dgate = dz + b * 4 * H + j;
        Peepholes p = peepholes_of(weight_ch, j, H);
        ACC i = load(gate[0]), f = load(gate[H]), g = load(gate[2 * H]), o = load(gate[3 * H]);
        ACC kept_h = share_kept(alive, keep_h, b, k), kept_c = share_kept(alive, keep_c, b, k);
        ACC c_new = f * c_prev[k] + i * g, tanh_c = tanh_(c_new);
        ACC dh_all = load(dh[k]) + (dy ? load(dy[k]) : 0) + (direct ? load(direct[k]) : 0);
        ACC dh_new = (1 - kept_h) * dh_all;
        if (direct) direct[k] = store(kept_h * dh_all);
        ACC dz_o = dh_new * tanh_c * o * (1 - o);
        ACC dc_new = (1 - kept_c) * dc[k] + dh_new * o * (1 - tanh_c * tanh_c) + dz_o * p.o;
        ACC dz_i = dc_new * g * i * (1 - i), dz_f = dc_new * c_prev[k] * f * (1 - f);
        dgate[0] = store(dz_i);
        dgate[H] = store(dz_f);
        dgate[2 * H] = store(dc_new * i * (1 - g * g));
        dgate[3 * H] = store(dz_o);
        dc[k] = kept_c * dc[k] + dc_new * f + dz_i * p.i + dz_f * p.f;
        if (dweight_ch) {
            ACC* dp = dweight_ch + b * 3 * H + j;
            dp[0] += dz_i * c_prev[k];
            dp[H] += dz_f * c_prev[k];
            dp[2 * H] += dz_o * c_new;
        }
    }
}

// zx     (B, 4H)  pre-activations from the input, x_t W_ih', without biases
// zr     (B, 4H)  pre-activations from the states: h_prev W_hh', without biases; full: with the peepholes' products
// b_ih   (4H)     bias of the input part, or null for zero
// b_hh   (4H)     bias of the recurrent part, or null for zero
// h_prev (B, H)   null where the caller keeps h itself (projection)
// c_prev (B, H)
// weight_ch (3H)  p_i, p_f, p_o; diagonal only
// alive  (B)      or null where every sequence is; one that is not keeps its states
// keep_h (B, H)   share of h that every unit keeps (zoneout), or null for none
// keep_c (B, H)   the same for c
// gates  (B, 4H)  out: i, f, g, o for the backward pass; may be zx itself
// h      (B, H)   out
// c      (B, H)   out
// Moves 8 + 1 + 4 + 2 values a unit: both pre-activations and c_prev in, gates, c and h out.
extern "C" __global__ void peephole_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* c_prev,
    const REAL* weight_ch, const bool* alive, const REAL* keep_h, const REAL* keep_c, long long B, long long H,
    REAL* gates, REAL* h, ACC* c)
{
    forward(zx, zr, b_ih, b_hh, h_prev, c_prev, weight_ch, alive, keep_h, keep_c, B, H, gates, h, c);
}

extern "C" __global__ void peephole_full_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* c_prev,
    const bool* alive, const REAL* keep_h, const REAL* keep_c, long long B, long long H, REAL* gates, REAL* h, ACC* c)
{
    forward(zx, zr, b_ih, b_hh, h_prev, c_prev, nullptr, alive, keep_h, keep_c, B, H, gates, h, c);
}

// gates  (B, 4H)  as forward left them
// h_prev (B, H)   not read
// c_prev (B, H)
// weight_ch, alive, keep_h, keep_c  as forward
// dy     (B, H)   gradient of this step's output, or null for zero
// dh     (B, H)   gradient of this step's h through the product of the step after it
// direct (B, H)   in: gradient of this step's h besides that product; out: that of h_prev; null for zero,
//                 which is enough where nothing is kept
// dz     (B, 4H)  out: gradient of the pre-activations; diagonal: may be gates itself
// dc     (B, H)   in: gradient of c from the step after it; out: gradient of c_prev
// dweight_ch (B, 3H)  in and out: sums of each sequence over its steps; diagonal only
// Moves 4 + 1 + 3 + 5 values a unit, and diagonal 2 * 3 for the sums. Full leaves out what reaches c through the o
// gate, which peephole_full_inner_backward adds.
extern "C" __global__ void peephole_backward(
    const REAL* gates, const REAL* h_prev, const ACC* c_prev, const REAL* weight_ch, const bool* alive,
    const REAL* keep_h, const REAL* keep_c, const REAL* dy, const REAL* dh, REAL* direct, long long B, long long H,
    REAL* dz, ACC* dc, ACC* dweight_ch)
{
    backward(gates, c_prev, weight_ch, alive, keep_h, keep_c, dy, dh, direct, B, H, dz, dc, dweight_ch);
}

extern "C" __global__ void peephole_full_backward(
    const REAL* gates, const REAL* h_prev, const ACC* c_prev, const bool* alive, const REAL* keep_h,
    const REAL* keep_c, const REAL* dy, const REAL* dh, REAL* direct, long long B, long long H, REAL* dz, ACC* dc)
{
    backward(gates, c_prev, nullptr, alive, keep_h, keep_c, dy, dh, direct, B, H, dz, dc, nullptr);
}

// v      (B, H)   out: c, what the o gate's matrix is multiplied with; zx and zr stay as they are
// The rest as peephole_full_forward; the columns of zr for o are not read. Moves 6 + 1 + 1 values a unit.
extern "C" __global__ void peephole_full_inner(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* c_prev,
    long long B, long long H, REAL* v)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        ACC i = sigmoid(pre_activation(zx, zr, b_ih, b_hh, b, j, 4 * H));
        ACC f = sigmoid(pre_activation(zx, zr, b_ih, b_hh, b, H + j, 4 * H));
        ACC g = tanh_(pre_activation(zx, zr, b_ih, b_hh, b, 2 * H + j, 4 * H));
        v[k] = store(f * c_prev[k] + i * g);
    }
}

// gates  (B, 4H)  as forward left them; not dz
// h_prev (B, H)   not read
// c_prev (B, H)
// dv     (B, H)   gradient of c through the o gate; zero where the sequence is not alive, as dz_o is
// dz     (B, 4H)  in: as peephole_full_backward left it; out: the gradient of the pre-activations
// direct (B, H)   not read
// dc     (B, H)   in and out, likewise
// Moves 3 + 1 + 1 + 8 values a unit.
extern "C" __global__ void peephole_full_inner_backward(
    const REAL* gates, const REAL* h_prev, const ACC* c_prev, const REAL* dv, long long B, long long H, REAL* dz,
    REAL* direct, ACC* dc)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        const REAL* gate = gates + b * 4 * H + j;
        REAL* dgate = dz + b * 4 * H + j;
        ACC i = load(gate[0]), f = load(gate[H]), g = load(gate[2 * H]), dc_new = load(dv[k]);
        dgate[0] = store(load(dgate[0]) + dc_new * g * i * (1 - i));
        dgate[H] = store(load(dgate[H]) + dc_new * c_prev[k] * f * (1 - f));
        dgate[2 * H] = store(load(dgate[2 * H]) + dc_new * i * (1 - g * g));
        dc[k] += dc_new * f;
    }
}
