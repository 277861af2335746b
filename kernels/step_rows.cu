// One time step of a cell with norms (cell.cuh), forward and backward: everything but the matrix products.
//
// One block computes one sequence. Its number of threads is a power of two, with a value of shared memory for each. A
// thread takes every blockDim.x-th unit, the same ones in every pass. A norm goes over the sequence's row, so every
// thread takes part in every sum, even if the sequence is not alive. c and the gradients of c and of the vectors are
// stored as ACC, everything else as REAL. G and V are the cell's numbers of gates and vectors; its states are h and c.

#include "step.cuh"

static_assert(CELL::normed && STATES == 2 && KEPT == 2 * GATES, "expected a cell with norms");

// The most threads of a block, so that each has the registers that it needs: 64 or 256.
#if defined(REAL_IS_DOUBLE) || __CUDA_ARCH__ >= 1000
#define THREADS 256
#else
#define THREADS 1024
#endif

#define FOR_EACH_UNIT(j, H) for (long long j = threadIdx.x; j < (H); j += blockDim.x)

// The mean of a row, and the scale that normalises it.
struct Norm {
    ACC mean, scale;
    __device__ ACC hat(ACC x) const { return (x - mean) * scale; }
};

__device__ inline Norm norm_of(ACC mean, ACC squares, long long n) {
    return {mean, 1 / sqrt_(squares / n + number<ACC>(CELL::eps))};
}

// The norm of a row x (n).
__device__ inline Norm norm_of_row(const REAL* x, long long n, ACC* scratch) {
    ACC sum = 0, squares = 0;
    FOR_EACH_UNIT(k, n) sum += load(x[k]);
    ACC mean = block_sum(sum, scratch) / n;
    FOR_EACH_UNIT(k, n) squares += (load(x[k]) - mean) * (load(x[k]) - mean);
    return norm_of(mean, block_sum(squares, scratch), n);
}

// Differentiates the norm of a row x (G*H). dx: in: the gradient of the normalised values; out: that of x.
__device__ inline void norm_backward(const Norm& norm, const REAL* x, long long H, ACC* scratch, REAL* dx) {
    ACC sum = 0, sum_hat = 0;
    FOR_EACH_UNIT(j, H)
        for (long long k = j; k < GATES * H; k += H) {
            sum += load(dx[k]);
            sum_hat += load(dx[k]) * norm.hat(load(x[k]));
        }
    ACC mean = block_sum(sum, scratch) / (GATES * H), mean_hat = block_sum(sum_hat, scratch) / (GATES * H);
    FOR_EACH_UNIT(j, H)
        for (long long k = j; k < GATES * H; k += H)
            dx[k] = store(norm.scale * (load(dx[k]) - mean - norm.hat(load(x[k])) * mean_hat));
}

// Loads the products of unit j from a row x (G*H) and normalises them.
__device__ inline void load_hats(const Norm& norm, const REAL* x, long long j, long long H, ACC* hats) {
    for (int g = 0; g < GATES; ++g) hats[g] = norm.hat(load(x[g * H + j]));
}

// Computes the gates of unit j from the rows of both products.
__device__ inline void gates_of(
    const CELL& cell, const Norm& x_norm, const Norm& r_norm, const REAL* x, const REAL* r, const REAL* vectors,
    long long j, long long H, ACC* gates)
{
    ACC x_hat[GATES], r_hat[GATES], e[VECTORS];
    load_hats(x_norm, x, j, H, x_hat);
    load_hats(r_norm, r, j, H, r_hat);
    load_unit(vectors, VECTORS, 0, j, H, e);
    cell.gates_of(x_hat, r_hat, e, gates);
}

// Computes c of unit j from a row of gates (G*H), before a share of the old c is kept.
__device__ inline ACC new_c(const CELL& cell, const REAL* row, long long j, long long H, ACC c_prev) {
    ACC g[GATES], old[STATES] = {0, c_prev};
    load_unit(row, GATES, 0, j, H, g);
    return cell.state(g, old);
}

