#include "kernels/ops.h"
#include "src/phase4.h"

#include <stdio.h>

#ifndef P4_VERSION
#error "P4_VERSION comes from CMakeLists.txt"
#endif

const char *p4_version(void)
{
    static char text[128];
    snprintf(text, sizeof text, "%s (MPI; HDF5; backends: cpu%s)", P4_VERSION,
             p4_ops_find("cuda") != NULL ? ", cuda" : "; CUDA not built in");
    return text;
}
