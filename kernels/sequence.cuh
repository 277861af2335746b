// What both directions of a sequence's kernel share: its arrays, its clock, the tile of a block, the turns it takes.
//
// A turn is one product and the arithmetic that follows it. A step has one turn, that of an `inner` cell two; the
// backward direction has one more at its end, for the gradients of the first states. What the product of a turn
// multiplies goes from block to block through `exchange`: it has two places, that of the even turns and that of the odd
// ones. While one is read the other is written. Each holds whole tiles, with zeros beyond B and K.
//
// The outer product of a step gives the first OUTER gates. It multiplies the states SOURCES, side by side. The inner
// product, in the second turn, gives the INNER gates from INNER_FIRST on.

#pragma once

#ifndef THREADS
#define THREADS 256  // of a block
#endif
#ifndef UNITS
#define UNITS 8  // of a block
#endif
#ifndef TILES
#define TILES 1  // of eight sequences, of a block
#endif
#ifndef RESIDENT
#define RESIDENT 0  // k-steps of a warp whose weights stay in registers: all that it has, or 0
#endif
#ifndef OUTER
#define OUTER GATES
#endif
#ifndef SOURCES
#define SOURCES 0  // the numbers of the states, h first
#endif
#ifndef INNER
#define INNER 0
#endif
#ifndef INNER_FIRST
#define INNER_FIRST 0
#endif
#ifndef INNER_DROPPED
#define INNER_DROPPED 0  // 1: dropout of the recurrent path acts on the inner product, as on all with W_hh
#endif
#ifndef LOOKS
#define LOOKS (1 << 22)  // how often a block looks whether the others have arrived: some seconds
#endif

#include "product.cuh"
#include "step.cuh"

static_assert(!CELL::normed, "expected a cell without norms");
static_assert(CELL::inner == (INNER > 0), "expected an inner product for an inner cell, and for no other");

constexpr int TURNS = CELL::inner ? 2 : 1;  // of a step
constexpr int ALL_SOURCES[] = {SOURCES};
constexpr int MULTIPLIED = sizeof ALL_SOURCES / sizeof ALL_SOURCES[0];  // states

// The state that the outer product multiplies in the n-th place.
__device__ inline int source(int n) {
    constexpr int states[] = {SOURCES};
    return states[n];
}

constexpr int ITEMS = (ROWS * UNITS + THREADS - 1) / THREADS;  // units of sequences that a thread serves
// Whether a thread has registers to load what its units need before the product is known.
constexpr bool EARLY = ITEMS <= 2 && sizeof(ACC) == 4;

struct Sequence {
    const REAL* weights;  // packed
    REAL* exchange;
    REAL* h;
    ACC* others;
    const REAL* vectors;
    const bool *alive, *stays;
    const REAL *keep_h, *keep_c, *dropped;
    long long T, B, H;
    bool reverse, steady_h, steady_c;

    // The row of the n-th time step in arrays of T, those of the states before and after it in arrays of T + 1.
    __device__ inline long long row(long long n) const { return reverse ? T - 1 - n : n; }
    __device__ inline long long before(long long n) const { return row(n) + reverse; }
    __device__ inline long long after(long long n) const { return row(n) + !reverse; }

    __device__ inline long long unit_blocks() const { return (H + UNITS - 1) / UNITS; }
    __device__ inline long long unit_block() const { return blockIdx.x % unit_blocks(); }
    __device__ inline long long slice() const { return blockIdx.x / unit_blocks(); }  // of the batch

    // Where the product of a turn finds sequence b; the turn before it writes there. A sequence has EVEN*H numbers in the
    // place of the even turns, ODD*H in that of the odd ones.
    template <int EVEN, int ODD> __device__ inline REAL* place(long long turn, long long b) const {
        long long rows = (B + ROWS - 1) / ROWS * ROWS;
        REAL* first = exchange + (turn & 1) * rows * k_steps_of(EVEN * H) * DEPTH;
        return first + b * k_steps_of(EVEN == ODD || !(turn & 1) ? EVEN * H : ODD * H) * DEPTH;
    }

    // Whether what was left to sequence b enters the n-th step: not where a new sequence begins with it.
    __device__ inline bool enters(long long n, long long b) const { return !stays || stays[row(n) * B + b]; }

    // The factor of unit k of h in the outer product, and of what the inner one multiplies.
    __device__ inline ACC factor(long long k) const { return dropped ? load(dropped[k]) : 1; }
    __device__ inline ACC inner_factor(long long k) const { return INNER_DROPPED ? factor(k) : 1; }

    __device__ inline ACC share_of_h(long long n, long long b, long long k) const {
        return share(keep_h, steady_h, row(n), b, k);
    }
    __device__ inline ACC share_of_others(long long n, long long b, long long k) const {
        return share(keep_c, steady_c, row(n), b, k);
    }
    __device__ inline ACC share(const REAL* keep, bool steady, long long t, long long b, long long k) const {
        return share_kept(alive ? alive + t * B : nullptr, keep && !steady ? keep + t * B * H : keep, b, k);
    }

