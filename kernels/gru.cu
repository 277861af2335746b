// The gated recurrent unit, one time step, forward and backward: everything that is not a matrix product.
//
//     r, z = f(z_r), f(z_z)                 z_r, z_z = x W_ih' + h_prev W_hh' + b
//     n = g(z_n)                            z_n = x_n + r * q, q = h_prev U_n' + b_hn      gru_*: cuDNN, PyTorch
//                                           z_n = x_n + (r * h_prev) U_n' + b_hn           gru_before_*: Cho 2014
//     h = z * h_prev + (1 - z) * n, with UPDATE_CHO (1 - z) * h_prev + z * n
//
// The product of gru_before stands between gru_before_inner, which computes r * h_prev, and gru_before_forward, and
// going back between gru_before_backward and gru_before_inner_backward.
//
// The arithmetic is that of gpulstm/cells/gru.py under the same names. One thread serves one unit of one sequence;
// gates lie side by side in a row in the order r, z, n. Everything is stored as REAL.

#include "activation.cuh"

#ifndef ACT_F  // f
#define ACT_F SIGMOID, 0, 0, 0
#endif
#ifndef ACT_G  // g
#define ACT_G TANH, 0, 0, 0
#endif
#ifndef UPDATE_CHO
#define UPDATE_CHO 0
#endif

// Element (b, row) of a product, with the bias there is.
__device__ inline ACC with_bias(const REAL* product, const REAL* bias, long long b, long long row, long long H) {
    return load(product[b * 3 * H + row]) + (bias ? load(bias[row]) : 0);
}

// The share of h_prev in h.
__device__ inline ACC old_share(ACC z) { return UPDATE_CHO ? 1 - z : z; }

// From the pre-activations of a unit: writes them for the backward pass, and returns h before any of the old one
// is kept.
__device__ inline ACC new_h(ACC z_r, ACC z_z, ACC z_n, ACC h_prev, long long H, REAL* gate) {
    gate[0] = store(z_r);
    gate[H] = store(z_z);
    gate[2 * H] = store(z_n);
    ACC old = old_share(activate(ACT_F, z_z));
    return old * h_prev + (1 - old) * activate(ACT_G, z_n);
}

// What both forms of backward begin with, for unit k: the gradients of two pre-activations; direct is written.
struct Gradients {
    ACC z_z, z_n;
};

__device__ inline Gradients update_backward(
    const REAL* gate, const REAL* h_prev, const bool* alive, const REAL* keep_h, const REAL* dy, const REAL* dh,
    REAL* direct, long long k, long long H)
{
    ACC z_z = load(gate[H]), z_n = load(gate[2 * H]);
    ACC old = old_share(activate(ACT_F, z_z)), n = activate(ACT_G, z_n);
    ACC kept_h = share_kept(alive, keep_h, k / H, k);
    ACC dh_all = load(dh[k]) + (dy ? load(dy[k]) : 0) + load(direct[k]);
    ACC dh_new = (1 - kept_h) * dh_all;
    ACC d_old = dh_new * (load(h_prev[k]) - n);
    direct[k] = store(kept_h * dh_all + dh_new * old);
    return {(UPDATE_CHO ? -d_old : d_old) * slope(ACT_F, z_z), dh_new * (1 - old) * slope(ACT_G, z_n)};
}

// zx     (B, 3H)  pre-activations from the input, x_t W_ih', without biases
// zr     (B, 3H)  pre-activations from the state, h_prev W_hh', without biases; gru_before: the last H columns are
//                 those of the inner product
// b_ih   (3H)     bias of the input part, or null for zero
// b_hh   (3H)     bias of the recurrent part, or null for zero
// h_prev (B, H)
// alive  (B)      or null where every sequence is; one that is not keeps its state
// keep_h (B, H)   share of h that every unit keeps (zoneout), or null for none
// gates  (B, 3H)  out: z_r, z_z, z_n for the backward pass; may be zx itself
// kept   (B, H)   out: q for the backward pass; gru_before has none
// h      (B, H)   out
// Moves 6 + 1 + 5 values a unit (gru_before 4 out): pre-activations and h_prev in, gates, kept and h out.
extern "C" __global__ void gru_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const bool* alive,
    const REAL* keep_h, long long B, long long H, REAL* gates, REAL* kept, REAL* h)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        ACC z_r = pre_activation(zx, zr, b_ih, b_hh, b, j, 3 * H);
        ACC z_z = pre_activation(zx, zr, b_ih, b_hh, b, H + j, 3 * H);
        ACC q = with_bias(zr, b_hh, b, 2 * H + j, H);
        ACC z_n = with_bias(zx, b_ih, b, 2 * H + j, H) + activate(ACT_F, z_r) * q;
        ACC h_new = new_h(z_r, z_z, z_n, load(h_prev[k]), H, gates + b * 3 * H + j);
        kept[k] = store(q);
        h[k] = store(mixed(share_kept(alive, keep_h, b, k), load(h_prev[k]), h_new));
    }
}

