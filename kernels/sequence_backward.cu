// The backward direction of a sequence of a cell (cell.cuh): the recurrent products and the gates of a step in one
// kernel.
//
// Turn m is time step T - 1 - m: the product of the step after it, of which the first turn has none, gives the gradients
// of the states, then come the gates. Turn T has the product alone, for the gradients of the first states. For an
// `inner` cell these are the turns 2 m and 2 T; turn 2 m + 1 has the inner product, and completes the gradients of step
// T - 1 - m.
//
// For cells that are not `normed`. G, S, V and K are the cell's gates, states, vectors and kept; states but h, and their
// gradients, are ACC. Arrays of T rows have a row for each time step; those of T + 1 one more, before the first or, in
// `reverse`, after the last. Grid: a block for each tile of UNITS units and ROWS sequences, units first; those of a
// launch of several turns must be on the device at once. Shared memory: WARPS * ROWS * STRIDE numbers of ACC, with the
// larger STRIDE of the two products.

#include "sequence.cuh"

struct Backward {
    Sequence of;
    const REAL *gates, *kept, *dy;
    ACC *direct, *ds, *dvectors;
    REAL *dzx, *dzr;
    Product<MULTIPLIED> outer_product;
    Product<CELL::inner ? 1 : 0> inner_product;

    struct Unit {
        ACC keep[KEEP], e[ROOM], states[STATES], dy, direct, d[STATES], dx[GATES], dr[GATES], de[ROOM], kept_h, kept_c;
    };

    __device__ inline Backward(const Sequence& of, const REAL* inner_weights, const REAL* gates, const REAL* kept,
                               const REAL* dy, ACC* direct, ACC* ds, ACC* dvectors, REAL* dzx, REAL* dzr)
        : of(of), gates(gates), kept(kept), dy(dy), direct(direct), ds(ds), dvectors(dvectors), dzx(dzx), dzr(dzr),
          outer_product(of.weights, of.unit_block(), OUTER * of.H),
          inner_product(inner_weights, of.unit_block(), INNER * of.H) {}

    __device__ inline static bool is_inner(long long turn) { return CELL::inner && turn & 1; }
    __device__ inline long long step(long long turn) const { return of.T - 1 - turn / TURNS; }
    __device__ inline REAL* place(long long turn, long long b) const {
        return of.place<OUTER, CELL::inner ? INNER : OUTER>(turn, b);
    }
    __device__ inline long long first_gate(long long n) const { return of.row(n) * of.B * GATES * of.H; }

    __device__ inline void request(long long turn, const Item& at, Unit& unit) const {
        long long n = step(turn), size = of.B * of.H;
        unit.direct = direct[at.k];
        for (int s = 1; s < STATES; ++s) unit.d[s] = ds[(s - 1) * size + at.k];
        if (n < 0) return;
        load_kept(gates + first_gate(n), kept + of.row(n) * size * BESIDES, at.b, at.j, of.H, unit.keep);
        load_unit(of.vectors, VECTORS, 0, at.j, of.H, unit.e);
        of.load_entering(n, at.b, at.k, unit.states);
        if (is_inner(turn)) {
            load_unit(dzx + first_gate(n), GATES, at.b, at.j, of.H, unit.dx);
            return;
        }
        unit.dy = dy ? load(dy[of.row(n) * size + at.k]) : 0;
        unit.kept_h = of.share_of_h(n, at.b, at.k);
        unit.kept_c = of.share_of_others(n, at.b, at.k);
    }

    __device__ inline void multiply(long long turn, ACC* shared) {
        if (turn == 0) return;
        const REAL* first = place(turn, of.slice() * ROWS);
        if (is_inner(turn)) inner_product.run(first, shared);
        else outer_product.run(first, shared);
    }

    __device__ inline void pass_on(long long turn, const Item& at, const ACC* shared, Unit& unit) const {
        if (is_inner(turn)) {
            complete(unit, inner_product.total(shared, at.row, at.unit, 0) * of.inner_factor(at.k));
        } else {
            if (turn > 0) leave(step(turn) + 1, at, shared, unit);
            if (step(turn) < 0) return;
            step_back(unit);
        }
        REAL* next = place(turn + 1, at.b);
        if (CELL::inner && !is_inner(turn))
            for (int g = 0; g < INNER; ++g) next[g * of.H + at.j] = as_factor(unit.dx[INNER_FIRST + g]);
        else
            for (int g = 0; g < OUTER; ++g) next[g * of.H + at.j] = as_factor((CELL::split ? unit.dr : unit.dx)[g]);
    }

