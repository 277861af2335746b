// The layer-normalised LSTM's gates, one time step, forward and backward: everything that is not a matrix product.
//
//     z = norm_ih * LN(x W_ih') + norm_hh * LN(h_prev W_hh') + bias
//     i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o);  g = tanh(z_g)
//     c = f * c_prev + i * g
//     h = o * tanh(norm_c * LN(c) + bias_c)                          Ba, Kiros & Hinton 2016, eq. 20-22; Haste
//
// The arithmetic is that of gpulstm/cells/layer_norm.py under the same names. One block serves one sequence, with
// a power of two of threads and a value of shared memory for each; a thread takes every blockDim.x-th unit. LN goes
// over the sequence's row, so every thread takes part in every sum, also where the sequence is not alive. Gates
// lie side by side in a row in the order i, f, g, o. c and the gradients of c and of the vectors are ACC, everything
// else is stored as REAL. Blocks have up to 1024 threads, which leaves each 64 registers.

#include "common.cuh"

#define EPS ((ACC)1e-5)
#define FOR_EACH_UNIT(j, H) for (long long j = threadIdx.x; j < (H); j += blockDim.x)

// A row x (n) and its norm.
struct Row {
    const REAL* x;
    ACC mean, scale;
    __device__ ACC hat(long long k) const { return (load(x[k]) - mean) * scale; }
};

__device__ inline Row row_of(const REAL* x, long long n, ACC* scratch) {
    ACC sum = 0, squares = 0;
    FOR_EACH_UNIT(k, n) sum += load(x[k]);
    ACC mean = block_sum(sum, scratch) / n;
    FOR_EACH_UNIT(k, n) squares += (load(x[k]) - mean) * (load(x[k]) - mean);
    return {x, mean, 1 / sqrt_(block_sum(squares, scratch) / n + EPS)};
}

// The derivative of norm * LN(x): dx (n), and what is added to dnorm (n), from dz (n), which may be dx.
__device__ inline void normalise_backward(
    const Row& x, const REAL* dz, const REAL* norm, long long n, ACC* scratch, ACC* dnorm, REAL* dx)
{
    ACC sum = 0, sum_hat = 0;
    FOR_EACH_UNIT(k, n) {
        ACC d_hat = load(dz[k]) * load(norm[k]);
        sum += d_hat;
        sum_hat += d_hat * x.hat(k);
        dnorm[k] += load(dz[k]) * x.hat(k);
    }
    ACC mean = block_sum(sum, scratch) / n, mean_hat = block_sum(sum_hat, scratch) / n;
    FOR_EACH_UNIT(k, n) dx[k] = store(x.scale * (load(dz[k]) * load(norm[k]) - mean - x.hat(k) * mean_hat));
}

// Element k of z, of one sequence.
__device__ inline ACC pre_activation(
    const Row& zx, const Row& zr, const REAL* norm_ih, const REAL* norm_hh, const REAL* bias, long long k)
{
    return load(norm_ih[k]) * zx.hat(k) + load(norm_hh[k]) * zr.hat(k) + load(bias[k]);
}

// c before some of the old one is kept, from the gates of its unit, H apart.
__device__ inline ACC new_c(const REAL* gate, long long H, ACC c_prev) {
    return load(gate[H]) * c_prev + load(gate[0]) * load(gate[2 * H]);
}

