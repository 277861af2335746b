// One time step of a cell (cell.cuh), forward and backward: everything but the matrix products.
//
// One thread computes one unit of one sequence. This file has what is the same for every cell: the layout of the
// arrays, the biases, sequences that are not alive, and zoneout. The states other than h, their gradients, and the
// gradients of the vectors are stored as ACC, everything else as REAL. G, S, V and K are the cell's numbers of gates,
// states, vectors and kept values. step_inner and step_inner_backward are launched only for an `inner` cell.
// step_rows.cu has the kernels of cells with norms.

#include "step.cuh"

// zx      (B, G*H)  pre-activations from the input, x_t W_ih', without biases
// zr      (B, G*H)  pre-activations from the states, h_prev W_hh' and the cell's other products, without biases
// b_ih    (G*H)     bias of the input part, or null for zero
// b_hh    (G*H)     bias of the recurrent part, or null for zero
// h_prev  (B, H)    h before the step; null if the caller itself keeps shares of h (projection)
// before  (S-1, B, H)  the other states before the step; null if there are none
// vectors (V*H)     the cell's parameters that are vectors; null if there are none
// alive   (B)       null if every sequence is alive; a sequence that is not alive keeps its states
// keep_h  (B, H)    share of the old h that every unit keeps (zoneout), or null for none
// keep_c  (B, H)    the same for the other states
// gates   (B, G*H)  out: the first G numbers kept for the backward pass; may be zx itself
// kept    (B, (K-G)*H)  out: the other kept numbers; null if there are none
// h       (B, H)    out
// after   (S-1, B, H)  out: the other states; null if there are none
// Moves 2 G + S - 1 + K + S values a unit: it reads both pre-activations and the states but h, and writes the kept
// values and the states. It also reads h_prev if the cell does or if a share of it is kept. Vectors and biases come
// from the cache.
extern "C" __global__ void step_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* before,
    const REAL* vectors, const bool* alive, const REAL* keep_h, const REAL* keep_c, long long B, long long H,
    REAL* gates, REAL* kept, REAL* h, ACC* after)
{
    const CELL cell = make_cell();
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        ACC x[GATES], r[GATES], e[ROOM], old[STATES], fresh[STATES], keep[KEEP];
        load_pre_activations(zx, b_ih, b, j, H, x);
        load_pre_activations(zr, b_hh, b, j, H, r);
        load_unit(vectors, VECTORS, 0, j, H, e);
        load_states(h_prev, before, k, B * H, old);
        cell.forward(x, r, old, e, fresh, keep);
        store_kept(keep, b, j, H, gates, kept);
        ACC kept_h = share_kept(alive, keep_h, b, k), kept_c = share_kept(alive, keep_c, b, k);
        h[k] = store(mixed(kept_h, old[0], fresh[0]));
        for (int s = 1; s < STATES; ++s) after[(s - 1) * B * H + k] = mixed(kept_c, old[s], fresh[s]);
    }
}

