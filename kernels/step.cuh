// What all kernels of a step share: the cell, and access to the numbers of one unit of one sequence.
//
// Macros select the cell: CELL is the struct, CELL_FILE its file (launch.py puts the text here), OPTIONS its numbers,
// and ROW what its row in Python says (Cell.row). Arrays for B sequences of H units have one row for each sequence. If
// a unit has several numbers, the row holds the first numbers of all units, then the second numbers, and so on.

#include "common.cuh"
#include CELL_FILE

constexpr int GATES = CELL::gates, STATES = CELL::states, KEPT = CELL::kept, VECTORS = CELL::vectors;
constexpr int ROOM = VECTORS + 1;  // for a unit's vectors: C++ has no arrays of no size
constexpr int KEEP = KEPT + 1;     // likewise for what it keeps

#ifdef ROW
constexpr int WANTED[] = {ROW};
static_assert(GATES == WANTED[0], "gates: the struct and the row in Python have different numbers of them");
static_assert(STATES == WANTED[1], "states: the struct and the row in Python have different numbers of them");
static_assert(VECTORS == WANTED[2], "vectors: the struct and the row in Python have different numbers of them");
static_assert((KEPT > GATES ? KEPT - GATES : 0) == WANTED[3],
              "kept: the struct and the row in Python have different numbers of them besides the gates");
static_assert(CELL::split == WANTED[4], "split: the struct and the row in Python differ");
static_assert(CELL::direct == WANTED[5], "direct: the struct and the row in Python differ");
static_assert(CELL::inner == WANTED[6], "inner: the struct and the row in Python differ");
static_assert(CELL::normed == WANTED[7], "normed: the struct and the row in Python differ");
static_assert(CELL::options == WANTED[8], "options: the struct and the row in Python have different numbers of them");
#endif

// The cell. Its options are compile-time constants, so that the code holds only what they select.
__device__ inline CELL make_cell() {
#ifdef OPTIONS
    constexpr double options[] = {OPTIONS};
    static_assert(sizeof options == CELL::options * sizeof(double), "OPTIONS: expected as many numbers as the cell reads");
#else
    constexpr double options[CELL::options + 1] = {};  // zeros, whose number does not matter to a cell without options
#endif
    return CELL(options);
}

// Loads the `count` numbers of unit j of sequence b from an array (B, count * H).
__device__ inline void load_unit(const REAL* array, int count, long long b, long long j, long long H, ACC* numbers) {
    for (int n = 0; n < count; ++n) numbers[n] = load(array[(b * count + n) * H + j]);
}

__device__ inline void store_unit(const ACC* numbers, int count, long long b, long long j, long long H, REAL* array) {
    for (int n = 0; n < count; ++n) array[(b * count + n) * H + j] = store(numbers[n]);
}

// Loads the unit's states before the step: h_prev (B, H), zero if null, and the others in `before` (STATES - 1, B, H).
__device__ inline void load_states(const REAL* h_prev, const ACC* before, long long k, long long size, ACC* states) {
    states[0] = h_prev ? load(h_prev[k]) : 0;
    for (int s = 1; s < STATES; ++s) states[s] = before[(s - 1) * size + k];
}

// The share of its old state that unit k of sequence b keeps in a step: all of it if the sequence is not alive (it has
// ended, or has not begun), otherwise its share in `keep` (B, H) (zoneout; null for none).
__device__ inline ACC share_kept(const bool* alive, const REAL* keep, long long b, long long k) {
    if (alive && !alive[b]) return 1;
    return keep ? load(keep[k]) : 0;
}

// A state after the step.
__device__ inline ACC mixed(ACC kept, ACC before, ACC after) { return kept * before + (1 - kept) * after; }

// The gradient of the unit's h after the step: through the next step's product, through the output, and the rest.
__device__ inline ACC gradient_of_h(const REAL* dh, const REAL* dy, const REAL* direct, long long k) {
    return load(dh[k]) + (dy ? load(dy[k]) : 0) + (direct ? load(direct[k]) : 0);
}

// A step keeps K numbers for each unit: the first G in `gates` (B, G*H), the rest in `kept` (B, (K-G)*H).
constexpr int IN_GATES = KEPT < GATES ? KEPT : GATES, BESIDES = KEPT - IN_GATES;

__device__ inline void load_kept(
    const REAL* gates, const REAL* kept, long long b, long long j, long long H, ACC* keep)
{
    for (int n = 0; n < IN_GATES; ++n) keep[n] = load(gates[(b * GATES + n) * H + j]);
    load_unit(kept, BESIDES, b, j, H, keep + IN_GATES);
}

__device__ inline void store_kept(
    const ACC* keep, long long b, long long j, long long H, REAL* gates, REAL* kept)
{
    for (int n = 0; n < IN_GATES; ++n) gates[(b * GATES + n) * H + j] = store(keep[n]);
    store_unit(keep + IN_GATES, BESIDES, b, j, H, kept);
}

// Loads the unit's pre-activations, zx or zr, and adds the bias unless it is null.
__device__ inline void load_pre_activations(
    const REAL* z, const REAL* bias, long long b, long long j, long long H, ACC* gates)
{
    load_unit(z, GATES, b, j, H, gates);
    if (bias)
        for (int g = 0; g < GATES; ++g) gates[g] += load(bias[g * H + j]);
}
