/* dots.c - which dot products this machine has. */
#include "kernels/cpu/dots.h"

const p4_dots *p4_cpu_dots_at(int index)
{
    const p4_dots *avx2 = p4_cpu_dots_avx2();
    if (avx2 != NULL && index == 0) {
        return avx2;
    }
    return index == (avx2 != NULL) ? &p4_cpu_dots_portable : NULL;
}
