/* ops.c - the list of backends in this build. */
#include "kernels/ops.h"

#include <string.h>

extern const p4_ops p4_cpu_ops;
#ifdef P4_CUDA
extern const p4_ops p4_cuda_ops;
#endif

static const p4_ops *const backends[] = {
    &p4_cpu_ops,
#ifdef P4_CUDA
    &p4_cuda_ops,
#endif
};

const p4_ops *p4_ops_find(const char *name)
{
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
        if (strcmp(backends[i]->name, name) == 0) {
            return backends[i];
        }
    }
    return NULL;
}
