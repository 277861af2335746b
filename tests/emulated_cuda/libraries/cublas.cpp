// The part of cuBLAS that CuPy and gpulstm call: products of matrices in column order, float32 sums for half types.
#include <cuda_runtime_api.h>
#include <library_types.h>

#include "gpu.h"

// Of cublas_v2.h, which comes with cuBLAS itself alone.
typedef void* cublasHandle_t;
enum cublasStatus_t {
    CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_INVALID_VALUE = 7, CUBLAS_STATUS_EXECUTION_FAILED = 13,
    CUBLAS_STATUS_NOT_SUPPORTED = 15
};
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C };
enum cublasMath_t { CUBLAS_DEFAULT_MATH = 0, CUBLAS_PEDANTIC_MATH = 2, CUBLAS_TF32_TENSOR_OP_MATH = 3 };
enum cublasPointerMode_t { CUBLAS_POINTER_MODE_HOST, CUBLAS_POINTER_MODE_DEVICE };
enum cublasComputeType_t {
    CUBLAS_COMPUTE_32F = 68, CUBLAS_COMPUTE_32F_PEDANTIC = 69, CUBLAS_COMPUTE_64F = 70,
    CUBLAS_COMPUTE_32F_FAST_16F = 74, CUBLAS_COMPUTE_32F_FAST_16BF = 75, CUBLAS_COMPUTE_32F_FAST_TF32 = 77
};
typedef int cublasGemmAlgo_t;

using namespace gpu;
using Locked = std::lock_guard<std::recursive_mutex>;

struct Handle {
    void* stream = nullptr;
    cublasMath_t math = CUBLAS_DEFAULT_MATH;
    cublasPointerMode_t pointers = CUBLAS_POINTER_MODE_HOST;
};
struct Bfloat16 {
    uint16_t bits;
};

static float wide(_Float16 x) { return (float)x; }
static float wide(float x) { return x; }
static double wide(double x) { return x; }
static float wide(Bfloat16 x) {
    uint32_t bits = (uint32_t)x.bits << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static void narrow(_Float16& to, float x) { to = (_Float16)x; }
static void narrow(float& to, float x) { to = x; }
static void narrow(double& to, double x) { to = x; }
static void narrow(Bfloat16& to, float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    to.bits = (bits & 0x7fffffff) > 0x7f800000 ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
// What a tensor core keeps of a float32: ten bits after the point.
static float tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7f800000) != 0x7f800000) bits = (bits + 0x0fff + (bits >> 13 & 1)) & ~0x1fffu;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// What a tensor core is given of a float32 factor.
enum class Factors { whole, tf32, half, bfloat16 };

static float rounded(float x, Factors factors) {
    _Float16 half;
    Bfloat16 bfloat16;
    switch (factors) {
        case Factors::tf32: return tf32(x);
        case Factors::half: return narrow(half, x), wide(half);
        case Factors::bfloat16: return narrow(bfloat16, x), wide(bfloat16);
        default: return x;
    }
}
static double rounded(double x, Factors) { return x; }

// op(a) (m, k) op(b) (k, n), each in column order.
struct Shape {
    cublasOperation_t ta, tb;
    int m, n, k, lda, ldb, ldc;
    bool wrong() const {
        int a = ta == CUBLAS_OP_N ? m : k, b = tb == CUBLAS_OP_N ? k : n;
        return m < 0 || n < 0 || k < 0 || lda < (a > 1 ? a : 1) || ldb < (b > 1 ? b : 1) || ldc < (m > 1 ? m : 1);
    }
    size_t last_a() const { return ta == CUBLAS_OP_N ? m + (size_t)(k - 1) * lda : k + (size_t)(m - 1) * lda; }
    size_t last_b() const { return tb == CUBLAS_OP_N ? k + (size_t)(n - 1) * ldb : n + (size_t)(k - 1) * ldb; }
    size_t last_c() const { return m + (size_t)(n - 1) * ldc; }
};

