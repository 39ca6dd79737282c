/* column.c - the CPU column of ops.h as one table. */
#include "kernels/cpu/cpu.h"

const p4_ops p4_cpu_ops = {
    .name = "cpu",
    .host_memory = true,
    .logits_chunk = (int64_t)1 << 22,
#define P4_OP(result, name, ...) .name = p4_cpu_##name,
#include "kernels/op_list.h"
};
