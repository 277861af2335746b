// Adam, AdamW and AMSGrad: one launch updates every parameter of an optimiser; adam.cuh has the arithmetic. m and v are
// stored as ACC, so that half precision parameters are updated in float32 too.

#include "adam.cuh"
#include "common.cuh"

// first_chunk (count + 1)  number of each array's first chunk of chunk_size elements; last, the number of all chunks
// arrays      (count, 6)   addresses of p and g (REAL), m, v and the largest v (ACC; 0 without AMSGrad), and the
//                          size; no two arrays may overlap
// numbers     (count, 6)   keep, l2, beta1, beta2, step_size, eps
// One block updates one chunk. Moves 7 values an element: p, m, v in and out, g in; 9 for AMSGrad.
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
    const Adam<ACC> adam(numbers);

    long long first = (chunk - first_chunk[a]) * chunk_size, end = first + chunk_size, size = arrays[5];
    for (long long k = first + threadIdx.x; k < end && k < size; k += blockDim.x) {
        ACC m = exp_avg[k], v = exp_avg_sq[k], largest = max_exp_avg_sq ? max_exp_avg_sq[k] : 0;
        ACC p = adam.step(load(param[k]), load(grad[k]), m, v, largest, max_exp_avg_sq != nullptr);
        param[k] = store(p);
        exp_avg[k] = m;
        exp_avg_sq[k] = v;
        if (max_exp_avg_sq) max_exp_avg_sq[k] = largest;
    }
}