// zx      (B, G*H)  the product x_t W_ih'
// zr      (B, G*H)  the product h_prev W_hh'
// b_ih, b_hh        not read: a cell with norms has no biases besides its vectors
// h_prev  (B, H)    h before the step; null if the caller itself keeps shares of h (projection)
// before  (1, B, H) c before the step
// vectors (V*H)     the cell's parameters that are vectors
// alive   (B)       null if every sequence is alive; a sequence that is not alive keeps its states
// keep_h  (B, H)    share of the old h that every unit keeps (zoneout), or null for none
// keep_c  (B, H)    the same for c
// gates   (B, G*H)  is zx and does not change: the backward pass reads the products, not the gates
// kept    (B, G*H)  out: zr for the backward pass
// h       (B, H)    out
// after   (1, B, H) out: c
// Moves 2 G + 1 + G + 2 values a unit. Each further pass over a row reads the products from the cache.
extern "C" __global__ void __launch_bounds__(THREADS, 1) step_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* before,
    const REAL* vectors, const bool* alive, const REAL* keep_h, const REAL* keep_c, long long B, long long H,
    REAL* gates, REAL* kept, REAL* h, ACC* after)
{
    extern __shared__ ACC scratch[];
    const CELL cell = make_cell();
    long long b = blockIdx.x, first = b * H;
    const REAL *x = zx + GATES * first, *r = zr + GATES * first;
    Norm x_norm = norm_of_row(x, GATES * H, scratch), r_norm = norm_of_row(r, GATES * H, scratch);
    FOR_EACH_UNIT(k, GATES * H) kept[GATES * first + k] = r[k];

    ACC sum = 0, squares = 0;
    FOR_EACH_UNIT(j, H) {
        ACC g[GATES], old[STATES] = {0, before[first + j]};
        gates_of(cell, x_norm, r_norm, x, r, vectors, j, H, g);
        ACC c = cell.state(g, old);
        after[first + j] = c;  // only this thread reads it until a share of the old c is mixed in
        sum += c;
    }
    ACC mean = block_sum(sum, scratch) / H;
    FOR_EACH_UNIT(j, H) squares += (after[first + j] - mean) * (after[first + j] - mean);
    Norm c_norm = norm_of(mean, block_sum(squares, scratch), H);
    FOR_EACH_UNIT(j, H) {
        long long k = first + j;
        ACC c = after[k], g[GATES], e[VECTORS];
        gates_of(cell, x_norm, r_norm, x, r, vectors, j, H, g);
        load_unit(vectors, VECTORS, 0, j, H, e);
        ACC h_new = cell.output(g, c_norm.hat(c), e);
        after[k] = mixed(share_kept(alive, keep_c, b, k), before[k], c);
        h[k] = store(mixed(share_kept(alive, keep_h, b, k), h_prev ? load(h_prev[k]) : 0, h_new));
    }
}

