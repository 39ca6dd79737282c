#include "jobs/train/original.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "jobs/train/random_model.h"
#include "src/leaf/parallel.h"
#include "src/packed.h"

enum { CHECKED_ELEMENTS = 1 << 21 /* by a thread at a time */ };

p4_rc p4_original_open(p4_original *original, const char *path, bool random, uint64_t seed)
{
    return random ? p4_random_model_open(&original->hf, &original->random_weights, path, seed)
                  : p4_hf_model_open(&original->hf, path);
}

void p4_original_close(p4_original *original)
{
    p4_original_unload(original);
    p4_shard_free(&original->shard);
    p4_hf_model_close(&original->hf);
    free(original->random_weights);
    *original = (p4_original){0};
}

p4_rc p4_original_shard(p4_original *original, int ranks)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &original->hf.model;
    int64_t L = model->arch.L, params = model->params_count;
    double *layer_cost = p4_alloc((size_t)L, sizeof *layer_cost),
           *cost = p4_alloc((size_t)params, sizeof *cost);
    int64_t *layer = p4_alloc((size_t)params, sizeof *layer);
    if (layer_cost == NULL || cost == NULL || layer == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    for (int64_t i = 0; i < params; i++) {
        const p4_param *p = &model->params[i];
        layer[i] = p->layer;
        cost[i] = (double)(p->rows * p->cols);
        if (p->layer >= 0) {
            layer_cost[p->layer] += cost[i];
        }
    }
    double head_cost = (double)(model->arch.V * model->arch.C);
    TRY(p4_shard_plan(&original->shard, ranks, L, layer_cost, head_cost, params, layer, cost));
done:
    free(layer_cost);
    free(cost);
    free(layer);
    return rc;
}

/* --- the layers that this rank runs ----------------------------------------------------------- */

bool p4_original_is_run_by(const p4_original *original, int rank, int64_t i)
{
    const p4_param *p = &original->hf.model.params[i];
    const p4_shard *shard = &original->shard;
    bool head = shard->head_stage == rank;
    if (p->layer >= 0) {
        return shard->stage[p->layer] == rank;
    }
    switch (p->role) {
    case P4_ROLE_EMBED:
        return shard->stage[0] == rank || (head && original->hf.model.arch.tied);
    case P4_ROLE_POSITION:
        return shard->stage[0] == rank;
    default:
        return head;
    }
}

bool p4_original_is_loaded(const p4_original *original)
{
    return original->form.ops != NULL;
}

/* The weights of this rank's layers, heap. */
static p4_weight *own_layers(const p4_original *original, const p4_compute *compute)
{
    const p4_model *model = &original->hf.model;
    p4_weight *source = p4_alloc((size_t)model->params_count, sizeof *source);
    for (int64_t i = 0; source != NULL && i < model->params_count; i++) {
        source[i] = model->weights[i];
        source[i].data = p4_original_is_run_by(original, compute->group->rank, i) ? source[i].data : NULL;
    }
    return source;
}

int64_t p4_original_bytes(const p4_original *original, const p4_compute *compute)
{
    p4_weight *source = own_layers(original, compute);
    int64_t bytes = source != NULL
                        ? p4_device_form_bytes(compute->ops, compute->device, &original->hf.model, source)
                        : -1;
    free(source);
    return bytes;
}

p4_rc p4_original_load(p4_original *original, const p4_compute *compute)
{
    const p4_model *model = &original->hf.model;
    if (p4_original_is_loaded(original)) {
        return P4_OK;
    }
    p4_weight *source = own_layers(original, compute);
    if (source == NULL) {
        return P4_E_SYSTEM;
    }
    p4_rc rc = p4_device_form_open(&original->form, compute->ops, compute->device, model, source);
    free(source);
    return rc;
}

void p4_original_unload(p4_original *original)
{
    if (p4_original_is_loaded(original)) {
        p4_device_form_close(&original->form);
    }
}

/* --- values of weights ------------------------------------------------------------------------- */

/* The tensors that this rank owns, in pieces that threads look at. */
typedef struct check {
    const p4_original *original;
    p4_stop *stop;
    int rank;
    int64_t *param, *first; /* [count] of a piece: its tensor, its first element */
    int64_t count;
    atomic_bool *nonzero; /* of each parameter: a piece holds a value other than 0 */
    p4_progress progress;
} check;

static p4_rc check_piece(void *user, int64_t item, int buffer)
{
    p4_rc rc = P4_OK;
    check *c = user;
    const p4_hf_model *hf = &c->original->hf;
    int64_t i = c->param[item], first = c->first[item];
    const p4_weight *w = &hf->model.weights[i];
    p4_weight part = {.dtype = w->dtype,
                      .rows = 1,
                      .cols = p4_min_i64(CHECKED_ELEMENTS, w->rows * w->cols - first),
                      .data = (const uint8_t *)w->data + first * p4_dtype_bytes(w->dtype)};
    TRY(p4_stop_check(c->stop));
    p4_hf_model_fetch_pages(hf, &part);
    int64_t bad = p4_weight_find_nonfinite(&part);
    CHECK(bad < 0, "%s: tensor %s: element %lld is NaN or infinite, expected finite weights",
          p4_hf_model_file_of(hf, w), hf->model.params[i].name, (long long)(first + bad));
    if (!p4_all_zero(part.data, part.dtype, part.cols)) {
        atomic_store_explicit(&c->nonzero[i], true, memory_order_relaxed);
    }
    if (buffer == 0) { /* the caller's thread: pieces begin in order, so those before are done or nearly so */
        p4_progress_update(&c->progress, (double)item / (double)c->count * c->progress.total, NULL);
    }
done:
    return rc;
}

/* The pieces of this rank's tensors, in order; only counted where there is no room for them yet. */
static int64_t cut_pieces(check *c)
{
    int64_t count = 0;
    const p4_model *model = &c->original->hf.model;
    for (int64_t i = 0; i < model->params_count; i++) {
        bool mine = c->original->shard.owner[i] == c->rank;
        int64_t elements = mine ? model->params[i].rows * model->params[i].cols : 0;
        for (int64_t first = 0; first < elements; first += CHECKED_ELEMENTS, count++) {
            if (c->param != NULL) {
                c->param[count] = i;
                c->first[count] = first;
            } else {
                c->progress.total += (double)p4_min_i64(CHECKED_ELEMENTS, elements - first);
            }
        }
    }
    return count;
}

p4_rc p4_original_check_values(const p4_original *original, const p4_compute *compute, double *nonzero)
{
    p4_rc rc = P4_OK;
    int64_t params = original->hf.model.params_count;
    check c = {.original = original, .stop = compute->stop, .rank = compute->group->rank};
    c.count = cut_pieces(&c);
    p4_progress_start(&c.progress, "load", "weights", c.progress.total);
    c.param = p4_alloc((size_t)c.count, sizeof *c.param);
    c.first = p4_alloc((size_t)c.count, sizeof *c.first);
    c.nonzero = p4_alloc((size_t)params, sizeof *c.nonzero);
    if (c.param == NULL || c.first == NULL || c.nonzero == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    cut_pieces(&c);
    TRY(p4_parallel(compute->threads, c.count, check_piece, NULL, &c));
    for (int64_t i = 0; i < params; i++) {
        nonzero[i] = atomic_load(&c.nonzero[i]) ? 1.0 : 0.0;
    }
    p4_progress_update(&c.progress, c.progress.total, NULL);
done:
    p4_progress_end(&c.progress);
    free(c.param);
    free(c.first);
    free((void *)c.nonzero);
    return rc;
}
