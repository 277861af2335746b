// The forward direction of a sequence of a cell (cell.cuh): the recurrent products and the gates of a step in one
// kernel.
//
// Turn n is time step n: the product of the states before it, then the gates. For an `inner` cell turn 2 n is that
// product and what the inner one multiplies, turn 2 n + 1 is the inner product and the gates.
//
// For cells that are not `normed`. G, S, V and K are the cell's gates, states, vectors and kept; states but h, and their
// gradients, are ACC. Arrays of T rows have a row for each time step; those of T + 1 one more, before the first or, in
// `reverse`, after the last. Grid: a block for each tile of UNITS units and ROWS sequences, units first; those of a
// launch of several turns must be on the device at once. Shared memory: WARPS * ROWS * STRIDE numbers of ACC, with the
// larger STRIDE of the two products.

#include "sequence.cuh"

struct Forward {
    Sequence of;
    REAL *gates, *kept, *inner;
    const REAL *b_ih, *b_hh;
    Product<OUTER> outer_product;
    Product<INNER> inner_product;

    struct Unit {
        ACC x[GATES], r[GATES], e[ROOM], states[STATES], keep[KEEP], kept_h, kept_c, inner;
    };

    __device__ inline Forward(const Sequence& of, const REAL* inner_weights, REAL* gates, REAL* kept, REAL* inner,
                              const REAL* b_ih, const REAL* b_hh)
        : of(of), gates(gates), kept(kept), inner(inner), b_ih(b_ih), b_hh(b_hh),
          outer_product(of.weights, of.unit_block(), MULTIPLIED * of.H),
          inner_product(inner_weights, of.unit_block(), of.H) {}

    __device__ inline static bool is_inner(long long turn) { return CELL::inner && turn & 1; }
    __device__ inline static long long step(long long turn) { return turn / TURNS; }
    __device__ inline REAL* place(long long turn, long long b) const {
        return of.place<MULTIPLIED, CELL::inner ? 1 : MULTIPLIED>(turn, b);
    }
    __device__ inline REAL* gates_of(long long n) const { return gates + of.row(n) * of.B * GATES * of.H; }
    __device__ inline REAL* kept_of(long long n) const { return kept + of.row(n) * of.B * BESIDES * of.H; }

    __device__ inline void request(long long turn, const Item& at, Unit& unit) const {
        long long n = step(turn);
        bool complete = is_inner(turn);  // the biases are in the gates
        load_pre_activations(gates_of(n), complete ? nullptr : b_ih, at.b, at.j, of.H, unit.x);
        for (int g = 0; g < GATES; ++g) unit.r[g] = b_hh && !complete ? load(b_hh[g * of.H + at.j]) : 0;
        load_unit(of.vectors, VECTORS, 0, at.j, of.H, unit.e);
        of.load_entering(n, at.b, at.k, unit.states);
        unit.kept_h = of.share_of_h(n, at.b, at.k);
        unit.kept_c = of.share_of_others(n, at.b, at.k);
    }

    __device__ inline void multiply(long long turn, ACC* shared) {
        const REAL* first = place(turn, of.slice() * ROWS);
        if (is_inner(turn)) inner_product.run(first, shared);
        else outer_product.run(first, shared);
    }

    __device__ inline void pass_on(long long turn, const Item& at, const ACC* shared, Unit& unit) const {
        if (is_inner(turn)) {
            for (int g = 0; g < INNER; ++g)
                unit.r[INNER_FIRST + g] += inner_product.total(shared, at.row, at.unit, g);
        } else {
            for (int g = 0; g < OUTER; ++g) unit.r[g] += outer_product.total(shared, at.row, at.unit, g);
        }
        if (CELL::inner && !is_inner(turn)) pass_to_inner(turn, at, unit);
        else finish(turn, at, unit);
    }

    __device__ inline void pass_to_inner(long long turn, const Item& at, Unit& unit) const {
        const CELL cell = make_cell();
        unit.inner = cell.inner_forward(unit.x, unit.r, unit.states, unit.e) * of.inner_factor(at.k);
        place(turn + 1, at.b)[at.j] = as_factor(unit.inner);
        for (int g = 0; g < GATES; ++g) unit.x[g] += unit.r[g];
    }

