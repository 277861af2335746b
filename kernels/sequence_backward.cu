// The backward direction of a sequence of a cell (cell.cuh): the recurrent product and the gates of a step in one
// kernel.
//
// Turn m is time step T - 1 - m: the product of the step after it, of which the first turn has none, gives the gradient
// of h, then come the gates. Turn T has the product alone, for the gradient of the first h.
//
// For cells whose step is one product with h: not `inner`, not `normed`. G, S, V and K are the cell's gates, states,
// vectors and kept; states but h, and their gradients, are ACC. Arrays of T rows have a row for each time step; those
// of T + 1 one more, before the first or, in `reverse`, after the last. Grid: a block for each tile of UNITS units and
// ROWS sequences, units first; those of a launch of several turns must be on the device at once. Shared memory: WARPS *
// ROWS * Product<1>::STRIDE numbers of ACC.

#include "sequence.cuh"

struct Backward {
    Sequence of;
    const REAL *gates, *kept, *dy;
    ACC *direct, *ds, *dvectors;
    REAL *dzx, *dzr;
    Product<1> product;

    struct Unit {
        ACC keep[KEEP], e[ROOM], states[STATES], dy, direct, d[STATES], dx[GATES], dr[GATES], de[ROOM], kept_h, kept_c;
    };

    __device__ inline Backward(const Sequence& of, const REAL* gates, const REAL* kept, const REAL* dy, ACC* direct,
                               ACC* ds, ACC* dvectors, REAL* dzx, REAL* dzr)
        : of(of), gates(gates), kept(kept), dy(dy), direct(direct), ds(ds), dvectors(dvectors), dzx(dzx), dzr(dzr),
          product(of.weights, of.unit_block(), GATES * of.H) {}

    __device__ inline long long step(long long turn) const { return of.T - 1 - turn; }
    __device__ inline long long first_gate(long long n) const { return of.row(n) * of.B * GATES * of.H; }

    __device__ inline void request(long long turn, const Item& at, Unit& unit) const {
        long long n = step(turn), size = of.B * of.H;
        unit.direct = direct[at.k];
        for (int s = 1; s < STATES; ++s) unit.d[s] = ds[(s - 1) * size + at.k];
        if (n < 0) return;
        load_kept(gates + first_gate(n), kept + of.row(n) * size * BESIDES, at.b, at.j, of.H, unit.keep);
        load_unit(of.vectors, VECTORS, 0, at.j, of.H, unit.e);
        of.load_entering(n, at.b, at.k, unit.states);
        unit.dy = dy ? load(dy[of.row(n) * size + at.k]) : 0;
        unit.kept_h = of.share_of_h(n, at.b, at.k);
        unit.kept_c = of.share_of_others(n, at.b, at.k);
    }

    __device__ inline void multiply(long long turn, ACC* shared) {
        if (turn > 0) product.run(of.place(turn, GATES * of.H, of.slice() * ROWS), shared);
    }

    __device__ inline void pass_on(long long turn, const Item& at, const ACC* shared, Unit& unit) const {
        long long n = step(turn);
        if (turn > 0) leave(unit, n + 1, at, product.total(shared, at.row, at.unit, 0));
        if (n < 0) return;
        step_back(unit);
        REAL* next = of.place(turn + 1, GATES * of.H, at.b);
        for (int g = 0; g < GATES; ++g) next[g * of.H + at.j] = as_factor((CELL::split ? unit.dr : unit.dx)[g]);
    }

    // From the gradients of what entered step n to those of what the step before it left.
    __device__ inline void leave(Unit& unit, long long n, const Item& at, ACC by_product) const {
        unit.direct += by_product * of.factor(at.k);
        if (of.enters(n, at.b)) return;
        unit.direct = 0;
        for (int s = 1; s < STATES; ++s) unit.d[s] = 0;
    }

    // From the gradients of the states after a step to those of its pre-activations and of the states before it.
    __device__ inline static void step_back(Unit& unit) {
        const CELL cell = make_cell();
        ACC dh = unit.direct + unit.dy, after[STATES];
        for (int s = 1; s < STATES; ++s) after[s] = unit.d[s];
        unit.d[0] = (1 - unit.kept_h) * dh;
        for (int s = 1; s < STATES; ++s) unit.d[s] = (1 - unit.kept_c) * after[s];
        cell.backward(unit.keep, unit.states, unit.e, unit.d, unit.dx, unit.dr, unit.de);
        unit.direct = unit.kept_h * dh + (CELL::direct ? unit.d[0] : 0);
        for (int s = 1; s < STATES; ++s) unit.d[s] += unit.kept_c * after[s];
    }

    __device__ inline void record(long long turn, const Item& at, const Unit& unit) const {
        long long n = step(turn), size = of.B * of.H;
        direct[at.k] = unit.direct;
        for (int s = 1; s < STATES; ++s) ds[(s - 1) * size + at.k] = unit.d[s];
        if (n < 0) return;
        store_unit(unit.dx, GATES, at.b, at.j, of.H, dzx + first_gate(n));
        if (CELL::split) store_unit(unit.dr, GATES, at.b, at.j, of.H, dzr + first_gate(n));
        for (int v = 0; v < VECTORS; ++v) dvectors[(at.b * VECTORS + v) * of.H + at.j] += unit.de[v];
    }
};

extern "C" __global__ void sequence_pack(const REAL* w, long long H, REAL* packed) { pack<1>(w, H, true, packed); }

// All as sequence_forward left it, but for two: weights are packed for this direction, and
// exchange (2, whole tiles of B, whole k-steps of G*H)  in: zeros
// dy       (T, B, H)  gradient of h after each step, or null for zero
// direct   (B, H)     in: gradient of the last h besides dy; out: that of the first
// ds       (S-1, B, H)  the same for the other states; null where there is none
// dvectors (B, V*H)   in and out: sums of each sequence over its steps; null where there is none
// dzx      (T, B, G*H)  out: gradients of the input's pre-activations
// dzr      (T, B, G*H)  out: those of the product; null where the cell is not `split`
// No arrays overlap. Moves, beside the weights and one dz for each block, K + 2 G + 3 S + 1 values a unit and step, G
// more where the cell is `split`, 2 V for the sums.
extern "C" __global__ void __launch_bounds__(THREADS, 1) sequence_backward(
    const REAL* weights, REAL* exchange, const REAL* gates, const REAL* kept, REAL* h, ACC* others,
    const REAL* vectors, const bool* alive, const bool* stays, const REAL* keep_h, const REAL* keep_c,
    const REAL* dropped, const REAL* dy, ACC* direct, ACC* ds, ACC* dvectors, REAL* dzx, REAL* dzr, long long T,
    long long B, long long H, long long reverse, long long steady_h, long long steady_c, unsigned* arrived,
    unsigned* failed, long long first, long long last)
{
    extern __shared__ ACC shared[];
    __shared__ int late;
    Sequence of = {weights, exchange, h, others, vectors, alive, stays, keep_h, keep_c, dropped, T, B, H,
                   reverse != 0, steady_h != 0, steady_c != 0};
    Backward turns(of, gates, kept, dy, direct, ds, dvectors, dzx, dzr);
    take_turns(turns, first, last, arrived, failed, shared, &late);
}
