// The LSTM's gates, one time step, forward and backward: everything of a step that is not a matrix product.
//
//     i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o);  g = tanh(z_g)      z = x W_ih' + h_prev W_hh' + b
//     c = f * c_prev + i * g
//     h = o * tanh(c)                       Hochreiter & Schmidhuber 1997 with the forget gate of Gers 2000
//
// The arithmetic is that of gpulstm/cells/lstm.py under the same names. One thread serves one unit of one
// sequence; gates lie side by side in a row in the order i, f, g, o. A sequence whose length has passed keeps
// its state. Cell states and their gradients are ACC, everything else is stored as REAL.

#include "common.cuh"

// One pre-activation: element (b, row) of zx and zr, with the biases there are.
__device__ inline ACC pre_activation(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, long long b, long long row, long long H)
{
    long long at = b * 4 * H + row;
    return load(zx[at]) + load(zr[at]) + (b_ih ? load(b_ih[row]) : 0) + (b_hh ? load(b_hh[row]) : 0);
}

// zx     (B, 4H)  pre-activations from the input, x_t W_ih', without biases
// zr     (B, 4H)  pre-activations from the state, h_prev W_hh', without biases
// b_ih   (4H)     bias of the input part, or null for zero
// b_hh   (4H)     bias of the recurrent part, or null for zero
// h_prev (B, H)   what an ended sequence keeps; null where the caller keeps it itself (projection): h is 0 then
// c_prev (B, H)
// lengths (B)     or null where every sequence lasts to the end; sequence b has ended when t >= lengths[b]
// gates  (B, 4H)  out: i, f, g, o for the backward pass; may be zx itself; not written for ended sequences
// h      (B, H)   out
// c      (B, H)   out
// Moves 8 + 1 + 4 + 2 values a unit: both pre-activations and c_prev in, gates, c and h out.
extern "C" __global__ void lstm_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* c_prev,
    const long long* lengths, long long t, long long B, long long H, REAL* gates, REAL* h, ACC* c)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        if (lengths && t >= lengths[b]) {
            h[k] = h_prev ? h_prev[k] : store(0);
            c[k] = c_prev[k];
            continue;
        }
        ACC i = sigmoid(pre_activation(zx, zr, b_ih, b_hh, b, j, H));
        ACC f = sigmoid(pre_activation(zx, zr, b_ih, b_hh, b, H + j, H));
        ACC g = tanh_(pre_activation(zx, zr, b_ih, b_hh, b, 2 * H + j, H));
        ACC o = sigmoid(pre_activation(zx, zr, b_ih, b_hh, b, 3 * H + j, H));
        ACC c_new = f * c_prev[k] + i * g;
        REAL* gate = gates + b * 4 * H + j;
        gate[0] = store(i);
        gate[H] = store(f);
        gate[2 * H] = store(g);
        gate[3 * H] = store(o);
        c[k] = c_new;
        h[k] = store(o * tanh_(c_new));
    }
}

// gates  (B, 4H)  as forward left them
// c_prev (B, H)
// c      (B, H)
// dy     (B, H)   gradient of this step's output, or null for zero; an ended sequence gave no output
// dh     (B, H)   gradient of this step's h from the step after it
// held   (B, H)   in and out: gradient of h that ended sequences pass back unused; null without lengths
// lengths (B)     as forward
// dz     (B, 4H)  out: gradient of the pre-activations, 0 for ended sequences; may be gates itself
// dc     (B, H)   in: gradient of c from the step after it; out: gradient of c_prev
// Moves 4 + 2 + 3 + 5 values a unit.
extern "C" __global__ void lstm_backward(
    const REAL* gates, const ACC* c_prev, const ACC* c, const REAL* dy, const REAL* dh, REAL* held,
    const long long* lengths, long long t, long long B, long long H, REAL* dz, ACC* dc)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        const REAL* gate = gates + b * 4 * H + j;
        REAL* dgate = dz + b * 4 * H + j;
        if (lengths && t >= lengths[b]) {
            for (int n = 0; n < 4; ++n) dgate[n * H] = store(0);
            if (held) held[k] = store(load(held[k]) + load(dh[k]));
            continue;
        }
        ACC i = load(gate[0]), f = load(gate[H]), g = load(gate[2 * H]), o = load(gate[3 * H]);
        ACC tanh_c = tanh_(c[k]);
        ACC dh_all = load(dh[k]) + (dy ? load(dy[k]) : 0) + (held ? load(held[k]) : 0);
        ACC dc_all = dc[k] + dh_all * o * (1 - tanh_c * tanh_c);
        if (held) held[k] = store(0);  // the sequence is under way: from here on the products carry it
        dgate[0] = store(dc_all * g * i * (1 - i));
        dgate[H] = store(dc_all * c_prev[k] * f * (1 - f));
        dgate[2 * H] = store(dc_all * i * (1 - g * g));
        dgate[3 * H] = store(dh_all * tanh_c * o * (1 - o));
        dc[k] = dc_all * f;
    }
}
