// Everything in the kernels that is not portable C++: small functions, each with a version for the processor, so that
// the tests run every line without a GPU.
//
// On the processor emulated::... synchronises the threads of a warp (tests/emulated_cuda/include/warps.h).
//
//     lane() warp()               the numbers of this thread's lane and warp, in blocks of one dimension
//     load_constant(at)           loads a granule that nothing writes while the kernel runs
//     load_exchanged(at)          loads a granule that another block of this launch may have written
//     as_factor(x)                x rounded to the precision of products
//     shuffle_xor(x, mask)        the x of lane ^ mask
//     multiply_fragment(c, a, x)  one instruction of the tensor cores; multiply_tile uses it
//     arrive(count) look(count)   adds one to a counter (release); reads it (acquire)
//     pause()                     to be called between two looks

#pragma once

#include "common.cuh"

// Sixteen consecutive bytes of a row.
union alignas(16) Granule {
    unsigned words[4];
    REAL numbers[16 / sizeof(REAL)];
};

// Whether products run on tensor cores: those of half types, and those of float if TF32 is defined, with ten bits of
// mantissa. The tensor cores of sm_75 support only __half, in fragments of half the size.
#if defined(REAL_IS_HALF) && (defined(SMALL_FRAGMENTS) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800))
constexpr int FRAGMENT = 2;  // words of the left operand in one lane
#else
constexpr int FRAGMENT = 4;
#endif
#if defined(PLAIN_PRODUCTS) || !(defined(REAL_IS_HALF) || defined(REAL_IS_BFLOAT16) || defined(TF32))
constexpr bool TENSOR_CORES = false;
#elif defined(__CUDA_ARCH__) && (__CUDA_ARCH__ < 750 || (__CUDA_ARCH__ < 800 && !defined(REAL_IS_HALF)))
constexpr bool TENSOR_CORES = false;
#else
constexpr bool TENSOR_CORES = true;
#endif

__device__ inline int lane() { return threadIdx.x % 32; }
__device__ inline int warp() { return threadIdx.x / 32; }

#ifdef __CUDACC__

__device__ inline Granule load_constant(const Granule* at) {
    Granule g;
    asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(g.words[0]), "=r"(g.words[1]), "=r"(g.words[2]), "=r"(g.words[3]) : "l"(at));
    return g;
}

__device__ inline Granule load_exchanged(const Granule* at) {  // bypasses the L1 cache, which may be out of date
    Granule g;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(g.words[0]), "=r"(g.words[1]), "=r"(g.words[2]), "=r"(g.words[3]) : "l"(at) : "memory");
    return g;
}

__device__ inline ACC shuffle_xor(ACC x, int mask) { return __shfl_xor_sync(0xffffffff, x, mask); }
__device__ inline void arrive(unsigned* count) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(count) : "memory");
}
__device__ inline unsigned look(const unsigned* count) {
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(count) : "memory");
    return value;
}
__device__ inline void pause() {}

#else

inline Granule load_constant(const Granule* at) { return *at; }
inline Granule load_exchanged(const Granule* at) { return *at; }
inline ACC shuffle_xor(ACC x, int mask) {
    unsigned given[sizeof(ACC) / 4], got[sizeof(ACC) / 4];
    memcpy(given, &x, sizeof x);
    emulated::exchange(__LINE__, given, got, sizeof x / 4, [&](int lane) { return lane ^ mask; });
    memcpy(&x, got, sizeof x);
    return x;
}
inline void arrive(unsigned* count) { ++*count; }
inline unsigned look(const unsigned* count) { return *count; }
inline void pause() { emulated::pause(); }

#endif

#if defined(TF32) && defined(__CUDACC__)
__device__ inline REAL as_factor(ACC x) {
#if __CUDA_ARCH__ >= 800
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
#else
    return x;
#endif
}
#elif defined(TF32)
inline REAL as_factor(ACC x) { return isfinite(x) ? __uint_as_float((__float_as_uint(x) + 0x1000) & ~0x1fffu) : x; }
#else
__device__ inline REAL as_factor(ACC x) { return store(x); }
#endif

// One instruction of the tensor cores: c (16, 8) += a (16, K) x (8, K)'. A lane has FRAGMENT words of a, half as many
// of x, and 4 numbers of c. It works only where there are tensor cores.
#if defined(__CUDACC__)

#if defined(REAL_IS_HALF)
#define TYPES "m16n8k16.row.col.f32.f16.f16.f32"
#elif defined(REAL_IS_BFLOAT16)
#define TYPES "m16n8k16.row.col.f32.bf16.bf16.f32"
#else
#define TYPES "m16n8k8.row.col.f32.tf32.tf32.f32"
#endif

__device__ inline void multiply_fragment(float* c, const unsigned* a, const unsigned* x) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned." TYPES " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(x[0]), "r"(x[1]));
#elif __CUDA_ARCH__ >= 750
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(x[0]));
#endif
}

#else

inline void multiply_fragment(float* c, const unsigned* a, const unsigned* x) {
    emulated::multiply_fragments<4 / sizeof(REAL), FRAGMENT>(__LINE__, c, a, x, [](unsigned word, int n) {
        Granule g = {{word}};
        return load(g.numbers[n]);
    });
}

#endif

// The same for whole granules. With g = lane / 4 and q = lane % 4, a lane has granule q of rows g and g + 8 of a
// (`upper`, `lower`), granule q of row g of x, and of c the elements (g, 2 q), (g, 2 q + 1), (g + 8, 2 q) and
// (g + 8, 2 q + 1). One instruction takes one or two words of each granule, so it reads the columns along K in another
// order than they have in memory. Both operands are permuted in the same way, so the sums are the same.
__device__ inline void multiply_tile(float* c, const Granule& upper, const Granule& lower, const Granule& x) {
#pragma unroll
    for (int k = 0; k < 4; k += FRAGMENT / 2) {
        unsigned a[] = {upper.words[k], lower.words[k], upper.words[(k + 1) % 4], lower.words[(k + 1) % 4]};
        multiply_fragment(c, a, x.words + k);
    }
}