// gates   (B, G*H)  x_t W_ih', kept (B, G*H) h_prev W_hh', as forward left them
// h_prev  (B, H)    not read
// before, vectors, alive, keep_h, keep_c  as forward
// dy      (B, H)    gradient of this step's output, or null for zero
// dh      (B, H)    gradient of this step's h through the product of the step after it
// direct  (B, H)    in: the rest of the gradient of this step's h; out: the gradient of h_prev without its product. It
//                   may be null for zero if nothing is kept
// dzx     (B, G*H)  out: gradient of x_t W_ih'; meanwhile it holds the gates
// dzr     (B, G*H)  out: gradient of h_prev W_hh'; meanwhile it holds the gradient of h that passes through the step
// ds      (1, B, H) in: gradient of c after this step; out: gradient of c before it
// dvectors (B, V*H) in and out: sums for each sequence over its steps
// No two may overlap. Moves 2 G + 1 + 3 + 2 G + 2 values a unit and 2 V for the sums.
extern "C" __global__ void __launch_bounds__(THREADS, 1) step_backward(
    const REAL* gates, const REAL* kept, const REAL* h_prev, const ACC* before, const REAL* vectors,
    const bool* alive, const REAL* keep_h, const REAL* keep_c, const REAL* dy, const REAL* dh, REAL* direct,
    long long B, long long H, REAL* dzx, REAL* dzr, ACC* ds, ACC* dvectors)
{
    extern __shared__ ACC scratch[];
    __shared__ Norm x_norm, r_norm;  // needed first and last; in between they would take registers
    const CELL cell = make_cell();
    long long b = blockIdx.x, first = b * H;
    const REAL *x = gates + GATES * first, *r = kept + GATES * first;
    Norm of_x = norm_of_row(x, GATES * H, scratch), of_r = norm_of_row(r, GATES * H, scratch);
    if (threadIdx.x == 0) {
        x_norm = of_x;
        r_norm = of_r;
    }
    __syncthreads();
    REAL *row = dzx + GATES * first, *row_r = dzr + GATES * first;

    // Compute the gates, the gradient of h, and the norm of c.
    ACC sum = 0, squares = 0, sum_d = 0, sum_d_hat = 0;
    FOR_EACH_UNIT(j, H) {
        long long k = first + j;
        ACC g[GATES];
        gates_of(cell, x_norm, r_norm, x, r, vectors, j, H, g);
        store_unit(g, GATES, 0, j, H, row);
        ACC kept_h = share_kept(alive, keep_h, b, k), dh_all = gradient_of_h(dh, dy, direct, k);
        if (direct) direct[k] = store(kept_h * dh_all);
        row_r[j] = store((1 - kept_h) * dh_all);
        sum += new_c(cell, row, j, H, before[k]);
    }
    ACC mean = block_sum(sum, scratch) / H;
    FOR_EACH_UNIT(j, H) {
        ACC deviation = new_c(cell, row, j, H, before[first + j]) - mean;
        squares += deviation * deviation;
    }
    Norm c_norm = norm_of(mean, block_sum(squares, scratch), H);

    // From h to the normalised c.
    FOR_EACH_UNIT(j, H) {
        ACC g[GATES], e[VECTORS], dz[GATES], de[VECTORS], d_hat;
        ACC c_hat = c_norm.hat(new_c(cell, row, j, H, before[first + j]));
        load_unit(row, GATES, 0, j, H, g);
        load_unit(vectors, VECTORS, 0, j, H, e);
        cell.output_backward(g, c_hat, e, load(row_r[j]), d_hat, dz, de);
        sum_d += d_hat;
        sum_d_hat += d_hat * c_hat;
    }
    ACC mean_d = block_sum(sum_d, scratch) / H, mean_d_hat = block_sum(sum_d_hat, scratch) / H;

    // From c to the normalised products.
    FOR_EACH_UNIT(j, H) {
        long long k = first + j;
        ACC g[GATES], x_hat[GATES], r_hat[GATES], e[VECTORS], old[STATES] = {0, before[k]};
        ACC dz[GATES], dx_hat[GATES], dr_hat[GATES], d[STATES], de[VECTORS], d_hat;
        load_unit(row, GATES, 0, j, H, g);
        load_unit(vectors, VECTORS, 0, j, H, e);
        load_hats(x_norm, x, j, H, x_hat);
        load_hats(r_norm, r, j, H, r_hat);
        ACC c_hat = c_norm.hat(cell.state(g, old)), kept_c = share_kept(alive, keep_c, b, k);
        cell.output_backward(g, c_hat, e, load(row_r[j]), d_hat, dz, de);
        ACC dc = (1 - kept_c) * ds[k] + c_norm.scale * (d_hat - mean_d - c_hat * mean_d_hat);
        cell.state_backward(g, old, x_hat, r_hat, e, dc, d, dz, dx_hat, dr_hat, de);
        store_unit(dx_hat, GATES, 0, j, H, row);
        store_unit(dr_hat, GATES, 0, j, H, row_r);
        ds[k] = kept_c * ds[k] + d[1];
        for (int n = 0; n < VECTORS; ++n) dvectors[(b * VECTORS + n) * H + j] += de[n];
    }

    // From the normalised products to the products.
    norm_backward(r_norm, r, H, scratch, row_r);
    norm_backward(x_norm, x, H, scratch, row);
}
