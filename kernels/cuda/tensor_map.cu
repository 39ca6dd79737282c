/* tensor_map.cu - tensor maps for the copy engine (TMA) of compute capability 9.0. */
#include "kernels/cuda/tensor_map.cuh"

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                              const cuuint64_t *, const cuuint32_t *, const cuuint32_t *,
                              CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                              CUtensorMapFloatOOBfill);

int p4_tensor_map_encode(p4_device *device, CUtensorMap *map, CUtensorMapDataType type, cuuint32_t dimensions,
                         const void *data, const cuuint64_t *lengths, const cuuint64_t *bytes,
                         const cuuint32_t *box)
{
    const cuuint32_t every[4] = {1, 1, 1, 1};
    return (int)((encode_fn)device->encode_tiled)(
        map, type, dimensions, (void *)data, lengths, bytes, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

bool p4_tensor_map_make(p4_device *device, CUtensorMap *map, const p4_tensor_map_spec *spec, const char *op)
{
    const cuuint64_t lengths[3] = {(cuuint64_t)spec->cols, (cuuint64_t)spec->rows,
                                   (cuuint64_t)spec->matrices};
    const cuuint64_t bytes[2] = {(cuuint64_t)spec->row_bytes, (cuuint64_t)spec->matrix_bytes};
    const cuuint32_t box[3] = {(cuuint32_t)spec->box_cols, (cuuint32_t)spec->box_rows, 1};
    const int result = p4_tensor_map_encode(device, map, spec->type, spec->matrices > 0 ? 3 : 2, spec->data,
                                            lengths, bytes, box);
    if (result != 0) {
        p4_cuda_fail(device, "%s: no tensor map of [%lld, %lld]: driver error %d", op, (long long)spec->rows,
                     (long long)spec->cols, result);
    }
    return result == 0;
}

bool p4_tensor_map_open(p4_device *device)
{
    const char *what = "cuTensorMapEncodeTiled";
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    bool ok = p4_cuda_ok(
        device,
        cudaGetDriverEntryPointByVersion(what, &device->encode_tiled, 12000, cudaEnableDefault, &found),
        what);
    if (ok && (found != cudaDriverEntryPointSuccess || !device->encode_tiled)) {
        p4_cuda_fail(device, "%s: the driver does not have it", what);
        ok = false;
    }
    return ok;
}