    // The states that enter the n-th step.
    __device__ inline void load_entering(long long n, long long b, long long k, ACC* states) const {
        long long size = B * H, t = before(n);
        load_states(h + t * size, others + t * (STATES - 1) * size, k, size, states);
        if (!enters(n, b))
            for (int s = 0; s < STATES; ++s) states[s] = 0;
    }
};

// One unit of one sequence: `row` and `unit` number them within the block, b and j in the arrays, k is b * H + j.
struct Item {
    int row, unit;
    long long b, j, k;
    bool inside;

    __device__ inline Item(const Sequence& of, int item) {
        int number = item * THREADS + threadIdx.x;
        row = number / UNITS;
        unit = number % UNITS;
        b = of.slice() * ROWS + row;
        j = of.unit_block() * UNITS + unit;
        k = b * of.H + j;
        inside = row < ROWS && b < of.B && j < of.H;
    }
};

// The weights of a product in the order of product.cuh.
// w       (outputs*H, K), or (K, outputs*H) where it is `turned`
// packed  (unit blocks, k-steps, m tiles, 2, 32, 16 bytes)  out
__device__ inline void pack(const REAL* w, long long H, long long K, int outputs, bool turned, REAL* packed) {
    long long M = (outputs * UNITS + 15) / 16, steps = k_steps_of(K), unit_blocks = (H + UNITS - 1) / UNITS;
    FOR_EACH(at, unit_blocks * steps * M * 64 * PER_GRANULE) {
        int within = at % (64 * PER_GRANULE), half = within / (32 * PER_GRANULE), lane = within / PER_GRANULE % 32;
        long long tile = at / (64 * PER_GRANULE);  // (unit block, k-step, m tile)
        long long line = tile % M * 16 + 8 * half + lane / 4, output = line / UNITS;
        long long unit = tile / M / steps * UNITS + line % UNITS;
        long long k = tile / M % steps * DEPTH + lane % 4 * PER_GRANULE + within % PER_GRANULE;
        bool inside = output < outputs && unit < H && k < K;
        long long row = output * H + unit;
        packed[at] = inside ? as_factor(load(w[turned ? k * outputs * H + row : row * K + k])) : store(0);
    }
}

// Waits until `count` is `want`; false, and *failed set, where that takes too long. All threads of the block call it.
__device__ inline bool wait_for(const unsigned* count, unsigned want, unsigned* failed, int* late) {
    if (threadIdx.x == 0) {
        bool here = look(count) >= want;
        for (long long looks = 1; !here && looks < LOOKS; ++looks) {
            pause();
            here = look(count) >= want;
        }
        *late = !here;
        if (!here) *failed = 1;
    }
    __syncthreads();
    return !*late;
}

// What a thread does with its units in the turns of `Turns`, one of the two directions.
template <class Turns> struct Units {
    Turns turns;
    typename Turns::Unit units[EARLY ? ITEMS : 1];

    __device__ inline explicit Units(const Turns& turns) : turns(turns) {}

    template <class Each> __device__ inline void each(Each visit) {
#pragma unroll
        for (int item = 0; item < ITEMS; ++item) {
            Item at(turns.of, item);
            if (at.inside) visit(at, units[EARLY ? item : 0]);
        }
    }

    // What the product does not change.
    __device__ inline void request(long long turn) {
        if (EARLY) each([&](const Item& at, auto& unit) { turns.request(turn, at, unit); });
    }

    // The product, and of the rest what others wait for.
    __device__ inline void compute(long long turn, ACC* shared) {
        turns.multiply(turn, shared);
        each([&](const Item& at, auto& unit) {
            if (!EARLY) turns.request(turn, at, unit);
            turns.pass_on(turn, at, shared, unit);
            if (!EARLY) turns.record(turn, at, unit);
        });
    }

    // The results that no other block reads.
    __device__ inline void record(long long turn) {
        if (EARLY) each([&](const Item& at, auto& unit) { turns.record(turn, at, unit); });
    }
};

// The turns first, ..., last - 1. Between two of them all blocks of a slice of the batch meet, so that a launch of one
// turn needs no other block, and one of several must be cooperative.
// arrived (slices)  zeros before a launch of several turns; else null
// failed  (1)       out: 1 where a block waited in vain, and left
template <class Turns>
__device__ inline void take_turns(
    const Turns& turns, long long first, long long last, unsigned* arrived, unsigned* failed, ACC* shared, int* late)
{
    Units<Turns> units(turns);
    const Sequence& of = turns.of;
    unsigned met = 0;
    units.request(first);
#pragma unroll 1
    for (long long turn = first;; ++turn) {
        units.compute(turn, shared);
        if (turn + 1 == last) break;
        __syncthreads();
        if (threadIdx.x == 0) arrive(arrived + of.slice());
        units.record(turn);
        units.request(turn + 1);
        met += of.unit_blocks();
        if (!wait_for(arrived + of.slice(), met, failed, late)) return;
    }
    units.record(last - 1);
}
