// The gates of ONNX' LSTM, one time step, forward and backward: everything of a step that is not a matrix product.
//
//     i = act_f(z_i + p_i * c_prev);  f = act_f(z_f + p_f * c_prev), or 1 - i if COUPLED;  g = act_g(z_g)
//     c = f * c_prev + i * g                                          z = x W_ih' + h_prev W_hh' + b
//     o = act_f(z_o + p_o * c)
//     h = o * act_h(c)                                                ONNX, LSTM-22
//
// general_peephole_* have p_i, p_f and p_o, general_* have not. The macros ACT_F, ACT_G and ACT_H say what the
// activations are and where their arguments are clipped (activation.cuh).
//
// The arithmetic is that of gpulstm/cells/general.py under the same names. One thread serves one unit of one
// sequence; rows lie side by side in the order i, f, g, o. c, its gradient and that of weight_ch are ACC, everything
// else is stored as REAL. What a step keeps for the backward pass are the pre-activations, from which the slope of
// any activation follows. Forward takes them as they are stored, so that both passes are on the same side of every
// bend of an activation.

#include "common.cuh"
#include "activation.cuh"

// By default the plain LSTM.
#ifndef ACT_F
#define ACT_F SIGMOID, 0, 0, 0
#endif
#ifndef ACT_G
#define ACT_G TANH, 0, 0, 0
#endif
#ifndef ACT_H
#define ACT_H TANH, 0, 0, 0
#endif
#ifndef COUPLED
#define COUPLED 0
#endif

// The peepholes of one unit, zero where there is no weight_ch.
struct Peepholes {
    ACC i, f, o;
};

__device__ inline Peepholes peepholes_of(const REAL* weight_ch, long long j, long long H) {
    if (!weight_ch) return {0, 0, 0};
    return {load(weight_ch[j]), load(weight_ch[H + j]), load(weight_ch[2 * H + j])};
}

// One unit's step.
struct Step {
    ACC z_i, z_f, z_g, z_o;  // what the activations see
    ACC i, f, g, o, c, h_c;
};

__device__ inline Step step_of(REAL z_i, REAL z_f, REAL z_g, REAL z_o, Peepholes p, ACC c_prev) {
    Step s;
    s.z_i = load(z_i) + p.i * c_prev;
    s.z_f = load(z_f) + p.f * c_prev;
    s.z_g = load(z_g);
    s.i = activate(ACT_F, s.z_i);
    s.f = COUPLED ? 1 - s.i : activate(ACT_F, s.z_f);
    s.g = activate(ACT_G, s.z_g);
    s.c = s.f * c_prev + s.i * s.g;
    s.z_o = load(z_o) + p.o * s.c;
    s.o = activate(ACT_F, s.z_o);
    s.h_c = activate(ACT_H, s.c);
    return s;
}

__device__ inline void forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* c_prev,
    const REAL* weight_ch, const bool* alive, const REAL* keep_h, const REAL* keep_c, long long B, long long H,
    REAL* gates, REAL* h, ACC* c)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        REAL z_i = store(pre_activation(zx, zr, b_ih, b_hh, b, j, 4 * H));
        REAL z_f = store(pre_activation(zx, zr, b_ih, b_hh, b, H + j, 4 * H));
        REAL z_g = store(pre_activation(zx, zr, b_ih, b_hh, b, 2 * H + j, 4 * H));
        REAL z_o = store(pre_activation(zx, zr, b_ih, b_hh, b, 3 * H + j, 4 * H));
        Step s = step_of(z_i, z_f, z_g, z_o, peepholes_of(weight_ch, j, H), c_prev[k]);
        REAL* gate = gates + b * 4 * H + j;
        gate[0] = z_i;
        gate[H] = z_f;
        gate[2 * H] = z_g;
        gate[3 * H] = z_o;
        c[k] = mixed(share_kept(alive, keep_c, b, k), c_prev[k], s.c);
        h[k] = store(mixed(share_kept(alive, keep_h, b, k), h_prev ? load(h_prev[k]) : 0, s.o * s.h_c));
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
        Step s = step_of(gate[0], gate[H], gate[2 * H], gate[3 * H], p, c_prev[k]);
        ACC kept_h = share_kept(alive, keep_h, b, k), kept_c = share_kept(alive, keep_c, b, k);
        ACC dh_all = load(dh[k]) + (dy ? load(dy[k]) : 0) + (direct ? load(direct[k]) : 0);
        ACC dh_new = (1 - kept_h) * dh_all;
        if (direct) direct[k] = store(kept_h * dh_all);
        ACC dz_o = dh_new * s.h_c * slope(ACT_F, s.z_o);
        ACC dc_new = (1 - kept_c) * dc[k] + dh_new * s.o * slope(ACT_H, s.c) + dz_o * p.o;
        ACC di = dc_new * s.g, df = dc_new * c_prev[k];
        ACC dz_i = (COUPLED ? di - df : di) * slope(ACT_F, s.z_i);
        ACC dz_f = COUPLED ? 0 : df * slope(ACT_F, s.z_f);
        dgate[0] = store(dz_i);
        dgate[H] = store(dz_f);
        dgate[2 * H] = store(dc_new * s.i * slope(ACT_G, s.z_g));
        dgate[3 * H] = store(dz_o);
        dc[k] = kept_c * dc[k] + dc_new * s.f + dz_i * p.i + dz_f * p.f;
        if (dweight_ch) {
            ACC* dp = dweight_ch + b * 3 * H + j;
            dp[0] += dz_i * c_prev[k];
            dp[H] += dz_f * c_prev[k];
            dp[2 * H] += dz_o * s.c;
        }
    }
}

