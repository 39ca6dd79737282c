/* trainer_norms.c - the squares of the gradients of several ranks. The last sums, of the first layer and of
 * the embedding, do not overlap with a backward pass. They overlap with the squares of everything else. */
#include <stdlib.h>

#include "jobs/train/trainer.h"

enum {
    PIECE = 1 << 25
}; /* elements at a time: a kernel of the sums beside it may have to wait for one to end */

/* Are the gradient's sums under way before those of the first layer? */
static bool is_early(const p4_trainer *t, int64_t i)
{
    const p4_param *p = &t->model->params[i];
    return p->role == P4_ROLE_HEAD || (p4_role_is_matrix(p->role) && p->layer > 0 && t->sums.by_layer[i]);
}

static int by_place(const void *a, const void *b)
{
    const p4_norm_run *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

p4_rc p4_trainer_norms_open(p4_trainer *t)
{
    const p4_model *model = t->model;
    const p4_optim *o = &t->optim;
    int64_t count = 0;
    p4_norm_run *runs = t->norms.runs = p4_alloc((size_t)model->params_count, sizeof *runs);
    if (runs == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        if (o->at[i] >= 0) {
            int64_t elements = model->params[i].rows * model->params[i].cols;
            runs[count++] =
                (p4_norm_run){.first = o->at[i], .end = o->at[i] + elements, .early = is_early(t, i)};
        }
    }
    qsort(runs, (size_t)count, sizeof *runs, by_place);
    t->norms.count = 0;
    for (int64_t i = 0; i < count; i++) {
        p4_norm_run *last = t->norms.count > 0 ? &runs[t->norms.count - 1] : NULL;
        bool same = last != NULL && last->early == runs[i].early && runs[i].first < last->end + P4_FLAT_GAP &&
                    (last->first < o->replicated_count) == (runs[i].first < o->replicated_count);
        if (same) {
            last->end = runs[i].end;
        } else {
            runs[t->norms.count++] = runs[i];
        }
    }
    return P4_OK;
}

void p4_trainer_norms_close(p4_trainer *t)
{
    free(t->norms.runs);
}

void p4_trainer_norms_add(p4_trainer *t, bool early)
{
    p4_optim *o = &t->optim;
    for (int64_t i = 0; i < t->norms.count; i++) {
        const p4_norm_run *run = &t->norms.runs[i];
        double *sum = &o->sums[run->first < o->replicated_count ? 0 : 1];
        for (int64_t at = run->first; run->early == early && at < run->end; at += PIECE) {
            o->ops->add_sq_norm(o->device, sum, o->grad + at, p4_min_i64(PIECE, run->end - at));
        }
    }
}
