// The sLSTM's gates, one time step, forward and backward: everything of a step that is not a matrix product.
//
//     m = max(log sigmoid(z_f) + m_prev, z_i), z_i where n_prev is 0          z = x W_ih' + h_prev W_hh' + b
//     i = exp(z_i - m);  f = exp(log sigmoid(z_f) + m_prev - m);  z = tanh(z_z);  o = sigmoid(z_o)
//     c = f * c_prev + i * z;  n = f * n_prev + i
//     h = o * c / n                                                           Beck et al. 2024, eq. 8-17
//
// The arithmetic is that of gpulstm/cells/slstm.py under the same names; why m begins with z_i, and why n needs no
// guard, stands there. One thread serves one unit of one sequence; rows lie side by side in the order i, f, z, o.
// States but h, and their gradients, are ACC, everything else is stored as REAL. What a step keeps for the
// backward pass are the pre-activations: i and f may be too small for a half type. Forward takes them as they are
// stored, so that both passes have the same c and n, on which it rests that gradients through m cancel.

#include "common.cuh"

#define LARGEST 8  // of log f

__device__ inline float log1p_(float x) { return log1pf(x); }
__device__ inline double log1p_(double x) { return log1p(x); }

// One unit's step.
struct Step {
    ACC i, f, z, o, c, n, m, mean;
    ACC slope;    // of log sigmoid(z_f)
    bool from_i;  // m is z_i
    bool free;    // f is not cut at LARGEST
};

__device__ inline Step step_of(ACC z_i, ACC z_f, ACC z_z, ACC z_o, ACC c_prev, ACC n_prev, ACC m_prev) {
    Step s;
    ACC log_sigmoid = (z_f < 0 ? z_f : 0) - log1p_(exp_(z_f < 0 ? z_f : -z_f));
    ACC log_old = log_sigmoid + m_prev;
    s.from_i = n_prev == 0 || z_i >= log_old;
    s.m = s.from_i ? z_i : log_old;
    s.free = log_old - s.m <= LARGEST;
    s.i = exp_(z_i - s.m);
    s.f = exp_(s.free ? log_old - s.m : LARGEST);
    s.z = tanh_(z_z);
    s.o = sigmoid(z_o);
    s.c = s.f * c_prev + s.i * s.z;
    s.n = s.f * n_prev + s.i;
    s.mean = s.c / s.n;
    s.slope = sigmoid(-z_f);
    return s;
}

// zx     (B, 4H)  pre-activations from the input, x_t W_ih', without biases
// zr     (B, 4H)  pre-activations from the state, h_prev W_hh', without biases
// b_ih   (4H)     bias of the input part, or null for zero
// b_hh   (4H)     bias of the recurrent part, or null for zero
// h_prev (B, H)   null where the caller keeps h itself (projection)
// c_prev, n_prev, m_prev  (B, H)
// alive  (B)      or null where every sequence is; one that is not keeps its states
// keep_h (B, H)   share of h that every unit keeps (zoneout), or null for none
// keep_c (B, H)   the same for c, n and m
// gates  (B, 4H)  out: the pre-activations z_i, z_f, z_z, z_o for the backward pass; may be zx itself
// h      (B, H)   out
// c, n, m (B, H)  out
// Moves 8 + 3 + 4 + 4 values a unit: both pre-activations and the states in, their sum and the states out.
extern "C" __global__ void slstm_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* c_prev,
    const ACC* n_prev, const ACC* m_prev, const bool* alive, const REAL* keep_h, const REAL* keep_c, long long B,
    long long H, REAL* gates, REAL* h, ACC* c, ACC* n, ACC* m)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        REAL z_i = store(pre_activation(zx, zr, b_ih, b_hh, b, j, 4 * H));
        REAL z_f = store(pre_activation(zx, zr, b_ih, b_hh, b, H + j, 4 * H));
        REAL z_z = store(pre_activation(zx, zr, b_ih, b_hh, b, 2 * H + j, 4 * H));
        REAL z_o = store(pre_activation(zx, zr, b_ih, b_hh, b, 3 * H + j, 4 * H));
        Step s = step_of(load(z_i), load(z_f), load(z_z), load(z_o), c_prev[k], n_prev[k], m_prev[k]);
        REAL* gate = gates + b * 4 * H + j;
        gate[0] = z_i;
        gate[H] = z_f;
        gate[2 * H] = z_z;
        gate[3 * H] = z_o;
        ACC kept_c = share_kept(alive, keep_c, b, k);
        c[k] = mixed(kept_c, c_prev[k], s.c);
        n[k] = mixed(kept_c, n_prev[k], s.n);
        m[k] = mixed(kept_c, m_prev[k], s.m);
        h[k] = store(mixed(share_kept(alive, keep_h, b, k), h_prev ? load(h_prev[k]) : 0, s.o * s.mean));
    }
}

