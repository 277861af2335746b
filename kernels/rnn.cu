// The simple recurrent network's unit, one time step, forward and backward: everything that is not a matrix product.
//
//     h = activation(z)                     z = x W_ih' + h_prev W_hh' + b                            Elman 1990
//
// The arithmetic is that of gpulstm/cells/rnn.py under the same names. One thread serves one unit of one sequence;
// everything is stored as REAL.

#include "activation.cuh"

#ifndef ACT_F
#define ACT_F TANH, 0, 0, 0
#endif

// zx     (B, H)   pre-activations from the input, x_t W_ih', without biases
// zr     (B, H)   pre-activations from the state, h_prev W_hh', without biases
// b_ih   (H)      bias of the input part, or null for zero
// b_hh   (H)      bias of the recurrent part, or null for zero
// h_prev (B, H)   null where the caller keeps h itself (projection)
// alive  (B)      or null where every sequence is; one that is not keeps its state
// keep_h (B, H)   share of h that every unit keeps (zoneout), or null for none
// gates  (B, H)   out: z for the backward pass; may be zx itself
// h      (B, H)   out
// Moves 2 + 2 values a unit: both pre-activations in, z and h out; h_prev where something is kept.
extern "C" __global__ void rnn_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const bool* alive,
    const REAL* keep_h, long long B, long long H, REAL* gates, REAL* h)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        ACC z = pre_activation(zx, zr, b_ih, b_hh, b, j, H);
        gates[k] = store(z);
        h[k] = store(mixed(share_kept(alive, keep_h, b, k), h_prev ? load(h_prev[k]) : 0, activate(ACT_F, z)));
    }
}

// gates  (B, H)   z, as forward left it
// h_prev (B, H)   not read
// alive, keep_h   as forward
// dy     (B, H)   gradient of this step's output, or null for zero
// dh     (B, H)   gradient of this step's h through the product of the step after it
// direct (B, H)   in: gradient of this step's h besides that product; out: that of h_prev; null for zero,
//                 which is enough where nothing is kept
// dz     (B, H)   out: gradient of the pre-activations; may be gates itself
// Moves 3 + 1 values a unit.
extern "C" __global__ void rnn_backward(
    const REAL* gates, const REAL* h_prev, const bool* alive, const REAL* keep_h, const REAL* dy, const REAL* dh,
    REAL* direct, long long B, long long H, REAL* dz)
{
    FOR_EACH(k, B * H) {
        ACC kept_h = share_kept(alive, keep_h, k / H, k);
        ACC dh_all = load(dh[k]) + (dy ? load(dy[k]) : 0) + (direct ? load(direct[k]) : 0);
        if (direct) direct[k] = store(kept_h * dh_all);
        dz[k] = store((1 - kept_h) * dh_all * slope(ACT_F, load(gates[k])));
    }
}