    __device__ inline void finish(long long turn, const Item& at, Unit& unit) const {
        const CELL cell = make_cell();
        long long n = step(turn);
        ACC fresh[STATES];
        cell.forward(unit.x, unit.r, unit.states, unit.e, fresh, unit.keep);
        unit.states[0] = load(store(mixed(unit.kept_h, unit.states[0], fresh[0])));
        for (int s = 1; s < STATES; ++s) unit.states[s] = mixed(unit.kept_c, unit.states[s], fresh[s]);
        if (n + 1 == of.T) return;
        for (int m = 0; m < MULTIPLIED; ++m) {
            ACC state = unit.states[source(m)];
            ACC next = of.enters(n + 1, at.b) ? (source(m) == 0 ? state * of.factor(at.k) : state) : 0;
            place(turn + 1, at.b)[m * of.H + at.j] = as_factor(next);
        }
    }

    __device__ inline void record(long long turn, const Item& at, const Unit& unit) const {
        long long size = of.B * of.H, n = step(turn), t = of.after(n);
        if (CELL::inner && !is_inner(turn)) {
            store_unit(unit.x, GATES, at.b, at.j, of.H, gates_of(n));
            inner[of.row(n) * size + at.k] = store(unit.inner);
            return;
        }
        store_kept(unit.keep, at.b, at.j, of.H, gates_of(n), kept_of(n));
        of.h[t * size + at.k] = store(unit.states[0]);
        for (int s = 1; s < STATES; ++s) of.others[(t * (STATES - 1) + s - 1) * size + at.k] = unit.states[s];
    }
};

extern "C" __global__ void sequence_pack(const REAL* w, long long H, long long K, long long outputs, REAL* packed) {
    pack(w, H, K, (int)outputs, false, packed);
}

// What the first product takes: the first states as they enter step 0.
// h0        (B, H)
// others0   (S-1, B, H)  null where there is none
// stays     (B)     the first step's, or null
// dropped   (B, H)  or null
// exchange  in: zeros; out: its first place
extern "C" __global__ void sequence_begin(
    const REAL* h0, const ACC* others0, const bool* stays, const REAL* dropped, long long B, long long H,
    REAL* exchange)
{
    FOR_EACH(k, B * H) {
        long long b = k / H;
        REAL* first = exchange + b * k_steps_of(MULTIPLIED * H) * DEPTH + k % H;
        for (int m = 0; m < MULTIPLIED; ++m) {
            int s = source(m);
            ACC state = s == 0 ? load(h0[k]) * (dropped ? load(dropped[k]) : 1) : others0[(s - 1) * B * H + k];
            first[m * H] = as_factor(!stays || stays[b] ? state : 0);
        }
    }
}

// weights  of the outer product, as sequence_pack leaves them
// inner_weights  likewise; null where the cell is not `inner`
// exchange  its two places, of whole tiles of B and whole k-steps  between launches: as sequence_begin and the last one
//          left it
// gates    (T, B, G*H)  in: the input's pre-activations without biases; out: the first G numbers kept
// kept     (T, B, (K-G)*H)  out: the others; null where there is none
// inner    (T, B, H)    out: what the inner product multiplied; null where there is none
// h        (T + 1, B, H)    in: the first states; out: the rest
// others   (T + 1, S-1, B, H)  likewise; null where there is none
// b_ih, b_hh  (G*H)  or null for zero
// vectors  (V*H)    null where there is none
// alive    (T, B)   or null where every sequence is; one that is not keeps its states
// stays    (T, B)   or null for true; where it is not the states that enter the step are zero
// keep_h   (T, B, H), or (1, B, H) where steady_h is 1: share of h that every unit keeps (zoneout); null for none
// keep_c   the same, with steady_c, for the other states
// dropped  (B, H)   factors of h in its products (dropout), or null for one
// No arrays overlap. Moves, beside the weights and one h for each block, G + K + 2 S + 1 values a unit and step, 4 G + 1
// more where the cell is `inner`.
extern "C" __global__ void __launch_bounds__(THREADS, 1) sequence_forward(
    const REAL* weights, const REAL* inner_weights, REAL* exchange, REAL* gates, REAL* kept, REAL* inner, REAL* h,
    ACC* others, const REAL* b_ih, const REAL* b_hh, const REAL* vectors, const bool* alive, const bool* stays,
    const REAL* keep_h, const REAL* keep_c, const REAL* dropped, long long T, long long B, long long H,
    long long reverse, long long steady_h, long long steady_c, unsigned* arrived, unsigned* failed, long long first,
    long long last)
{
    extern __shared__ ACC shared[];
    __shared__ int late;
    Sequence of = {weights, exchange, h, others, vectors, alive, stays, keep_h, keep_c, dropped, T, B, H,
                   reverse != 0, steady_h != 0, steady_c != 0};
    Forward turns(of, inner_weights, gates, kept, inner, b_ih, b_hh);
    take_turns(turns, first, last, arrived, failed, shared, &late);
}