extern "C" __global__ void gru_before_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const bool* alive,
    const REAL* keep_h, long long B, long long H, REAL* gates, REAL* h)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        ACC z_r = pre_activation(zx, zr, b_ih, b_hh, b, j, 3 * H);
        ACC z_z = pre_activation(zx, zr, b_ih, b_hh, b, H + j, 3 * H);
        ACC z_n = pre_activation(zx, zr, b_ih, b_hh, b, 2 * H + j, 3 * H);
        ACC h_new = new_h(z_r, z_z, z_n, load(h_prev[k]), H, gates + b * 3 * H + j);
        h[k] = store(mixed(share_kept(alive, keep_h, b, k), load(h_prev[k]), h_new));
    }
}

// gates  (B, 3H)  z_r, z_z, z_n as forward left them
// kept   (B, H)   q as forward left it; gru_before has none
// h_prev (B, H)
// alive, keep_h   as forward
// dy     (B, H)   gradient of this step's output, or null for zero
// dh     (B, H)   gradient of this step's h through the product of the step after it
// direct (B, H)   in: gradient of this step's h besides that product; out: that of h_prev
// dzx    (B, 3H)  out: gradient of the input's pre-activations; may be gates itself
// dzr    (B, 3H)  out: gradient of the recurrent pre-activations
// Moves 3 + 1 + 1 + 3 + 7 values a unit.
extern "C" __global__ void gru_backward(
    const REAL* gates, const REAL* kept, const REAL* h_prev, const bool* alive, const REAL* keep_h, const REAL* dy,
    const REAL* dh, REAL* direct, long long B, long long H, REAL* dzx, REAL* dzr)
{
    FOR_EACH(k, B * H) {
        long long first = k / H * 3 * H + k % H;
        const REAL* gate = gates + first;
        ACC z_r = load(gate[0]);
        Gradients d = update_backward(gate, h_prev, alive, keep_h, dy, dh, direct, k, H);
        ACC dz_r = d.z_n * load(kept[k]) * slope(ACT_F, z_r);
        dzx[first] = dzr[first] = store(dz_r);
        dzx[first + H] = dzr[first + H] = store(d.z_z);
        dzx[first + 2 * H] = store(d.z_n);
        dzr[first + 2 * H] = store(d.z_n * activate(ACT_F, z_r));
    }
}

// dz     (B, 3H)  out: gradient of the pre-activations, those of r zero; not gates
// The rest as gru_backward. Leaves out what goes through r * h_prev, which gru_before_inner_backward adds.
// Moves 2 + 1 + 3 + 4 values a unit.
extern "C" __global__ void gru_before_backward(
    const REAL* gates, const REAL* h_prev, const bool* alive, const REAL* keep_h, const REAL* dy, const REAL* dh,
    REAL* direct, long long B, long long H, REAL* dz)
{
    FOR_EACH(k, B * H) {
        long long first = k / H * 3 * H + k % H;
        Gradients d = update_backward(gates + first, h_prev, alive, keep_h, dy, dh, direct, k, H);
        dz[first] = store((ACC)0);
        dz[first + H] = store(d.z_z);
        dz[first + 2 * H] = store(d.z_n);
    }
}

// v      (B, H)   out: r * h_prev, what U_n is multiplied with; zx and zr stay as they are
// The rest as gru_before_forward; only the columns of r are read. Moves 2 + 1 + 1 values a unit.
extern "C" __global__ void gru_before_inner(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, long long B, long long H,
    REAL* v)
{
    FOR_EACH(k, B * H) {
        ACC z_r = pre_activation(zx, zr, b_ih, b_hh, k / H, k % H, 3 * H);
        v[k] = store(activate(ACT_F, z_r) * load(h_prev[k]));
    }
}

// gates  (B, 3H)  as forward left them
// h_prev (B, H)
// dv     (B, H)   gradient of r * h_prev; zero where the sequence is not alive, as the gradient of z_n is
// dz     (B, 3H)  in: as gru_before_backward left it; out: with the gradient of z_r
// direct (B, H)   in and out: gradient of h_prev besides the products
// Moves 1 + 1 + 1 + 1 + 2 values a unit.
extern "C" __global__ void gru_before_inner_backward(
    const REAL* gates, const REAL* h_prev, const REAL* dv, long long B, long long H, REAL* dz, REAL* direct)
{
    FOR_EACH(k, B * H) {
        long long first = k / H * 3 * H + k % H;
        ACC z_r = load(gates[first]), d = load(dv[k]);
        dz[first] = store(d * load(h_prev[k]) * slope(ACT_F, z_r));
        direct[k] = store(load(direct[k]) + d * activate(ACT_F, z_r));
    }
}