// Blocks share out a long sum between them, as those of cuBLAS do.
static const int SLICE = 128;

// The elements from `first` on lie in one live block of the current device.
template <class T> static bool inside(const T* first, size_t elements) {
    Block* block = block_of(first);
    return block && (block->device == current || settings.peers) && (char*)(first + elements) <= block->data + block->size;
}

template <class T, class Sum>
static int multiply(Shape s, Sum alpha, const T* a, const T* b, Sum beta, T* c, Factors factors) {
    if (settings.idle || !s.m || !s.n) return OK;
    if (s.k && (!inside(a, s.last_a()) || !inside(b, s.last_b()))) return fault("cuBLAS reads outside of live memory");
    if (!inside(c, s.last_c())) return fault("cuBLAS writes outside of live memory");
    std::vector<Sum> row(s.k);
    for (int i = 0; i < s.m; ++i) {
        for (int l = 0; l < s.k; ++l)
            row[l] = rounded(wide(s.ta == CUBLAS_OP_N ? a[i + (size_t)l * s.lda] : a[l + (size_t)i * s.lda]), factors);
        for (int j = 0; j < s.n; ++j) {
            const T* column = s.tb == CUBLAS_OP_N ? b + (size_t)j * s.ldb : b + j;
            size_t stride = s.tb == CUBLAS_OP_N ? 1 : s.ldb;
            Sum sum = 0;
            for (int first = 0; first < s.k; first += SLICE) {
                Sum part = 0;
                for (int l = first; l < s.k && l < first + SLICE; ++l)
                    part += row[l] * rounded(wide(column[l * stride]), factors);
                sum += part;
            }
            T& to = c[i + (size_t)j * s.ldc];
            narrow(to, beta ? alpha * sum + beta * wide(to) : alpha * sum);
        }
    }
    return OK;
}

