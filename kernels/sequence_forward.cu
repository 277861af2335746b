// The forward direction of a sequence of a cell (cell.cuh): the recurrent product and the gates of a step in one
// kernel.
//
// Turn n is time step n: the product of the states before it, then the gates.
//
// For cells whose step is one product with h: not `inner`, not `normed`. G, S, V and K are the cell's gates, states,
// vectors and kept; states but h, and their gradients, are ACC. Arrays of T rows have a row for each time step; those
// of T + 1 one more, before the first or, in `reverse`, after the last. Grid: a block for each tile of UNITS units and
// ROWS sequences, units first; those of a launch of several turns must be on the device at once. Shared memory: WARPS *
// ROWS * Product<GATES>::STRIDE numbers of ACC.

#include "sequence.cuh"

struct Forward {
    Sequence of;
    REAL *gates, *kept;
    const REAL *b_ih, *b_hh;
    Product<GATES> product;

    struct Unit {
        ACC x[GATES], r[GATES], e[ROOM], states[STATES], keep[KEEP], kept_h, kept_c;
    };

    __device__ inline Forward(const Sequence& of, REAL* gates, REAL* kept, const REAL* b_ih, const REAL* b_hh)
        : of(of), gates(gates), kept(kept), b_ih(b_ih), b_hh(b_hh), product(of.weights, of.unit_block(), of.H) {}

    __device__ inline REAL* gates_of(long long n) const { return gates + of.row(n) * of.B * GATES * of.H; }
    __device__ inline REAL* kept_of(long long n) const { return kept + of.row(n) * of.B * BESIDES * of.H; }

    __device__ inline void request(long long n, const Item& at, Unit& unit) const {
        load_pre_activations(gates_of(n), b_ih, at.b, at.j, of.H, unit.x);
        for (int g = 0; g < GATES; ++g) unit.r[g] = b_hh ? load(b_hh[g * of.H + at.j]) : 0;
        load_unit(of.vectors, VECTORS, 0, at.j, of.H, unit.e);
        of.load_entering(n, at.b, at.k, unit.states);
        unit.kept_h = of.share_of_h(n, at.b, at.k);
        unit.kept_c = of.share_of_others(n, at.b, at.k);
    }

    __device__ inline void multiply(long long n, ACC* shared) {
        product.run(of.place(n, of.H, of.slice() * ROWS), shared);
    }

    __device__ inline void pass_on(long long n, const Item& at, const ACC* shared, Unit& unit) const {
        const CELL cell = make_cell();
        ACC fresh[STATES];
        for (int g = 0; g < GATES; ++g) unit.r[g] += product.total(shared, at.row, at.unit, g);
        cell.forward(unit.x, unit.r, unit.states, unit.e, fresh, unit.keep);
        unit.states[0] = load(store(mixed(unit.kept_h, unit.states[0], fresh[0])));
        for (int s = 1; s < STATES; ++s) unit.states[s] = mixed(unit.kept_c, unit.states[s], fresh[s]);
        if (n + 1 == of.T) return;
        ACC next = of.enters(n + 1, at.b) ? unit.states[0] * of.factor(at.k) : 0;
        of.place(n + 1, of.H, at.b)[at.j] = as_factor(next);
    }

    __device__ inline void record(long long n, const Item& at, const Unit& unit) const {
        long long size = of.B * of.H, t = of.after(n);
        store_kept(unit.keep, at.b, at.j, of.H, gates_of(n), kept_of(n));
        of.h[t * size + at.k] = store(unit.states[0]);
        for (int s = 1; s < STATES; ++s) of.others[(t * (STATES - 1) + s - 1) * size + at.k] = unit.states[s];
    }
};

extern "C" __global__ void sequence_pack(const REAL* w, long long H, REAL* packed) { pack<GATES>(w, H, false, packed); }

// What the first product takes: h0 as it enters step 0.
// h0        (B, H)
// stays     (B)     the first step's, or null
// dropped   (B, H)  or null
// exchange  in: zeros; out: its first place
extern "C" __global__ void sequence_begin(
    const REAL* h0, const bool* stays, const REAL* dropped, long long B, long long H, REAL* exchange)
{
    FOR_EACH(k, B * H) {
        long long b = k / H;
        ACC h = load(h0[k]) * (dropped ? load(dropped[k]) : 1);
        exchange[b * k_steps_of(H) * DEPTH + k % H] = as_factor(!stays || stays[b] ? h : 0);
    }
}

// weights  as sequence_pack leaves them
// exchange (2, whole tiles of B, whole k-steps of H)  between launches: as sequence_begin and the last one left it
// gates    (T, B, G*H)  in: the input's pre-activations without biases; out: the first G numbers kept
// kept     (T, B, (K-G)*H)  out: the others; null where there is none
// h        (T + 1, B, H)    in: the first states; out: the rest
// others   (T + 1, S-1, B, H)  likewise; null where there is none
// b_ih, b_hh  (G*H)  or null for zero
// vectors  (V*H)    null where there is none
// alive    (T, B)   or null where every sequence is; one that is not keeps its states
// stays    (T, B)   or null for true; where it is not the states that enter the step are zero
// keep_h   (T, B, H), or (1, B, H) where steady_h is 1: share of h that every unit keeps (zoneout); null for none
// keep_c   the same, with steady_c, for the other states
// dropped  (B, H)   factors of h in its product (dropout), or null for one
// No arrays overlap. Moves, beside the weights and one h for each block, G + K + 2 S + 1 values a unit and step.
extern "C" __global__ void __launch_bounds__(THREADS, 1) sequence_forward(
    const REAL* weights, REAL* exchange, REAL* gates, REAL* kept, REAL* h, ACC* others, const REAL* b_ih,
    const REAL* b_hh, const REAL* vectors, const bool* alive, const bool* stays, const REAL* keep_h,
    const REAL* keep_c, const REAL* dropped, long long T, long long B, long long H, long long reverse,
    long long steady_h, long long steady_c, unsigned* arrived, unsigned* failed, long long first, long long last)
{
    extern __shared__ ACC shared[];
    __shared__ int late;
    Sequence of = {weights, exchange, h, others, vectors, alive, stays, keep_h, keep_c, dropped, T, B, H,
                   reverse != 0, steady_h != 0, steady_c != 0};
    Forward turns(of, gates, kept, b_ih, b_hh);
    take_turns(turns, first, last, arrived, failed, shared, &late);
}