// zx      (B, 4H)  the product x_t W_ih'
// zr      (B, 4H)  the product h_prev W_hh'
// b_ih, b_hh       not read: the cell has no biases besides `bias`
// h_prev  (B, H)   null where the caller keeps h itself (projection)
// c_prev  (B, H)
// norm_ih, norm_hh, bias  (4H)
// norm_c, bias_c   (H)
// alive   (B)      or null where every sequence is; one that is not keeps its states
// keep_h  (B, H)   share of h that every unit keeps (zoneout), or null for none
// keep_c  (B, H)   the same for c
// gates   (B, 4H)  is zx and stays as it is: the backward pass takes the products, not the gates
// kept    (B, 4H)  out: zr for the backward pass
// h       (B, H)   out
// c       (B, H)   out
// Moves 8 + 1 + 4 + 2 values a unit, the products again for each pass over a row from the cache.
extern "C" __global__ void __launch_bounds__(1024, 1) layer_norm_forward(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, const REAL* h_prev, const ACC* c_prev,
    const REAL* norm_ih, const REAL* norm_hh, const REAL* bias, const REAL* norm_c, const REAL* bias_c,
    const bool* alive, const REAL* keep_h, const REAL* keep_c, long long B, long long H, REAL* gates, REAL* kept,
    REAL* h, ACC* c)
{
    extern __shared__ ACC scratch[];
    long long b = blockIdx.x, first = b * H;
    Row x_row = row_of(zx + 4 * first, 4 * H, scratch), r_row = row_of(zr + 4 * first, 4 * H, scratch);
    FOR_EACH_UNIT(k, 4 * H) kept[4 * first + k] = zr[4 * first + k];

    ACC sum = 0, squares = 0;
    FOR_EACH_UNIT(j, H) {
        ACC i = sigmoid(pre_activation(x_row, r_row, norm_ih, norm_hh, bias, j));
        ACC f = sigmoid(pre_activation(x_row, r_row, norm_ih, norm_hh, bias, H + j));
        ACC g = tanh_(pre_activation(x_row, r_row, norm_ih, norm_hh, bias, 2 * H + j));
        ACC c_new = f * c_prev[first + j] + i * g;
        c[first + j] = c_new;  // read by this thread alone until it is mixed with the old one
        sum += c_new;
    }
    ACC mean = block_sum(sum, scratch) / H;
    FOR_EACH_UNIT(j, H) squares += (c[first + j] - mean) * (c[first + j] - mean);
    ACC scale = 1 / sqrt_(block_sum(squares, scratch) / H + EPS);
    FOR_EACH_UNIT(j, H) {
        long long k = first + j;
        ACC c_new = c[k], c_hat = (c_new - mean) * scale;
        ACC o = sigmoid(pre_activation(x_row, r_row, norm_ih, norm_hh, bias, 3 * H + j));
        ACC h_new = o * tanh_(load(norm_c[j]) * c_hat + load(bias_c[j]));
        c[k] = mixed(share_kept(alive, keep_c, b, k), c_prev[k], c_new);
        h[k] = store(mixed(share_kept(alive, keep_h, b, k), h_prev ? load(h_prev[k]) : 0, h_new));
    }
}

