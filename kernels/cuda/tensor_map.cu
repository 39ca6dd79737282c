/* tensor_map.cu - descriptions of matrices for the copy engine of compute capability 9.0. */
#include "kernels/cuda/tensor_map.cuh"

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                              const cuuint64_t *, const cuuint32_t *, const cuuint32_t *,
                              CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                              CUtensorMapFloatOOBfill);

int p4_cuda_encode(p4_device *device, CUtensorMap *map, CUtensorMapDataType type, cuuint32_t dimensions,
                   const void *data, const cuuint64_t *lengths, const cuuint64_t *bytes,
                   const cuuint32_t *box)
{
    const cuuint32_t every[4] = {1, 1, 1, 1};
    return (int)((encode_fn)device->encode_tiles)(
        map, type, dimensions, (void *)data, lengths, bytes, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

bool p4_cuda_boxes(p4_device *device, CUtensorMap *map, const p4_boxes *boxes, const char *what)
{
    const cuuint64_t lengths[3] = {(cuuint64_t)boxes->cols, (cuuint64_t)boxes->rows,
                                   (cuuint64_t)boxes->matrices};
    const cuuint64_t bytes[2] = {(cuuint64_t)boxes->row_bytes, (cuuint64_t)boxes->matrix_bytes};
    const cuuint32_t box[3] = {(cuuint32_t)boxes->box_cols, (cuuint32_t)boxes->box_rows, 1};
    const int result = p4_cuda_encode(device, map, boxes->type, boxes->matrices > 0 ? 3 : 2, boxes->data,
                                      lengths, bytes, box);
    if (result != 0) {
        p4_cuda_fail(device, "%s: boxes of [%lld, %lld] cannot be described: driver error %d", what,
                     (long long)boxes->rows, (long long)boxes->cols, result);
    }
    return result == 0;
}

bool p4_cuda_boxes_open(p4_device *device)
{
    const char *what = "cuTensorMapEncodeTiled";
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    bool ok = p4_cuda_ok(
        device,
        cudaGetDriverEntryPointByVersion(what, &device->encode_tiles, 12000, cudaEnableDefault, &found),
        what);
    if (ok && (found != cudaDriverEntryPointSuccess || !device->encode_tiles)) {
        p4_cuda_fail(device, "%s: the driver does not have it", what);
        ok = false;
    }
    return ok;
}
