/* blas_import.cu - the functions of cuBLASLt that the CUDA column calls (import.h). */
#include <cublasLt.h>

extern "C" {
#include "src/leaf/import.h"

#define TEXT_OF(x) TEXT(x)
#define TEXT(x) #x

static p4_import library = {"libcublasLt.so." TEXT_OF(CUBLAS_VER_MAJOR), P4_LIBRARY_FOLDER};

#define FORWARD(name, parameters, arguments) \
    P4_IMPORT(library, CUBLAS_STATUS_NOT_INITIALIZED, cublasStatus_t, name, parameters, arguments)

/* clang-format off: a star in the parameters of a macro is taken for a product */
FORWARD(cublasLtCreate, (cublasLtHandle_t * handle), (handle))
FORWARD(cublasLtDestroy, (cublasLtHandle_t handle), (handle))
FORWARD(cublasLtMatmulDescInit_internal,
        (cublasLtMatmulDesc_t product, size_t bytes, cublasComputeType_t compute, cudaDataType_t scale),
        (product, bytes, compute, scale))
FORWARD(cublasLtMatmulDescSetAttribute,
        (cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t what, const void *from, size_t bytes),
        (product, what, from, bytes))
FORWARD(cublasLtMatrixLayoutInit_internal,
        (cublasLtMatrixLayout_t layout, size_t bytes, cudaDataType type, uint64_t rows, uint64_t cols,
         int64_t ld),
        (layout, bytes, type, rows, cols, ld))
FORWARD(cublasLtMatrixLayoutSetAttribute,
        (cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t what, const void *from, size_t bytes),
        (layout, what, from, bytes))
FORWARD(cublasLtMatmulPreferenceInit_internal, (cublasLtMatmulPreference_t preference, size_t bytes),
        (preference, bytes))
FORWARD(cublasLtMatmulPreferenceSetAttribute,
        (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t what, const void *from,
         size_t bytes),
        (preference, what, from, bytes))
FORWARD(cublasLtMatmulAlgoGetHeuristic,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
         cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
         cublasLtMatmulPreference_t preference, int wanted, cublasLtMatmulHeuristicResult_t results[],
         int *found),
        (handle, product, a, b, c, d, preference, wanted, results, found))
FORWARD(cublasLtMatmulAlgoConfigGetAttribute,
        (const cublasLtMatmulAlgo_t *algorithm, cublasLtMatmulAlgoConfigAttributes_t what, void *to,
         size_t bytes, size_t *written),
        (algorithm, what, to, bytes, written))
FORWARD(cublasLtMatmul,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t product, const void *alpha, const void *A,
         cublasLtMatrixLayout_t a, const void *B, cublasLtMatrixLayout_t b, const void *beta, const void *C,
         cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algorithm,
         void *workspace, size_t workspace_bytes, cudaStream_t stream),
        (handle, product, alpha, A, a, B, b, beta, C, c, D, d, algorithm, workspace, workspace_bytes, stream))

P4_IMPORT(library, 0, size_t, cublasLtGetVersion, (void), ())
P4_IMPORT(library, p4_import_error(&library), const char *, cublasLtGetStatusString, (cublasStatus_t status),
          (status))
/* clang-format on */
}
