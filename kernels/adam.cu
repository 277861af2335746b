// Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) and AMSGrad (Reddi et al. 2018): one step of
// every parameter of an optimiser in one launch.
//
//     p = keep p                              keep = 1 - lr * weight_decay for AdamW, else 1
//     g = g + l2 p                            l2 = weight_decay for Adam, else 0
//     m = beta1 m + (1 - beta1) g
//     v = beta2 v + (1 - beta2) g^2
//     p = p - step_size m / (sqrt(v) + eps)   for AMSGrad with the largest v so far in place of v
//
// The corrections of the bias are inside step_size and eps: the caller makes them, in float64, with
//     step_size = lr sqrt(1 - beta2^step) / (1 - beta1^step),  eps = given eps * sqrt(1 - beta2^step).
// The arithmetic is that of gpulstm/optim/adam.py under the same names. m and v are stored as ACC, so that
// half precision parameters are updated in float32 too.

#include "common.cuh"

// first_chunk (count + 1)  number of each array's first chunk of chunk_size elements; at the end that of all chunks
// arrays      (count, 6)   addresses of p and g (REAL), m, v and the largest v (ACC; 0 without AMSGrad), and the
//                          size; no two arrays may overlap
// numbers     (count, 6)   keep, l2, beta1, beta2, step_size, eps
// One block serves one chunk. Moves 7 values an element: p, m, v in and out, g in; 9 for AMSGrad.
extern "C" __global__ void adam(
    const long long* __restrict__ first_chunk, const long long* __restrict__ arrays,
    const double* __restrict__ numbers, long long count, long long chunk_size)
{
    long long chunk = blockIdx.x, a = array_of(first_chunk, count, chunk);
    arrays += 6 * a;
    numbers += 6 * a;
    REAL* __restrict__ param = (REAL*)arrays[0];
    const REAL* __restrict__ grad = (const REAL*)arrays[1];
    ACC* __restrict__ exp_avg = (ACC*)arrays[2];
    ACC* __restrict__ exp_avg_sq = (ACC*)arrays[3];
    ACC* __restrict__ max_exp_avg_sq = (ACC*)arrays[4];
    ACC keep = (ACC)numbers[0], l2 = (ACC)numbers[1];
    ACC beta1 = (ACC)numbers[2], beta2 = (ACC)numbers[3];
    ACC new_share1 = (ACC)(1 - numbers[2]), new_share2 = (ACC)(1 - numbers[3]);
    ACC step_size = (ACC)numbers[4], eps = (ACC)numbers[5];

    long long first = (chunk - first_chunk[a]) * chunk_size, end = first + chunk_size, size = arrays[5];
    for (long long k = first + threadIdx.x; k < end && k < size; k += blockDim.x) {
        ACC p = keep * load(param[k]);
        ACC g = load(grad[k]) + l2 * p;
        ACC m = exp_avg[k], v = exp_avg_sq[k];
        m = beta1 * m + new_share1 * g;
        v = beta2 * v + new_share2 * g * g;
        exp_avg[k] = m;
        exp_avg_sq[k] = v;
        if (max_exp_avg_sq) {
            ACC largest = max_exp_avg_sq[k];
            v = v < largest ? largest : v;  // a v that is not a number stays one
            max_exp_avg_sq[k] = v;
        }
        param[k] = store(p - step_size * m / (sqrt_(v) + eps));
    }
}
