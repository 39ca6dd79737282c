/* The table of ops: every member of every column of this build is set, and the list (kernels/op_list.h) is
 * all there is in p4_ops. */
#include <stddef.h>

#include "check.h"
#include "kernels/ops.h"

static void check_column(const p4_ops *ops)
{
    EXPECT(ops->logits_chunk > 0, "%s: logits_chunk %lld", ops->name, (long long)ops->logits_chunk);
#define P4_OP(result, op, ...) EXPECT(ops->op != NULL, "column %s lacks op %s", ops->name, #op);
#include "kernels/op_list.h"
}

/* The ops of the list fill the struct from logits_chunk to its end: no op is declared by hand. */
static void check_list(void)
{
    static const size_t at[] = {
#define P4_OP(result, op, ...) offsetof(p4_ops, op),
#include "kernels/op_list.h"
    };
    const size_t count = sizeof at / sizeof at[0], each = sizeof(void (*)(void));
    EXPECT(at[0] + count * each == sizeof(p4_ops), "%zu ops in the list, %zu bytes of them in p4_ops", count,
           sizeof(p4_ops) - at[0]);
    EXPECT(at[0] == offsetof(p4_ops, logits_chunk) + sizeof(int64_t),
           "members between logits_chunk and the ops");
}

int main(void)
{
    static const char *const columns[] = {"cpu", "cuda"};
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        const p4_ops *ops = p4_ops_find(columns[i]);
        EXPECT(ops != NULL || i > 0, "no column cpu");
        if (ops != NULL) {
            check_column(ops);
        }
    }
    check_list();
    return TEST_END();
}