// gates, kept       as forward left them
// h_prev, before, vectors, alive, keep_h, keep_c  as forward
// dy      (B, H)    gradient of this step's output, or null for zero
// dh      (B, H)    gradient of this step's h through the product of the step after it
// direct  (B, H)    in: the rest of the gradient of this step's h; out: the gradient of h_prev without its product. It
//                   may be null for zero if nothing is kept and the cell is not `direct`
// dzx     (B, G*H)  out: gradient of zx; may be gates itself unless the cell is `inner`
// dzr     (B, G*H)  out: gradient of zr; null if the cell is not `split`
// ds      (S-1, B, H)  in: gradients of the other states after this step; out: those of the states before it
// dvectors (B, V*H) in and out: sums for each sequence over its steps; null if there are no vectors
// Moves K + S + 1 + G + S values a unit, G more if the cell is `split`, 2 V for the sums.
extern "C" __global__ void step_backward(
    const REAL* gates, const REAL* kept, const REAL* h_prev, const ACC* before, const REAL* vectors,
    const bool* alive, const REAL* keep_h, const REAL* keep_c, const REAL* dy, const REAL* dh, REAL* direct,
    long long B, long long H, REAL* dzx, REAL* dzr, ACC* ds, ACC* dvectors)
{
    const CELL cell = make_cell();
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        ACC keep[KEEP], e[ROOM], old[STATES], d[STATES], dx[GATES], dr[GATES], de[ROOM];
        load_kept(gates, kept, b, j, H, keep);
        load_unit(vectors, VECTORS, 0, j, H, e);
        load_states(h_prev, before, k, B * H, old);
        ACC kept_h = share_kept(alive, keep_h, b, k), kept_c = share_kept(alive, keep_c, b, k);
        ACC dh_all = gradient_of_h(dh, dy, direct, k);
        d[0] = (1 - kept_h) * dh_all;
        for (int s = 1; s < STATES; ++s) d[s] = (1 - kept_c) * ds[(s - 1) * B * H + k];
        cell.backward(keep, old, e, d, dx, dr, de);
        store_unit(dx, GATES, b, j, H, dzx);
        if (CELL::split) store_unit(dr, GATES, b, j, H, dzr);
        if (direct) direct[k] = store(kept_h * dh_all + (CELL::direct ? d[0] : 0));
        for (int s = 1; s < STATES; ++s) {
            ACC& state = ds[(s - 1) * B * H + k];
            state = kept_c * state + d[s];
        }
        for (int n = 0; n < VECTORS; ++n) dvectors[(b * VECTORS + n) * H + j] += de[n];
    }
}

// v       (B, H)    out: the factor of the inner product; zx and zr do not change
// The other parameters are those of step_forward. The columns of zr that the inner product will fill may hold anything.
// Moves at most 2 G + S + 1 values a unit: the parts of zx, zr and the states that the cell uses.
extern "C" __global__ void step_inner(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* before,
    const REAL* vectors, long long B, long long H, REAL* v)
{
    const CELL cell = make_cell();
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        ACC x[GATES], r[GATES], e[ROOM], old[STATES];
        load_pre_activations(zx, b_ih, b, j, H, x);
        load_pre_activations(zr, b_hh, b, j, H, r);
        load_unit(vectors, VECTORS, 0, j, H, e);
        load_states(h_prev, before, k, B * H, old);
        v[k] = store(cell.inner_forward(x, r, old, e));
    }
}

// gates, kept, h_prev, before, vectors  as step_backward; gates must not be dz
// dv      (B, H)    gradient of v; zero where the sequence is not alive, since the gradient of its product is zero
// dz      (B, G*H)  in: as step_backward left it; out: the gradient of the pre-activations
// direct, ds        in and out, as step_backward left them; direct is used only if the cell is `direct`
// Moves at most K + S + 1 + 2 G + 2 S values a unit.
extern "C" __global__ void step_inner_backward(
    const REAL* gates, const REAL* kept, const REAL* h_prev, const ACC* before, const REAL* vectors, const REAL* dv,
    long long B, long long H, REAL* dz, REAL* direct, ACC* ds)
{
    static_assert(!(CELL::inner && CELL::split), "expected one gradient of both parts where there is an inner product");
    const CELL cell = make_cell();
    FOR_EACH(k, B * H) {
        long long b = k / H, j = k % H;
        ACC keep[KEEP], e[ROOM], old[STATES], d[STATES], dx[GATES];
        load_kept(gates, kept, b, j, H, keep);
        load_unit(vectors, VECTORS, 0, j, H, e);
        load_states(h_prev, before, k, B * H, old);
        load_unit(dz, GATES, b, j, H, dx);
        d[0] = CELL::direct ? load(direct[k]) : 0;
        for (int s = 1; s < STATES; ++s) d[s] = ds[(s - 1) * B * H + k];
        cell.inner_backward(keep, old, e, load(dv[k]), d, dx);
        store_unit(dx, GATES, b, j, H, dz);
        if (CELL::direct) direct[k] = store(d[0]);
        for (int s = 1; s < STATES; ++s) ds[(s - 1) * B * H + k] = d[s];
    }
}