// zx     (B, 4H)  pre-activations from the input, x_t W_ih', without biases
// zr     (B, 4H)  pre-activations from the state, h_prev W_hh', without biases
// b_ih   (4H)     bias of the input part, or null for zero
// b_hh   (4H)     bias of the recurrent part, or null for zero
// h_prev (B, H)   null where the caller keeps h itself (projection)
// c_prev (B, H)
// weight_ch (3H)  p_i, p_f, p_o; general_peephole_* only
// alive  (B)      or null where every sequence is; one that is not keeps its states
// keep_h (B, H)   share of h that every unit keeps (zoneout), or null for none
// keep_c (B, H)   the same for c
// gates  (B, 4H)  out: z_i, z_f, z_g, z_o without peepholes and before clipping; may be zx itself
// h      (B, H)   out
// c      (B, H)   out
// Moves 8 + 1 + 4 + 2 values a unit: both pre-activations and c_prev in, their sum, c and h out.
extern "C" __global__ void general_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* c_prev,
    const bool* alive, const REAL* keep_h, const REAL* keep_c, long long B, long long H, REAL* gates, REAL* h, ACC* c)
{
    forward(zx, zr, b_ih, b_hh, h_prev, c_prev, nullptr, alive, keep_h, keep_c, B, H, gates, h, c);
}

extern "C" __global__ void general_peephole_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* c_prev,
    const REAL* weight_ch, const bool* alive, const REAL* keep_h, const REAL* keep_c, long long B, long long H,
    REAL* gates, REAL* h, ACC* c)
{
    forward(zx, zr, b_ih, b_hh, h_prev, c_prev, weight_ch, alive, keep_h, keep_c, B, H, gates, h, c);
}

// gates  (B, 4H)  as forward left them
// h_prev (B, H)   not read
// c_prev (B, H)
// weight_ch, alive, keep_h, keep_c  as forward
// dy     (B, H)   gradient of this step's output, or null for zero
// dh     (B, H)   gradient of this step's h through the product of the step after it
// direct (B, H)   in: gradient of this step's h besides that product; out: that of h_prev; null for zero,
//                 which is enough where nothing is kept
// dz     (B, 4H)  out: gradient of the pre-activations; may be gates itself
// dc     (B, H)   in: gradient of c from the step after it; out: gradient of c_prev
// dweight_ch (B, 3H)  in and out: sums of each sequence over its steps; general_peephole_* only
// Moves 4 + 1 + 3 + 5 values a unit, and 2 * 3 for the sums.
extern "C" __global__ void general_backward(
    const REAL* gates, const REAL* h_prev, const ACC* c_prev, const bool* alive, const REAL* keep_h,
    const REAL* keep_c, const REAL* dy, const REAL* dh, REAL* direct, long long B, long long H, REAL* dz, ACC* dc)
{
    backward(gates, c_prev, nullptr, alive, keep_h, keep_c, dy, dh, direct, B, H, dz, dc, nullptr);
}

extern "C" __global__ void general_peephole_backward(
    const REAL* gates, const REAL* h_prev, const ACC* c_prev, const REAL* weight_ch, const bool* alive,
    const REAL* keep_h, const REAL* keep_c, const REAL* dy, const REAL* dh, REAL* direct, long long B, long long H,
    REAL* dz, ACC* dc, ACC* dweight_ch)
{
    backward(gates, c_prev, weight_ch, alive, keep_h, keep_c, dy, dh, direct, B, H, dz, dc, dweight_ch);
}
