// libcublas.so.13: matrix products as cudarc and candle ask for them, in f32 (f64 for f64), one element after another.
#include <cstdio>
#include <string>
#include <vector>

#include "../include/cuda_bf16.h"
#include "../include/cuda_fp16.h"
#include "../memory.h"

using namespace cuda_on_cpu;

namespace {

enum Status { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum DataType { F32 = 0, F64 = 1, F16 = 2, BF16 = 14 };
enum ComputeType { COMPUTE_16F = 64, COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_64F = 70, FAST_16F = 74, FAST_16BF = 75, FAST_TF32 = 77 };

struct Matrix {
    const void *data;
    int type;
    long long leading, stride; // elements from column to column, from matrix to matrix
};

size_t element_bytes(int type) { return type == F64 ? 8 : type == F32 ? 4 : 2; }

double load(const void *data, int type, size_t at) {
    switch (type) {
    case F64: return static_cast<const double *>(data)[at];
    case F32: return static_cast<const float *>(data)[at];
    case F16: return float(static_cast<const __half *>(data)[at]);
    default: return float(static_cast<const __nv_bfloat16 *>(data)[at]);
    }
}

void store(void *data, int type, size_t at, double value) {
    switch (type) {
    case F64: static_cast<double *>(data)[at] = value; break;
    case F32: static_cast<float *>(data)[at] = value; break;
    case F16: static_cast<__half *>(data)[at] = __half(value); break;
    default: static_cast<__nv_bfloat16 *>(data)[at] = __nv_bfloat16(value);
    }
}

bool known(int type) { return type == F32 || type == F64 || type == F16 || type == BF16; }

// Row i of the result holds what multiplies element i, `k` numbers; a reduced type loses the bits that a device drops.
template <class T>
std::vector<T> rows(const Matrix &matrix, size_t batch, bool along_rows, size_t count, size_t k, int compute) {
    std::vector<T> made(count * k);
    for (size_t i = 0; i < count; ++i)
        for (size_t j = 0; j < k; ++j) {
            size_t at = batch * matrix.stride + (along_rows ? i + j * matrix.leading : j + i * matrix.leading);
            double value = load(matrix.data, matrix.type, at);
            if (matrix.type == F32 && compute == FAST_TF32) value = round_to(value, 10, -126);
            if (matrix.type == F32 && compute == FAST_16BF) value = float(__nv_bfloat16(value));
            if (matrix.type == F32 && compute == FAST_16F) value = float(__half(value));
            made[i * k + j] = value;
        }
    return made;
}

template <class T> T dot(const T *a, const T *b, size_t k) {
    T lanes[16] = {};
    size_t i = 0;
    for (; i + 16 <= k; i += 16)
        for (size_t lane = 0; lane < 16; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
    T sum = 0;
    for (T lane : lanes) sum += lane;
    for (; i < k; ++i) sum += a[i] * b[i];
    return sum;
}

// Fails unless all that a product reads or writes lies in device memory.
void check(const char *name, const Matrix &matrix, size_t rows, size_t columns, int batches) {
    if (!rows || !columns || batches < 1) return;
    size_t last = (batches - 1) * matrix.stride + (columns - 1) * matrix.leading + rows;
    check_device_range(matrix.data, last * element_bytes(matrix.type), name);
}

template <class T>
int multiply(bool a_transposed, bool b_transposed, size_t m, size_t n, size_t k, double alpha, Matrix a, Matrix b,
             double beta, Matrix c, int batches, int compute) {
    for (int batch = 0; batch < batches; ++batch) {
        auto of_a = rows<T>(a, batch, !a_transposed, m, k, compute);
        auto of_b = rows<T>(b, batch, b_transposed, n, k, compute);
        for (size_t column = 0; column < n; ++column)
            for (size_t row = 0; row < m; ++row) {
                size_t at = batch * c.stride + column * c.leading + row;
                T sum = T(alpha) * dot(&of_a[row * k], &of_b[column * k], k);
                if (beta != 0) sum += T(beta) * T(load(c.data, c.type, at));
                store(const_cast<void *>(c.data), c.type, at, sum);
            }
    }
    return SUCCESS;
}

int product(const char *name, int a_operation, int b_operation, int m, int n, int k, const void *alpha, Matrix a,
            Matrix b, const void *beta, Matrix c, int batches, int compute) {
    if (m < 0 || n < 0 || k < 0 || !known(a.type) || !known(b.type) || !known(c.type)) return INVALID_VALUE;
    bool a_transposed = a_operation != 0, b_transposed = b_operation != 0;
    if (a.leading < (a_transposed ? k : m) || b.leading < (b_transposed ? n : k) || c.leading < m) return INVALID_VALUE;
    int scale = compute == COMPUTE_64F ? F64 : compute == COMPUTE_16F ? F16 : F32;
    std::string label = name;
    check((label + ", A").c_str(), a, a_transposed ? k : m, a_transposed ? m : k, batches);
    check((label + ", B").c_str(), b, b_transposed ? n : k, b_transposed ? k : n, batches);
    check((label + ", C").c_str(), c, m, n, batches);
    auto run = compute == COMPUTE_64F ? multiply<double> : multiply<float>;
    return run(a_transposed, b_transposed, m, n, k, load(alpha, scale, 0), a, b, load(beta, scale, 0), c, batches,
               compute);
}

int unsupported(const char *name) {
    fprintf(stderr, "cuda-on-cpu: %s is not emulated\n", name);
    return NOT_SUPPORTED;
}

} // namespace

extern "C" {

int cublasCreate_v2(void **handle) { return *handle = new int, SUCCESS; }
int cublasDestroy_v2(void *handle) { return delete static_cast<int *>(handle), SUCCESS; }
int cublasSetStream_v2(void *, void *) { return SUCCESS; }
int cublasSetMathMode(void *, int) { return SUCCESS; }
int cublasSetWorkspace_v2(void *, void *, size_t) { return SUCCESS; }
int cublasGetPointerMode_v2(void *, int *mode) { return *mode = 0, SUCCESS; }
int cublasSetPointerMode_v2(void *, int mode) { return mode ? unsupported("a scale in device memory") : SUCCESS; }

int cublasGemmStridedBatchedEx(void *, int a_operation, int b_operation, int m, int n, int k, const void *alpha,
                               const void *a, int a_type, int lda, long long a_stride, const void *b, int b_type,
                               int ldb, long long b_stride, const void *beta, void *c, int c_type, int ldc,
                               long long c_stride, int batches, int compute, int) {
    return product("cublasGemmStridedBatchedEx", a_operation, b_operation, m, n, k, alpha, {a, a_type, lda, a_stride},
                   {b, b_type, ldb, b_stride}, beta, {c, c_type, ldc, c_stride}, batches, compute);
}
int cublasGemmEx(void *, int a_operation, int b_operation, int m, int n, int k, const void *alpha, const void *a,
                 int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type,
                 int ldc, int compute, int) {
    return product("cublasGemmEx", a_operation, b_operation, m, n, k, alpha, {a, a_type, lda, 0}, {b, b_type, ldb, 0},
                   beta, {c, c_type, ldc, 0}, 1, compute);
}

#define CUDA_ON_CPU_GEMM(letter, type, data_type, compute)                                                             \
    int cublas##letter##gemmStridedBatched(void *, int a_operation, int b_operation, int m, int n, int k,              \
                                           const type *alpha, const type *a, int lda, long long a_stride,              \
                                           const type *b, int ldb, long long b_stride, const type *beta, type *c,      \
                                           int ldc, long long c_stride, int batches) {                                 \
        return product("cublas" #letter "gemmStridedBatched", a_operation, b_operation, m, n, k, alpha,                \
                       {a, data_type, lda, a_stride}, {b, data_type, ldb, b_stride}, beta,                             \
                       {c, data_type, ldc, c_stride}, batches, compute);                                               \
    }                                                                                                                  \
    int cublas##letter##gemm_v2(void *, int a_operation, int b_operation, int m, int n, int k, const type *alpha,      \
                                const type *a, int lda, const type *b, int ldb, const type *beta, type *c, int ldc) {  \
        return product("cublas" #letter "gemm", a_operation, b_operation, m, n, k, alpha, {a, data_type, lda, 0},      \
                       {b, data_type, ldb, 0}, beta, {c, data_type, ldc, 0}, 1, compute);                              \
    }
CUDA_ON_CPU_GEMM(S, float, F32, COMPUTE_32F)
CUDA_ON_CPU_GEMM(D, double, F64, COMPUTE_64F)

int cublasSgemv_v2() { return unsupported("cublasSgemv"); }
int cublasDgemv_v2() { return unsupported("cublasDgemv"); }
int cublasSasum_v2() { return unsupported("cublasSasum"); }
int cublasDasum_v2() { return unsupported("cublasDasum"); }

} // extern "C"
