/* block_trainer_codes.c - the ternary codes of the blocks at work: where they lie, and how they come from
 * masters.
 *
 * Quantizing and unpacking work row by row. So entries with rows of one length lie one after another, in the
 * order in which the optimizer has their masters: where one ends at the place where the next begins, they are
 * one run of rows. A step then has a few calls for all matrices of the blocks. With several ranks a run has
 * entries of one owner. Each array of an entry begins at a place that p4_arena_take gives, whether it
 * continues a run or not. */
#include "jobs/train/block_trainer.h"

/* Have the entries rows of one length and, if so asked, one owner? */
static bool are_alike(const p4_block_trainer *t, int64_t i, int64_t k, bool by_owner)
{
    const p4_param *params = t->part.params;
    return params[i].ternary && params[k].ternary && params[i].cols == params[k].cols &&
           (!by_owner || t->ranks.owner[i] == t->ranks.owner[k]);
}

/* The next entry after `from` that is like `first`; the end of the entries: there is none. */
static int64_t next_alike(const p4_block_trainer *t, int64_t first, int64_t from, bool by_owner)
{
    int64_t end = p4_block_end_entry(t), i = from + 1;
    while (i < end && !are_alike(t, first, i, by_owner)) {
        i++;
    }
    return i;
}

/* Is it the first of those that are like it? */
static bool is_first(const p4_block_trainer *t, int64_t i, bool by_owner)
{
    return t->part.params[i].ternary && next_alike(t, i, p4_block_first_entry(t) - 1, by_owner) == i;
}

static void lay_out_class(p4_block_trainer *t, p4_arena *arena, int64_t first)
{
    int64_t end = p4_block_end_entry(t);
    for (int64_t i = first; i < end; i = next_alike(t, first, i, true)) {
        const p4_param *p = &t->part.params[i];
        t->codes[i] =
            (p4_weight){.dtype = P4_TERNARY, .rows = p->rows, .cols = p->cols, .scale_group = p->scale_group};
        t->codes[i].data = p4_arena_take(arena, p->rows * p4_code_row_bytes(p->cols));
    }
    for (int64_t i = first; i < end; i = next_alike(t, first, i, true)) {
        t->codes[i].scale = p4_arena_take(arena, p4_param_scale_count(&t->part.params[i]) * 2);
    }
}

/* Owner by owner, so that each sends its codes as one piece. */
static void lay_out_codes(p4_block_trainer *t, p4_arena *arena)
{
    for (int r = 0; r < t->compute->group->ranks; r++) {
        t->ranks.owner_first[r] = arena->used_bytes;
        for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
            if (t->ranks.owner[i] == r && is_first(t, i, true)) {
                lay_out_class(t, arena, i);
            }
        }
    }
    t->ranks.owner_first[t->compute->group->ranks] = arena->used_bytes;
}

/* The slot's first part. */
static int64_t slot_of(const p4_block_trainer *t, int64_t i)
{
    while (t->part.params[i].row_offset > 0) {
        i--;
    }
    return i;
}

/* The unpacked parts of a slot lie one after another, so that a product takes them as one matrix. Parts that
 * are not ternary, which may be the first, have no place there. */
static void lay_out_dense(p4_block_trainer *t, p4_arena *arena, int64_t first)
{
    int64_t each = t->compute->ops->act_bytes(t->compute->device), slot = -1;
    char *slot_end = NULL;
    for (int64_t i = first; i < p4_block_end_entry(t); i = next_alike(t, first, i, false)) {
        const p4_param *p = &t->part.params[i];
        if (slot_of(t, i) != slot) {
            slot = slot_of(t, i);
            slot_end = p4_arena_take(arena, p4_slot_rows(&t->part, slot) * p->cols * each);
        }
        t->dense[i] = slot_end;
        slot_end = slot_end == NULL ? NULL : slot_end + p->rows * p->cols * each;
    }
}

