/* Any bytes as a .safetensors file: refused with a message, or tensors that lie inside the file. */
#include <stdlib.h>
#include <string.h>

#include "io/hf/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    p4_safetensors file;
    p4_error_clear();
    if (p4_safetensors_parse(&file, "input", bytes, count) != P4_OK) {
        if (p4_last_error()[0] == '\0') {
            abort();
        }
        return 0;
    }
    for (int64_t i = 0; i < file.count; i++) {
        const p4_safetensor *tensor = &file.tensors[i];
        const uint8_t *data = tensor->data;
        uint64_t sum = strlen(tensor->name);
        for (uint64_t b = 0; b < tensor->bytes; b++) {
            sum += data[b]; /* ASan sees a byte outside */
        }
        if (p4_safetensors_find(&file, tensor->name) != tensor || data < bytes || sum == UINT64_MAX) {
            abort();
        }
    }
    p4_safetensors_close(&file);
    return 0;
}