    // From the gradients of what entered step n to those of what the step before it left.
    __device__ inline void leave(long long n, const Item& at, const ACC* shared, Unit& unit) const {
        for (int m = 0; m < MULTIPLIED; ++m) {
            ACC by_product = outer_product.total(shared, at.row, at.unit, m);
            if (source(m) == 0) unit.direct += by_product * of.factor(at.k);
            else unit.d[source(m)] += by_product;
        }
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

    // Adds what comes by way of dv, the gradient of what the inner product multiplied.
    __device__ inline static void complete(Unit& unit, ACC dv) {
        const CELL cell = make_cell();
        unit.d[0] = unit.direct;
        cell.inner_backward(unit.keep, unit.states, unit.e, dv, unit.d, unit.dx);
        if (CELL::direct) unit.direct = unit.d[0];
    }

    __device__ inline void record(long long turn, const Item& at, const Unit& unit) const {
        long long n = step(turn), size = of.B * of.H;
        direct[at.k] = unit.direct;
        for (int s = 1; s < STATES; ++s) ds[(s - 1) * size + at.k] = unit.d[s];
        if (n < 0) return;
        store_unit(unit.dx, GATES, at.b, at.j, of.H, dzx + first_gate(n));
        if (is_inner(turn)) return;
        if (CELL::split) store_unit(unit.dr, GATES, at.b, at.j, of.H, dzr + first_gate(n));
        for (int v = 0; v < VECTORS; ++v) dvectors[(at.b * VECTORS + v) * of.H + at.j] += unit.de[v];
    }
};

extern "C" __global__ void sequence_pack(const REAL* w, long long H, long long K, long long outputs, REAL* packed) {
    pack(w, H, K, (int)outputs, true, packed);
}

// All as sequence_forward left it, but for these: weights are packed for this direction, and
// exchange its two places, of whole tiles of B and whole k-steps: OUTER*H numbers of a sequence in the first, INNER*H (of
//          a cell that is not `inner`, again OUTER*H) in the second  in: zeros
// dy       (T, B, H)  gradient of h after each step, or null for zero
// direct   (B, H)     in: gradient of the last h besides dy; out: that of the first
// ds       (S-1, B, H)  the same for the other states; null where there is none
// dvectors (B, V*H)   in and out: sums of each sequence over its steps; null where there is none
// dzx      (T, B, G*H)  out: gradients of the input's pre-activations
// dzr      (T, B, G*H)  out: those of the product; null where the cell is not `split`
// No arrays overlap. Moves, beside the weights and one dz for each block, K + 2 G + 3 S + 1 values a unit and step, G
// more where the cell is `split`, 2 V for the sums, and K + 2 G + 3 S where it is `inner`.
extern "C" __global__ void __launch_bounds__(THREADS, 1) sequence_backward(
    const REAL* weights, const REAL* inner_weights, REAL* exchange, const REAL* gates, const REAL* kept, REAL* h,
    ACC* others, const REAL* vectors, const bool* alive, const bool* stays, const REAL* keep_h, const REAL* keep_c,
    const REAL* dropped, const REAL* dy, ACC* direct, ACC* ds, ACC* dvectors, REAL* dzx, REAL* dzr, long long T,
    long long B, long long H, long long reverse, long long steady_h, long long steady_c, unsigned* arrived,
    unsigned* failed, long long first, long long last)
{
    extern __shared__ ACC shared[];
    __shared__ int late;
    Sequence of = {weights, exchange, h, others, vectors, alive, stays, keep_h, keep_c, dropped, T, B, H,
                   reverse != 0, steady_h != 0, steady_c != 0};
    Backward turns(of, inner_weights, gates, kept, dy, direct, ds, dvectors, dzx, dzr);
    take_turns(turns, first, last, arrived, failed, shared, &late);
}
