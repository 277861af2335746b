// The 2-norm over all gradients of a model, and their scaling, without atomics: sums have a fixed order, so that two
// runs agree bit for bit, and the norm stays on the device.
//
//     norm = sqrt(sum of g^2 over all arrays)
//     coefficient = min(1, max_norm / (norm + 1e-6))
//     g = coefficient g
//
// norm_partial sums chunks, one block for each; norm_total, a single block, adds them up; norm_scale multiplies. The
// 1e-6 is PyTorch's (clip_grad_norm_). Sums within a chunk are in ACC, across chunks in float64.

#include "common.cuh"

#define THREADS 256

// first_chunk (count + 1)  number of each array's first chunk of chunk_size elements; last, the number of all chunks
// arrays      (count, 2)   address (REAL) and size
// partial     (chunks)     out: the sum of squares of each chunk
// One block of THREADS threads sums one chunk. Moves 1 value an element.
extern "C" __global__ void norm_partial(
    const long long* __restrict__ first_chunk, const long long* __restrict__ arrays,
    double* __restrict__ partial, long long count, long long chunk_size)
{
    __shared__ ACC scratch[THREADS];
    long long chunk = blockIdx.x, a = array_of(first_chunk, count, chunk);
    const REAL* __restrict__ grad = (const REAL*)arrays[2 * a];
    long long first = (chunk - first_chunk[a]) * chunk_size, end = first + chunk_size, size = arrays[2 * a + 1];
    ACC sum = 0;
    for (long long k = first + threadIdx.x; k < end && k < size; k += THREADS) {
        ACC g = load(grad[k]);
        sum += g * g;
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[chunk] = sum;
}

// partial (chunks)  as above
// result  (2)       out: the norm and the coefficient, both NaN if the norm is NaN
// One block of THREADS threads, compiled with double for ACC.
extern "C" __global__ void norm_total(
    const double* __restrict__ partial, double* __restrict__ result, long long chunks, double max_norm)
{
    __shared__ ACC scratch[THREADS];
    ACC sum = 0;
    for (long long k = threadIdx.x; k < chunks; k += THREADS) sum += partial[k];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        ACC norm = sqrt_(sum), coefficient = max_norm / (norm + 1e-6);
        result[0] = norm;
        result[1] = coefficient > 1 ? 1 : coefficient;
    }
}

// first_chunk, arrays  as above; every array is multiplied in place
// result (2)           of norm_total
// One block scales one chunk. Moves 2 values an element, none if the coefficient is 1.
extern "C" __global__ void norm_scale(
    const long long* __restrict__ first_chunk, const long long* __restrict__ arrays,
    const double* __restrict__ result, long long count, long long chunk_size)
{
    double scale = result[1];
    if (scale == 1) return;
    ACC coefficient = (ACC)scale;
    long long chunk = blockIdx.x, a = array_of(first_chunk, count, chunk);
    REAL* grad = (REAL*)arrays[2 * a];
    long long first = (chunk - first_chunk[a]) * chunk_size, end = first + chunk_size, size = arrays[2 * a + 1];
    for (long long k = first + threadIdx.x; k < end && k < size; k += blockDim.x)
        grad[k] = store(coefficient * load(grad[k]));
}