// gates   (B, 4H)  x_t W_ih', kept (B, 4H) h_prev W_hh', as forward left them
// h_prev  (B, H)   not read
// c_prev  (B, H)
// norm_ih, norm_hh, bias, norm_c, bias_c, alive, keep_h, keep_c  as forward
// dy      (B, H)   gradient of this step's output, or null for zero
// dh      (B, H)   gradient of this step's h through the product of the step after it
// direct  (B, H)   in: gradient of this step's h besides that product; out: that of h_prev; null for zero,
//                  which is enough where nothing is kept
// dzx     (B, 4H)  out: gradient of x_t W_ih'; holds the gates and their gradients on the way
// dzr     (B, 4H)  out: gradient of h_prev W_hh'
// dc      (B, H)   in: gradient of c from the step after it; out: gradient of c_prev
// dnorm_ih, dnorm_hh, dbias (B, 4H), dnorm_c, dbias_c (B, H)  in and out: sums of each sequence over its steps
// No two may overlap. Moves 8 + 1 + 3 + 10 values a unit and 2 * 14 for the sums.
extern "C" __global__ void __launch_bounds__(1024, 1) layer_norm_backward(
    const REAL* gates, const REAL* kept, const REAL* h_prev, const ACC* c_prev, const REAL* norm_ih,
    const REAL* norm_hh, const REAL* bias, const REAL* norm_c, const REAL* bias_c, const bool* alive,
    const REAL* keep_h, const REAL* keep_c, const REAL* dy, const REAL* dh, REAL* direct, long long B, long long H,
    REAL* dzx, REAL* dzr, ACC* dc, ACC* dnorm_ih, ACC* dnorm_hh, ACC* dbias, ACC* dnorm_c, ACC* dbias_c)
{
    extern __shared__ ACC scratch[];
    __shared__ Row x_row, r_row;  // needed first and last: between the two they would fill registers
    long long b = blockIdx.x, first = b * H;
    Row x = row_of(gates + 4 * first, 4 * H, scratch), r = row_of(kept + 4 * first, 4 * H, scratch);
    if (threadIdx.x == 0) {
        x_row = x;
        r_row = r;
    }
    __syncthreads();
    REAL* row = dzx + 4 * first;     // the gates, then the gradients of z, then those of the product
    REAL* dh_new = dzr + 4 * first;  // (H), what of the gradient of h passes through the step

    // The gates, the gradient of h, and the norm of c.
    ACC sum = 0, squares = 0, sum_d = 0, sum_d_hat = 0;
    FOR_EACH_UNIT(k, 4 * H) {
        ACC z = pre_activation(x_row, r_row, norm_ih, norm_hh, bias, k);
        row[k] = store(k >= 2 * H && k < 3 * H ? tanh_(z) : sigmoid(z));
    }
    __syncthreads();  // the next passes take the row in another order
    FOR_EACH_UNIT(j, H) {
        long long k = first + j;
        ACC kept_h = share_kept(alive, keep_h, b, k);
        ACC dh_all = load(dh[k]) + (dy ? load(dy[k]) : 0) + (direct ? load(direct[k]) : 0);
        if (direct) direct[k] = store(kept_h * dh_all);
        dh_new[j] = store((1 - kept_h) * dh_all);
        sum += new_c(row + j, H, c_prev[k]);
    }
    ACC mean = block_sum(sum, scratch) / H;
    FOR_EACH_UNIT(j, H) {
        ACC deviation = new_c(row + j, H, c_prev[first + j]) - mean;
        squares += deviation * deviation;
    }
    ACC scale = 1 / sqrt_(block_sum(squares, scratch) / H + EPS);

    // From h to c_hat: h = o * tanh(v), v = norm_c * c_hat + bias_c.
    FOR_EACH_UNIT(j, H) {
        long long k = first + j;
        ACC c_hat = (new_c(row + j, H, c_prev[k]) - mean) * scale;
        ACC tanh_c = tanh_(load(norm_c[j]) * c_hat + load(bias_c[j]));
        ACC dv = load(dh_new[j]) * load(row[3 * H + j]) * (1 - tanh_c * tanh_c);
        sum_d += dv * load(norm_c[j]);
        sum_d_hat += dv * load(norm_c[j]) * c_hat;
        dnorm_c[k] += dv * c_hat;
        dbias_c[k] += dv;
    }
    ACC mean_d = block_sum(sum_d, scratch) / H, mean_d_hat = block_sum(sum_d_hat, scratch) / H;

    // From c to the pre-activations.
    FOR_EACH_UNIT(j, H) {
        long long k = first + j;
        ACC kept_c = share_kept(alive, keep_c, b, k);
        ACC i = load(row[j]), f = load(row[H + j]), g = load(row[2 * H + j]), o = load(row[3 * H + j]);
        ACC c_hat = (new_c(row + j, H, c_prev[k]) - mean) * scale;
        ACC tanh_c = tanh_(load(norm_c[j]) * c_hat + load(bias_c[j]));
        ACC d_hat = load(dh_new[j]) * o * (1 - tanh_c * tanh_c) * load(norm_c[j]);
        ACC dc_new = (1 - kept_c) * dc[k] + scale * (d_hat - mean_d - c_hat * mean_d_hat);
        row[j] = store(dc_new * g * i * (1 - i));
        row[H + j] = store(dc_new * c_prev[k] * f * (1 - f));
        row[2 * H + j] = store(dc_new * i * (1 - g * g));
        row[3 * H + j] = store(load(dh_new[j]) * tanh_c * o * (1 - o));
        dc[k] = kept_c * dc[k] + dc_new * f;
    }
    __syncthreads();  // the next passes take the row in another order

    // From the pre-activations to the products.
    FOR_EACH_UNIT(k, 4 * H) dbias[4 * first + k] += load(row[k]);
    normalise_backward(r_row, row, norm_hh, 4 * H, scratch, dnorm_hh + 4 * first, dzr + 4 * first);
    normalise_backward(x_row, row, norm_ih, 4 * H, scratch, dnorm_ih + 4 * first, row);
}
