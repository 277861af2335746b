// What both directions of a sequence's kernel share: its arrays, its clock, the tile of a block, the turns it takes.
//
// A turn is what lies between two products: a time step, and in the backward direction one more for the gradient of the
// first h. Between turns x, what the next product takes, goes from block to block through `exchange`: it has two
// places, one to read and one to write, each of whole tiles with zeros beyond B and K.

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
#ifndef LOOKS
#define LOOKS (1 << 22)  // how often a block looks whether the others have arrived: some seconds
#endif

#include "product.cuh"
#include "step.cuh"

static_assert(!CELL::inner && !CELL::normed, "expected a cell whose step is one product with h");

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

    // The place that the product of a turn reads; it writes to that of the next turn. K is a sequence's numbers there.
    __device__ inline REAL* place(long long turn, long long K) const {
        long long rows = (B + ROWS - 1) / ROWS * ROWS;
        return exchange + (turn & 1) * rows * k_steps_of(K) * DEPTH;
    }
    __device__ inline REAL* place(long long turn, long long K, long long b) const {
        return place(turn, K) + b * k_steps_of(K) * DEPTH;
    }

    // Whether what was left to sequence b enters the n-th step: not where a new sequence begins with it.
    __device__ inline bool enters(long long n, long long b) const { return !stays || stays[row(n) * B + b]; }

    // The factor of h in its product.
    __device__ inline ACC factor(long long k) const { return dropped ? load(dropped[k]) : 1; }

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

// The weights of a direction in the order of product.cuh.
// w       (G*H, H)  W_hh
// back    0: the product is h W_hh', 1: it is dz W_hh
// packed  (unit blocks, k-steps, m tiles, 2, 32, 16 bytes)  out
template <int OUTPUTS>
__device__ inline void pack(const REAL* w, long long H, bool back, REAL* packed) {
    constexpr int M = Product<OUTPUTS>::M;
    long long K = back ? GATES * H : H, steps = k_steps_of(K), unit_blocks = (H + UNITS - 1) / UNITS;
    FOR_EACH(at, unit_blocks * steps * M * 64 * PER_GRANULE) {
        int within = at % (64 * PER_GRANULE), half = within / (32 * PER_GRANULE), lane = within / PER_GRANULE % 32;
        long long tile = at / (64 * PER_GRANULE);  // (unit block, k-step, m tile)
        long long line = tile % M * 16 + 8 * half + lane / 4, output = line / UNITS;
        long long unit = tile / M / steps * UNITS + line % UNITS;
        long long k = tile / M % steps * DEPTH + lane % 4 * PER_GRANULE + within % PER_GRANULE;
        bool inside = output < OUTPUTS && unit < H && k < K;
        packed[at] = inside ? as_factor(load(w[back ? k * H + unit : (output * H + unit) * H + k])) : store(0);
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
