#include "jobs/train/masters.h"

#include "jobs/train/code_masters.h"

#include <stdlib.h>
#include <string.h>

static int64_t elements(const p4_masters *m, int64_t i)
{
    return m->model->params[i].rows * m->model->params[i].cols;
}

p4_rc p4_masters_open(p4_masters *m, const p4_model *model)
{
    *m = (p4_masters){.model = model};
    m->known = p4_alloc((size_t)model->params_count, sizeof *m->known);
    m->of = p4_alloc((size_t)model->params_count, sizeof *m->of);
    if (m->known == NULL || m->of == NULL) {
        p4_masters_close(m);
        return P4_E_SYSTEM;
    }
    return P4_OK;
}

void p4_masters_close(p4_masters *m)
{
    for (int64_t i = 0; m->of != NULL && i < m->model->params_count; i++) {
        free(m->of[i]);
    }
    free(m->of);
    free(m->known);
    *m = (p4_masters){0};
}

int64_t p4_masters_bytes(const p4_model *model, const p4_group *group, const p4_shard *shard, bool ternary,
                         bool others)
{
    const p4_masters m = {.model = model};
    int64_t bytes = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        bool here = p->ternary ? ternary && shard->owner[i] == group->rank : others;
        bytes += here && p->layer >= 0 ? elements(&m, i) * (int64_t)sizeof **m.of : 0;
    }
    return bytes;
}

float *p4_masters_take(p4_masters *m, int64_t i)
{
    if (m->of[i] == NULL) {
        m->of[i] = p4_alloc((size_t)elements(m, i), sizeof *m->of[i]);
    }
    return m->of[i];
}

/* Local. */
static p4_rc take_codes(p4_masters *m, const p4_packed *packed, const p4_group *group, const p4_shard *shard,
                        int threads)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < m->model->params_count; i++) {
        const p4_param *p = &m->model->params[i];
        if (!p->ternary || p->layer < 0) {
            continue;
        }
        m->known[i] = true;
        if (shard->owner[i] == group->rank) {
            float *master = p4_masters_take(m, i);
            TRY(master != NULL ? P4_OK : P4_E_SYSTEM);
            TRY(p4_code_masters(master, &packed->weights[i], &m->model->weights[i], threads));
        }
    }
done:
    return rc;
}

p4_rc p4_masters_of_codes(p4_masters *m, const p4_packed *packed, p4_group *group, const p4_shard *shard,
                          int threads)
{
    return p4_agree(group, take_codes(m, packed, group, shard, threads));
}

p4_rc p4_masters_fetch(const p4_masters *m, p4_group *group, const p4_shard *shard, int64_t i,
                       float **h_value)
{
    p4_rc rc = P4_OK;
    const size_t count = (size_t)elements(m, i);
    *h_value = p4_alloc(count, sizeof **h_value);
    TRY_ALL(group, *h_value != NULL ? P4_OK : P4_E_SYSTEM);
    if (m->of[i] != NULL) {
        memcpy(*h_value, m->of[i], count * sizeof **h_value);
    }
    if (m->model->params[i].ternary && group->ranks > 1) {
        p4_group_bcast(group, *h_value, (int64_t)(count * sizeof **h_value), shard->owner[i]);
    }
done:
    if (rc != P4_OK) {
        free(*h_value);
        *h_value = NULL;
    }
    return rc;
}
