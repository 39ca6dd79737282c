/* block_layout.h - how the codes of blocks at work lie (jobs/train/block_trainer_codes.c), for tests. */
#ifndef P4_TEST_BLOCK_LAYOUT_H
#define P4_TEST_BLOCK_LAYOUT_H

#include "check.h"
#include "jobs/train/block_trainer.h"

/* Every ternary row is in a run. */
static inline void expect_runs(const p4_block_trainer *t, const char *model)
{
    int64_t rows = 0, in_runs = 0;
    for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
        rows += t->part.params[i].ternary ? t->part.params[i].rows : 0;
    }
    for (int64_t r = 0; r < t->runs_count; r++) {
        in_runs += t->runs[r].codes.rows;
    }
    EXPECT(rows > 0 && rows == in_runs, "%s: %lld rows, %lld in runs", model, (long long)rows,
           (long long)in_runs);
}

/* What matrices unpack to lies in the trainer's memory, each apart from the others. */
static inline void expect_apart(const p4_block_trainer *t, const char *model)
{
    const char *end = (const char *)t->memory + t->memory_bytes;
    int64_t each = t->compute->ops->act_bytes(t->compute->device);
    for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
        const p4_param *p = &t->part.params[i];
        const char *dense = t->dense[i], *behind = dense + p->rows * p->cols * each;
        if (dense == NULL) {
            continue;
        }
        EXPECT(p->ternary && dense >= (const char *)t->memory && behind <= end, "%s: %s", model, p->name);
        for (int64_t k = p4_block_first_entry(t); k < i; k++) {
            EXPECT(t->dense[k] == NULL || t->dense[k] >= behind ||
                       t->dense[k] + t->part.params[k].rows * t->part.params[k].cols * each <= dense,
                   "%s: %s and %s", model, p->name, t->part.params[k].name);
        }
    }
}

#endif