// gates  (B, 4H)  as forward left them
// h_prev (B, H)   not read
// c_prev, n_prev, m_prev  (B, H)
// alive, keep_h, keep_c   as forward
// dy     (B, H)   gradient of this step's output, or null for zero
// dh     (B, H)   gradient of this step's h through the product of the step after it
// direct (B, H)   in: gradient of this step's h besides that product; out: that of h_prev; null for zero,
//                 which is enough where nothing is kept
// dz     (B, 4H)  out: gradient of the pre-activations; may be gates itself
// dc, dn, dm (B, H)  in: gradients of the states from the step after it; out: those of the states before
// Moves 4 + 3 + 4 + 7 values a unit.
extern "C" __global__ void slstm_backward(
    const REAL* gates, const REAL* h_prev, const ACC* c_prev, const ACC* n_prev, const ACC* m_prev, const bool* alive,
    const REAL* keep_h, const REAL* keep_c, const REAL* dy, const REAL* dh, REAL* direct, long long B, long long H,
    REAL* dz, ACC* dc, ACC* dn, ACC* dm)
{
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        const REAL* gate = gates + b * 4 * H + j;
        REAL* dgate = dz + b * 4 * H + j;
        Step s = step_of(
            load(gate[0]), load(gate[H]), load(gate[2 * H]), load(gate[3 * H]), c_prev[k], n_prev[k], m_prev[k]);
        ACC kept_h = share_kept(alive, keep_h, b, k), kept_c = share_kept(alive, keep_c, b, k);
        ACC dh_all = load(dh[k]) + (dy ? load(dy[k]) : 0) + (direct ? load(direct[k]) : 0);
        ACC dh_new = (1 - kept_h) * dh_all;
        if (direct) direct[k] = store(kept_h * dh_all);
        ACC dmean = dh_new * s.o / s.n;
        ACC dc_new = (1 - kept_c) * dc[k] + dmean;
        ACC dn_new = (1 - kept_c) * dn[k] - dmean * s.mean;
        ACC dlog_i = (dc_new * s.z + dn_new) * s.i;
        ACC dlog_f = s.free ? (dc_new * c_prev[k] + dn_new * n_prev[k]) * s.f : 0;
        ACC dm_new = (1 - kept_c) * dm[k] - dlog_i - dlog_f;  // what reaches the maximum
        ACC dlog_old = dlog_f + (s.from_i ? 0 : dm_new);
        dgate[0] = store(dlog_i + (s.from_i ? dm_new : 0));
        dgate[H] = store(dlog_old * s.slope);
        dgate[2 * H] = store(dc_new * s.i * (1 - s.z * s.z));
        dgate[3 * H] = store(dh_new * s.mean * s.o * (1 - s.o));
        dc[k] = kept_c * dc[k] + dc_new * s.f;
        dn[k] = kept_c * dn[k] + dn_new * s.f;
        dm[k] = kept_c * dm[k] + dlog_old;
    }
}
