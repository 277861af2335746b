// What every kernel shares: storage and accumulation types, the grid-stride loop, block-wide reductions, and
// the search for a chunk's array.
//
// REAL is the type arrays are stored in, ACC the type sums are made in: float for float, __half and
// __nv_bfloat16; double for double. Both come as macros from launch.py.

#if defined(REAL_IS_HALF)
#include <cuda_fp16.h>
#elif defined(REAL_IS_BFLOAT16)
#include <cuda_bf16.h>
#endif

// Visits 0 <= k < n from any grid; 64 bits wide, since T*B*4H can pass 2^31.
#define FOR_EACH(k, n)                                                                     \
    for (long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x; k < (long long)(n); \
         k += (long long)gridDim.x * blockDim.x)

// Storage to accumulation type and back.
#if defined(REAL_IS_HALF)
__device__ inline ACC load(REAL x) { return __half2float(x); }
__device__ inline REAL store(ACC x) { return __float2half(x); }
#elif defined(REAL_IS_BFLOAT16)
__device__ inline ACC load(REAL x) { return __bfloat162float(x); }
__device__ inline REAL store(ACC x) { return __float2bfloat16(x); }
#else
__device__ inline ACC load(REAL x) { return x; }
__device__ inline REAL store(ACC x) { return x; }
#endif

// One name for both accumulation types.
__device__ inline float tanh_(float x) { return tanhf(x); }
__device__ inline double tanh_(double x) { return tanh(x); }
__device__ inline float exp_(float x) { return expf(x); }
__device__ inline double exp_(double x) { return exp(x); }
__device__ inline float log_(float x) { return logf(x); }
__device__ inline double log_(double x) { return log(x); }
__device__ inline float sqrt_(float x) { return sqrtf(x); }
__device__ inline double sqrt_(double x) { return sqrt(x); }
__device__ inline ACC sigmoid(ACC x) { return 1 / (1 + exp_(-x)); }

// One pre-activation: element (b, row) of zx and zr (B, width), with the biases (width) there are.
__device__ inline ACC pre_activation(
    const REAL* zx, const REAL* zr, const REAL* b_ih, const REAL* b_hh, long long b, long long row, long long width)
{
    long long at = b * width + row;
    return load(zx[at]) + load(zr[at]) + (b_ih ? load(b_ih[row]) : 0) + (b_hh ? load(b_hh[row]) : 0);
}

// The share of its old state that unit k of sequence b keeps in a step: all of it where the sequence is not alive
// (it has ended, or has not begun), else what `keep` (B, H) says (zoneout; null for nothing).
__device__ inline ACC share_kept(const bool* alive, const REAL* keep, long long b, long long k) {
    if (alive && !alive[b]) return 1;
    return keep ? load(keep[k]) : 0;
}

// A state after the step.
__device__ inline ACC mixed(ACC kept, ACC before, ACC after) { return kept * before + (1 - kept) * after; }

// The sum of v over the block, in a fixed order, given to every thread. blockDim.x must be a power of two;
// scratch is shared memory of blockDim.x values. Every thread of the block must call it.
__device__ inline ACC block_sum(ACC v, ACC* scratch) {
    scratch[threadIdx.x] = v;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
        __syncthreads();
    }
    ACC total = scratch[0];
    __syncthreads();  // scratch may be used again at once
    return total;
}

// The largest v of the block, likewise.
__device__ inline ACC block_max(ACC v, ACC* scratch) {
    scratch[threadIdx.x] = v;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half && scratch[threadIdx.x + half] > scratch[threadIdx.x])
            scratch[threadIdx.x] = scratch[threadIdx.x + half];
        __syncthreads();
    }
    ACC largest = scratch[0];
    __syncthreads();
    return largest;
}

// Kernels over many arrays at once cut each into chunks, one for a block. This is the array that a chunk
// belongs to: the last one that begins no later. first_chunk (count + 1) is sorted; an
// array without elements has no chunk and is passed over.
__device__ inline long long array_of(const long long* first_chunk, long long count, long long chunk) {
    long long low = 0, high = count;
    while (high - low > 1) {
        long long middle = (low + high) / 2;
        if (first_chunk[middle] <= chunk) low = middle;
        else high = middle;
    }
    return low;
}
