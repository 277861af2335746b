// What every kernel shares: storage and accumulation types, the grid-stride loop, elementary functions and block-wide
// reductions.
//
// REAL is the type that arrays are stored in. ACC is the type that sums are computed in: float for float, __half and
// __nv_bfloat16; double for double. launch.py defines both as macros.

#include "math.cuh"
#include "table.cuh"

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

// Returns the sum of v over the block, in a fixed order, to every thread. blockDim.x must be a power of two; scratch is
// shared memory of blockDim.x values. Every thread of the block must call it.
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

// Returns the largest v of the block in the same way.
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