static cublasStatus_t answer(int error) {
    return error ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

template <class T, class Sum>
static cublasStatus_t product(cublasHandle_t handle, Shape s, const void* alpha, const void* a, const void* b,
                              const void* beta, void* c, Factors factors = Factors::whole) {
    Locked _(lock);
    if (s.wrong()) return CUBLAS_STATUS_INVALID_VALUE;
    const Handle& mine = *(Handle*)handle;
    if (idle(mine.stream, &counts.products)) return CUBLAS_STATUS_SUCCESS;
    if (mine.pointers != CUBLAS_POINTER_MODE_HOST) return CUBLAS_STATUS_NOT_SUPPORTED;
    Sum x = *(Sum*)alpha, y = *(Sum*)beta;
    auto run = [=] { return multiply<T, Sum>(s, x, (const T*)a, (const T*)b, y, (T*)c, factors); };
    return answer(enqueue(mine.stream, run, &counts.products, true));
}

static Factors factors_of(cublasHandle_t handle, cublasComputeType_t compute) {
    if (compute == CUBLAS_COMPUTE_32F_FAST_16F) return Factors::half;
    if (compute == CUBLAS_COMPUTE_32F_FAST_16BF) return Factors::bfloat16;
    bool tf32 = compute == CUBLAS_COMPUTE_32F_FAST_TF32 || ((Handle*)handle)->math == CUBLAS_TF32_TENSOR_OP_MATH;
    return tf32 ? Factors::tf32 : Factors::whole;
}

static cublasStatus_t typed(cublasHandle_t handle, Shape s, const void* alpha, const void* a, cudaDataType at,
                            const void* b, cudaDataType bt, const void* beta, void* c, cudaDataType ct,
                            cublasComputeType_t compute) {
    if (at != bt || at != ct) return CUBLAS_STATUS_NOT_SUPPORTED;
    bool fast = compute == CUBLAS_COMPUTE_32F_FAST_16F || compute == CUBLAS_COMPUTE_32F_FAST_16BF;
    bool sums = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    if (at == CUDA_R_64F && compute == CUBLAS_COMPUTE_64F) return product<double, double>(handle, s, alpha, a, b, beta, c);
    if (at == CUDA_R_32F && (sums || fast || compute == CUBLAS_COMPUTE_32F_PEDANTIC))
        return product<float, float>(handle, s, alpha, a, b, beta, c, factors_of(handle, compute));
    if (at == CUDA_R_16F && sums) return product<_Float16, float>(handle, s, alpha, a, b, beta, c);
    if (at == CUDA_R_16BF && sums) return product<Bfloat16, float>(handle, s, alpha, a, b, beta, c);
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

static const void* at(const void* base, cudaDataType type, long long elements) {
    return (const char*)base + elements * (type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2);
}

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) { *handle = (cublasHandle_t) new Handle; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) { delete (Handle*)handle; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* version) { *version = 130200; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
    ((Handle*)handle)->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
    *stream = (cudaStream_t)((Handle*)handle)->stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
    ((Handle*)handle)->math = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
    *mode = ((Handle*)handle)->math;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
    ((Handle*)handle)->pointers = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t* mode) {
    *mode = ((Handle*)handle)->pointers;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void*, size_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                            const void* alpha, const void* a, cudaDataType at, int lda, const void* b, cudaDataType bt,
                            int ldb, const void* beta, void* c, cudaDataType ct, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t) {
    return typed(handle, {ta, tb, m, n, k, lda, ldb, ldc}, alpha, a, at, b, bt, beta, c, ct, compute);
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m,
                                          int n, int k, const void* alpha, const void* a, cudaDataType a_type, int lda,
                                          long long sa, const void* b, cudaDataType b_type, int ldb, long long sb,
                                          const void* beta, void* c, cudaDataType c_type, int ldc, long long sc,
                                          int batch, cublasComputeType_t compute, cublasGemmAlgo_t) {
    if (sa < 0 || sb < 0 || sc < 0) return CUBLAS_STATUS_INVALID_VALUE;  // nobody promises that they work
    for (int q = 0; q < batch; ++q) {
        cublasStatus_t status =
            typed(handle, {ta, tb, m, n, k, lda, ldb, ldc}, alpha, at(a, a_type, q * sa), a_type, at(b, b_type, q * sb),
                  b_type, beta, (void*)at(c, c_type, q * sc), c_type, compute);
        if (status != CUBLAS_STATUS_SUCCESS) return status;
    }
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                              const float* alpha, const float* a, int lda, const float* b, int ldb, const float* beta,
                              float* c, int ldc) {
    Factors factors = factors_of(handle, CUBLAS_COMPUTE_32F);
    return product<float, float>(handle, {ta, tb, m, n, k, lda, ldb, ldc}, alpha, a, b, beta, c, factors);
}
cublasStatus_t cublasDgemm_v2(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                              const double* alpha, const double* a, int lda, const double* b, int ldb,
                              const double* beta, double* c, int ldc) {
    return product<double, double>(handle, {ta, tb, m, n, k, lda, ldb, ldc}, alpha, a, b, beta, c);
}
cublasStatus_t cublasSgemmBatched(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n,
                                  int k, const float* alpha, const float* const* a, int lda, const float* const* b,
                                  int ldb, const float* beta, float* const* c, int ldc, int batch) {
    for (int q = 0; q < batch; ++q)
        if (auto status = cublasSgemm_v2(handle, ta, tb, m, n, k, alpha, a[q], lda, b[q], ldb, beta, c[q], ldc))
            return status;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDgemmBatched(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n,
                                  int k, const double* alpha, const double* const* a, int lda, const double* const* b,
                                  int ldb, const double* beta, double* const* c, int ldc, int batch) {
    for (int q = 0; q < batch; ++q)
        if (auto status = cublasDgemm_v2(handle, ta, tb, m, n, k, alpha, a[q], lda, b[q], ldb, beta, c[q], ldc))
            return status;
    return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
