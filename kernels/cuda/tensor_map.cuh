/* tensor_map.cuh - what the kernels of compute capability 9.0 share: tensor maps, which describe a matrix to
 * the copy engine (TMA), a thread's position in a ring of stages, and the order of tiles. */
#ifndef P4_TENSOR_MAP_CUDA_CUH
#define P4_TENSOR_MAP_CUDA_CUH

#include <cuda.h>

#include "kernels/cuda/cuda.cuh"

/* Matrices [rows, cols], matrix_bytes apart, that are copied in boxes of box_rows rows of 128 bytes, swizzled
 * by 128 bytes. The address and the distances in bytes are multiples of 16. */
typedef struct p4_tensor_map_spec {
    CUtensorMapDataType type;
    const void *data;
    int64_t cols, rows, row_bytes;
    int64_t matrices, matrix_bytes; /* 0 matrices: one, and coordinates have no matrix number */
    int box_cols, box_rows;         /* box_cols: elements of 128 bytes */
} p4_tensor_map_spec;

/* The driver's cuTensorMapEncodeTiled for dense boxes, swizzled by 128 bytes, zeros out of bounds. 0 is
 * success, else the driver's error. */
int p4_tensor_map_encode(p4_device *device, CUtensorMap *map, CUtensorMapDataType type, cuuint32_t dimensions,
                         const void *data, const cuuint64_t *lengths, const cuuint64_t *bytes,
                         const cuuint32_t *box);
/* Finds the driver's cuTensorMapEncodeTiled; false records a failure. */
bool p4_tensor_map_open(p4_device *device);
/* False records a failure, which names `op`. */
bool p4_tensor_map_make(p4_device *device, CUtensorMap *map, const p4_tensor_map_spec *spec, const char *op);

/* A thread's position in a ring of stages, and the parity of that stage's barriers. */
typedef struct p4_place {
    int at;
    uint32_t parity;
} p4_place;

template <int STAGES> static __device__ __forceinline__ void p4_step_on(p4_place *p)
{
    if (++p->at == STAGES) {
        p->at = 0;
        p->parity ^= 1;
    }
}

/* Tiles of a matrix. */
typedef struct p4_tiles {
    int down, across;
} p4_tiles;

/* Goes down a band of BAND rows of tiles, then the next column, then the next band. */
template <int BAND>
static __device__ __forceinline__ void p4_find_tile(p4_tiles all, int index, int *down, int *across)
{
    const int band = index / (BAND * all.across), rest = index % (BAND * all.across);
    const int height = min(BAND, all.down - band * BAND);
    *down = band * BAND + rest % height;
    *across = rest / height;
}

#endif