void p4_block_codes_lay_out(p4_block_trainer *t, p4_arena *arena)
{
    bool weighs = t->plan.quantize.quantizer->needs == P4_NEEDS_DIAGONAL;
    lay_out_codes(t, arena);
    for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
        if (t->plan.activation_bits == 0 && is_first(t, i, false)) {
            lay_out_dense(t, arena, i);
        }
        if (weighs && t->part.params[i].ternary) {
            t->importance[i] = p4_arena_take(arena, t->part.params[i].cols * 4);
        }
    }
}

/* --- runs ------------------------------------------------------------------------------------- */

static p4_block_run run_of(const p4_block_trainer *t, int64_t i)
{
    return (p4_block_run){.owner = t->ranks.owner[i],
                          .codes = t->codes[i],
                          .master = t->optim.master + t->optim.at[i],
                          .importance = t->importance[i],
                          .dense = t->dense[i]};
}

/* Does the entry begin where the run ends, in every array, and its rows have scales of their own? */
static bool continues(const p4_block_trainer *t, const p4_block_run *run, const p4_block_run *next)
{
    const p4_weight *codes = &run->codes;
    int64_t each = t->compute->ops->act_bytes(t->compute->device), count = codes->rows * codes->cols;
    return run->owner == next->owner && codes->cols == next->codes.cols &&
           codes->scale_group == next->codes.scale_group && codes->scale_group <= codes->cols &&
           (const char *)codes->data + codes->rows * p4_code_row_bytes(codes->cols) == next->codes.data &&
           (const uint16_t *)codes->scale + p4_weight_scale_count(codes) == next->codes.scale &&
           run->master + count == next->master && run->importance == next->importance &&
           (run->dense == NULL ? next->dense == NULL : run->dense + count * each == next->dense);
}

void p4_block_codes_find_runs(p4_block_trainer *t)
{
    int64_t end = p4_block_end_entry(t);
    t->runs_count = 0;
    for (int64_t first = p4_block_first_entry(t); first < end; first++) {
        for (int64_t i = is_first(t, first, true) ? first : end; i < end; i = next_alike(t, first, i, true)) {
            const p4_block_run next = run_of(t, i);
            if (i > first && continues(t, &t->runs[t->runs_count - 1], &next)) {
                t->runs[t->runs_count - 1].codes.rows += next.codes.rows;
            } else {
                t->runs[t->runs_count++] = next;
            }
        }
    }
}

static void quantize_run(p4_block_trainer *t, const p4_block_run *run, p4_quant_error *h_error)
{
    p4_quantize_masters(t->compute, &t->plan.quantize, &run->codes, run->master, run->importance, h_error);
}

static void unpack_run(p4_block_trainer *t, const p4_block_run *run)
{
    if (run->dense != NULL) {
        t->compute->ops->weight_unpack(t->compute->device, run->dense, &run->codes);
    }
}

void p4_block_trainer_quantize(p4_block_trainer *t, p4_quant_error *h_errors)
{
    for (int64_t i = p4_block_first_entry(t); h_errors != NULL && i < p4_block_end_entry(t); i++) {
        const p4_block_run one = run_of(t, i);
        if (t->part.params[i].ternary) {
            quantize_run(t, &one, &h_errors[i]);
        }
    }
    for (int64_t r = 0; h_errors == NULL && r < t->runs_count; r++) {
        quantize_run(t, &t->runs[r], NULL);
    }
    p4_block_trainer_unpack(t);
}

void p4_block_trainer_quantize_own(p4_block_trainer *t)
{
    for (int64_t r = 0; r < t->runs_count; r++) {
        if (t->runs[r].owner == t->compute->group->rank) {
            quantize_run(t, &t->runs[r], NULL);
        }
    }
}

void p4_block_trainer_unpack_owned(p4_block_trainer *t, bool own)
{
    for (int64_t r = 0; r < t->runs_count; r++) {
        if ((t->runs[r].owner == t->compute->group->rank) == own) {
            unpack_run(t, &t->runs[r]);
        }
    }
}

void p4_block_trainer_unpack(p4_block_trainer *t)
{
    for (int64_t r = 0; r < t->runs_count; r++) {
        unpack_run(t, &t->runs[r]);
    }
}
