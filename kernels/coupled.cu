// The gates of the LSTM with coupled gates, one time step, forward and backward: everything that is not a product.
//
//     f, o = sigmoid(z_f), sigmoid(z_o);  g = tanh(z_g)                       z = x W_ih' + h_prev W_hh' + b
//     c = f * c_prev + (1 - f) * g
//     h = o * tanh(c)                                                         Greff et al. 2017, CIFG
//
// The arithmetic is that of gpulstm/cells/coupled.py under the same names. One thread serves one unit of one
// sequence; gates lie side by side in a row in the order f, g, o. c and its gradient are ACC, everything else is
// stored as REAL.

#include "common.cuh"

// zx     (B, 3H)  pre-activations from the input, x_t W_ih', without biases
// zr     (B, 3H)  pre-activations from the state, h_prev W_hh', without biases
// b_ih   (3H)     bias of the input part, or null for zero
// b_hh   (3H)     bias of the recurrent part, or null for zero
// h_prev (B, H)   null where the caller keeps h itself (projection)
// c_prev (B, H)
// alive  (B)      or null where every sequence is; one that is not keeps its states
// keep_h (B, H)   share of h that every unit keeps (zoneout), or null for none
// keep_c (B, H)   the same for c
// gates  (B, 3H)  out: f, g, o for the backward pass; may be zx itself
// h      (B, H)   out
// c      (B, H)   out
// Moves 6 + 1 + 3 + 2 values a unit: both pre-activations and c_prev in, gates, c and h out.
extern "C" __global__ void coupled_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* c_prev,
    const bool* alive, const REAL* keep_h, const REAL* keep_c, long long B, long long H, REAL* gates, REAL* h, ACC* c)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        ACC f = sigmoid(pre_activation(zx, zr, b_ih, b_hh, b, j, 3 * H));
        ACC g = tanh_(pre_activation(zx, zr, b_ih, b_hh, b, H + j, 3 * H));
        ACC o = sigmoid(pre_activation(zx, zr, b_ih, b_hh, b, 2 * H + j, 3 * H));
        ACC c_new = f * c_prev[k] + (1 - f) * g;
        ACC h_new = o * tanh_(c_new);
        REAL* gate = gates + b * 3 * H + j;
        gate[0] = store(f);
        gate[H] = store(g);
        gate[2 * H] = store(o);
        c[k] = mixed(share_kept(alive, keep_c, b, k), c_prev[k], c_new);
        h[k] = store(mixed(share_kept(alive, keep_h, b, k), h_prev ? load(h_prev[k]) : 0, h_new));
    }
}

// gates  (B, 3H)  as forward left them
// h_prev (B, H)   not read
// c_prev (B, H)
// alive, keep_h, keep_c  as forward
// dy     (B, H)   gradient of this step's output, or null for zero
// dh     (B, H)   gradient of this step's h through the product of the step after it
// direct (B, H)   in: gradient of this step's h besides that product; out: that of h_prev; null for zero,
//                 which is enough where nothing is kept
// dz     (B, 3H)  out: gradient of the pre-activations; may be gates itself
// dc     (B, H)   in: gradient of c from the step after it; out: gradient of c_prev
// Moves 3 + 1 + 3 + 4 values a unit.
extern "C" __global__ void coupled_backward(
    const REAL* gates, const REAL* h_prev, const ACC* c_prev, const bool* alive, const REAL* keep_h,
    const REAL* keep_c, const REAL* dy, const REAL* dh, REAL* direct, long long B, long long H, REAL* dz, ACC* dc)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        const REAL* gate = gates + b * 3 * H + j;
        REAL* dgate = dz + b * 3 * H + j;
        ACC f = load(gate[0]), g = load(gate[H]), o = load(gate[2 * H]);
        ACC kept_h = share_kept(alive, keep_h, b, k), kept_c = share_kept(alive, keep_c, b, k);
        ACC tanh_c = tanh_(f * c_prev[k] + (1 - f) * g);
        ACC dh_all = load(dh[k]) + (dy ? load(dy[k]) : 0) + (direct ? load(direct[k]) : 0);
        ACC dh_new = (1 - kept_h) * dh_all;
        ACC dc_new = (1 - kept_c) * dc[k] + dh_new * o * (1 - tanh_c * tanh_c);
        if (direct) direct[k] = store(kept_h * dh_all);
        dgate[0] = store(dc_new * (c_prev[k] - g) * f * (1 - f));
        dgate[H] = store(dc_new * (1 - f) * (1 - g * g));
        dgate[2 * H] = store(dh_new * tanh_c * o * (1 - o));
        dc[k] = kept_c * dc[k] + dc_new * f;
    }
}
