/* trainer_sums.c - the gradients of a step: where the backward pass writes them, and when they are summed
 * over the ranks (trainer.h says what zero_stage changes).
 *
 * A replicated gradient accumulates in the flat array of optim.h and is summed there. A gradient that is
 * summed to its owner is computed in its layer's buffer of `staging`. The layer `buffers` earlier in the
 * backward pass used the same buffer: the device waits for that layer's sums before it writes there again. */
#include <stdlib.h>

#include "jobs/train/trainer.h"

/* The slots of a layer, in the order in which the backward pass completes them. */
static const p4_role slots[] = {P4_ROLE_DOWN, P4_ROLE_UP, P4_ROLE_O, P4_ROLE_QKV};
enum {
    SLOTS = sizeof slots / sizeof slots[0],
    AHEAD = 16 /* layers that the host queues ahead of the sums it knows to be done: about 500 launches
                  (p4_coll.wait_for) */
};

static bool goes_to_owner(const p4_trainer *t, int64_t i)
{
    return t->sharded[i] && t->compute->group->ranks > 1;
}

/* The parts of a slot lie one after another in the flat gradient array, so that its GEMM can add to it
 * directly. */
static bool in_one_piece(const p4_trainer *t, int64_t first)
{
    const p4_model *model = t->model;
    if (t->plan.exact_sums) { /* a micro-batch's gradient is not added to others before it is whole */
        return false;
    }
    for (int64_t i = first; i < first + p4_model_parts(model, first); i++) {
        const p4_param *p = &model->params[i];
        bool here = t->optim.at[i] == t->optim.at[first] + p->row_offset * p->cols && t->optim.at[i] >= 0;
        if (!here || goes_to_owner(t, i)) {
            return false;
        }
    }
    return true;
}

static int64_t slot_count(const p4_trainer *t, int64_t first)
{
    return p4_slot_rows(t->model, first) * t->model->params[first].cols;
}

static float *staged(const p4_trainer *t, int64_t first)
{
    int64_t buffer = t->model->params[first].layer % t->sums.buffers;
    return t->sums.staging + buffer * t->sums.layer_count + t->sums.staged_at[first];
}

p4_rc p4_trainer_sums_layout(p4_trainer *t)
{
    const p4_model *model = t->model;
    int64_t L = model->arch.L;
    t->sums.once = t->plan.zero_stage < 2 && !t->plan.exact_sums;
    t->sums.staged_at = p4_alloc((size_t)model->params_count, sizeof *t->sums.staged_at);
    t->sums.by_layer = p4_alloc((size_t)model->params_count, sizeof *t->sums.by_layer);
    if (t->sums.staged_at == NULL || t->sums.by_layer == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        t->sums.staged_at[i] = -1;
    }
    for (int64_t l = 0; l < L; l++) {
        int64_t count = 0;
        for (int s = 0; s < SLOTS; s++) {
            int64_t first = p4_model_find(model, slots[s], l);
            if (!in_one_piece(t, first)) {
                t->sums.staged_at[first] = count;
                count += p4_ceil_div(slot_count(t, first), 16) * 16; /* 64-byte lines */
            }
        }
        t->sums.layer_count = p4_max_i64(t->sums.layer_count, count);
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        t->sums.by_layer[i] =
            p4_role_is_matrix(p->role) &&
            (goes_to_owner(t, i) || t->sums.staged_at[p4_model_find(model, p->role, p->layer)] < 0);
    }
    return P4_OK;
}

/* Sums once a step keep the gradients of every layer from micro-batch to micro-batch. Exact ones are done
 * when the call returns. */
static int64_t buffers_of(const p4_trainer *t, int64_t micro_batches)
{
    int64_t L = t->model->arch.L;
    if (t->plan.exact_sums) {
        return 1;
    }
    return t->sums.once && micro_batches > 1 ? L : p4_min_i64(2, L);
}

static int64_t staging_bytes(const p4_trainer *t, int64_t micro_batches)
{
    return buffers_of(t, micro_batches) * t->sums.layer_count * 4;
}

int64_t p4_trainer_sums_bytes(const p4_trainer *t, int64_t micro_batches)
{
    return staging_bytes(t, micro_batches) + p4_trainer_exact_bytes(t);
}

p4_rc p4_trainer_sums_open(p4_trainer *t)
{
    const p4_model *model = t->model;
    int64_t L = model->arch.L;
    t->sums.buffers = buffers_of(t, t->batch.count);
    t->sums.summed = p4_alloc((size_t)model->params_count, sizeof *t->sums.summed);
    t->sums.marks = p4_alloc((size_t)t->sums.buffers, sizeof *t->sums.marks);
    t->sums.pending = p4_alloc((size_t)t->sums.buffers, sizeof *t->sums.pending);
    t->sums.sent = p4_alloc((size_t)L, sizeof *t->sums.sent);
    if (t->sums.summed == NULL || t->sums.marks == NULL || t->sums.pending == NULL || t->sums.sent == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t b = 0; b < t->sums.buffers; b++) {
        t->sums.pending[b] = -1;
    }
    p4_rc rc = p4_trainer_exact_open(t);
    return rc != P4_OK ? rc
                       : t->compute->ops->alloc(t->compute->device, (void **)&t->sums.staging,
                                                staging_bytes(t, t->batch.count));
}

/* The gradients that are summed lie at the same offset on every rank: replicated ones come first in the flat
 * array. So do the codes that owners publish. */
p4_rc p4_trainer_sums_share(p4_trainer *t)
{
    p4_rc rc = P4_OK;
    p4_coll *coll = &t->compute->coll;
    TRY(coll->share(coll, t->optim.grad, t->optim.replicated_count * 4));
    TRY(t->sums.layer_count > 0 ? coll->share(coll, t->sums.staging, staging_bytes(t, t->batch.count))
                                : P4_OK);
    TRY(p4_trainer_publishes(t) ? coll->share(coll, t->codes.memory, t->codes.codes_bytes) : P4_OK);
done:
    return rc;
}

void p4_trainer_sums_close(p4_trainer *t)
{
    t->compute->coll.withdraw(&t->compute->coll, t->optim.grad);
    t->compute->coll.withdraw(&t->compute->coll, t->sums.staging);
    t->compute->coll.withdraw(&t->compute->coll, t->codes.memory);
    if (t->sums.staging != NULL) {
        t->compute->ops->release(t->compute->device, t->sums.staging);
    }
    p4_trainer_exact_close(t);
    p4_trainer_sums_free(t);
}

void p4_trainer_sums_free(p4_trainer *t)
{
    free(t->sums.staged_at);
    free(t->sums.by_layer);
    free(t->sums.summed);
    free(t->sums.marks);
    free(t->sums.pending);
    free(t->sums.sent);
}

/* Adds the layer's staged parts that went to their owners (`summed`), or those that stay, to the flat array.
 */
static void add_parts(p4_trainer *t, int64_t layer, bool summed)
{
    const p4_model *model = t->model;
    for (int s = 0; s < SLOTS; s++) {
        int64_t first = p4_model_find(model, slots[s], layer);
        if (t->sums.staged_at[first] < 0) {
            continue;
        }
        for (int64_t i = first; i < first + p4_model_parts(model, first); i++) {
            const p4_param *p = &model->params[i];
            if (goes_to_owner(t, i) == summed && t->optim.at[i] >= 0) {
                t->compute->ops->add_f32(t->compute->device, t->optim.grad + t->optim.at[i],
                                         staged(t, first) + p->row_offset * p->cols, p->rows * p->cols);
            }
        }
    }
}

static void clear_buffer(p4_trainer *t, int64_t buffer)
{
    t->compute->coll.order_after(&t->compute->coll, t->sums.marks[buffer]);
    if (t->sums.pending[buffer] >= 0) {
        add_parts(t, t->sums.pending[buffer], true);
        t->sums.pending[buffer] = -1;
    }
}

void p4_trainer_sums_clear(p4_trainer *t, int64_t layer)
{
    clear_buffer(t, layer % t->sums.buffers);
}

static bool in_last_micro_batch(const p4_trainer *t)
{
    return t->batch.index == t->batch.count - 1;
}

/* Sums a slot's parts to their owners: directly to the flat array while it is empty, else in place, to be
 * added later. */
static void reduce_slot(p4_trainer *t, int64_t first, bool to_flat)
{
    const p4_model *model = t->model;
    for (int64_t i = first; i < first + p4_model_parts(model, first); i++) {
        const p4_param *p = &model->params[i];
        if (goes_to_owner(t, i)) {
            float *part = staged(t, first) + p->row_offset * p->cols;
            float *to = to_flat && t->optim.at[i] >= 0 ? t->optim.grad + t->optim.at[i] : part;
            t->compute->coll.reduce_f32(&t->compute->coll, to, part, p->rows * p->cols,
                                        t->original->shard.owner[i]);
        }
    }
}

/* Sums `count` elements of replicated gradients from parameter `first` on, which `parts` parameters fill. */
static void sum_replicated(p4_trainer *t, int64_t first, int64_t parts, int64_t count)
{
    t->compute->coll.sum_f32(&t->compute->coll, t->optim.grad + t->optim.at[first], count);
    for (int64_t i = first; i < first + parts; i++) {
        t->sums.summed[i] = true;
    }
}

/* Every slot of the layer, part by part. */
static void send_exact(p4_trainer *t, int64_t layer)
{
    const p4_model *model = t->model;
    for (int s = 0; s < SLOTS; s++) {
        int64_t first = p4_model_find(model, slots[s], layer);
        for (int64_t i = first; i < first + p4_model_parts(model, first); i++) {
            const p4_param *p = &model->params[i];
            p4_trainer_exact_add(t, i, staged(t, first) + p->row_offset * p->cols);
        }
    }
}

/* The head's gradients are complete since before the last layer's. */
void p4_trainer_sums_send(p4_trainer *t, int64_t layer)
{
    const p4_model *model = t->model;
    if (t->plan.exact_sums) {
        send_exact(t, layer);
        return;
    }
    int64_t buffer = layer % t->sums.buffers, head = p4_model_find(model, P4_ROLE_HEAD, -1);
    bool to_flat = t->sums.once || t->batch.index == 0;
    if (t->sums.once && !in_last_micro_batch(t)) {
        return;
    }
    add_parts(t, layer, false);
    if (t->compute->group->ranks == 1) {
        return;
    }
    if (layer + AHEAD < model->arch.L) {
        t->compute->coll.wait_for(&t->compute->coll, t->sums.sent[layer + AHEAD], "gradient sums");
    }
    t->compute->coll.begin(&t->compute->coll);
    for (int s = 0; s < SLOTS; s++) {
        int64_t first = p4_model_find(model, slots[s], layer);
        if (t->sums.staged_at[first] >= 0) {
            reduce_slot(t, first, to_flat);
        } else if (in_last_micro_batch(t)) {
            sum_replicated(t, first, p4_model_parts(model, first), slot_count(t, first));
        }
    }
    if (in_last_micro_batch(t) && layer == model->arch.L - 1 && head >= 0) {
        sum_replicated(t, head, 1, model->params[head].rows * model->params[head].cols);
    }
    t->compute->coll.end(&t->compute->coll);
    t->sums.marks[buffer] = t->sums.sent[layer] = t->compute->coll.mark(&t->compute->coll);
    t->sums.pending[buffer] = to_flat ? -1 : layer;
}

bool p4_trainer_overwrites(const p4_trainer *t, int64_t param)
{
    const p4_model *model = t->model;
    const p4_param *p = &model->params[param];
    int64_t first = p4_role_is_matrix(p->role) ? p4_model_find(model, p->role, p->layer) : param;
    return param == p4_net_head_param(&t->net) ||
           (p4_role_is_matrix(p->role) && t->sums.staged_at[first] < 0);
}

static float *grad_buffer(void *user, int64_t param, bool *accumulate)
{
    p4_trainer *t = user;
    if (!p4_role_is_matrix(t->model->params[param].role) && t->plan.exact_sums) {
        *accumulate = !p4_trainer_overwrites(t, param);
        return t->exact.leaf + t->optim.at[param];
    }
    if (!p4_role_is_matrix(t->model->params[param].role) || t->sums.staged_at[param] < 0) {
        *accumulate = t->batch.index > 0 || !p4_trainer_overwrites(t, param);
        return t->optim.grad + t->optim.at[param];
    }
    *accumulate = t->sums.once && t->batch.index > 0;
    return staged(t, param);
}

p4_grad_sink p4_trainer_sink(p4_trainer *t)
{
    return (p4_grad_sink){.grad = grad_buffer, .user = t};
}

void p4_trainer_sums_start(p4_trainer *t)
{
    for (int64_t i = 0; i < t->model->params_count; i++) {
        t->sums.summed[i] = false;
    }
}

void p4_trainer_sums_idle(p4_trainer *t)
{
    bool holds_earlier =
        t->sums.once && t->batch.index > 0; /* this rank's earlier micro-batches of the step */
    for (int64_t l = t->model->arch.L - 1; l >= 0; l--) {
        int64_t buffer = l % t->sums.buffers;
        clear_buffer(t, buffer);
        if (!holds_earlier && !t->plan.exact_sums) {
            t->compute->ops->zero(t->compute->device, t->sums.staging + buffer * t->sums.layer_count,
                                  t->sums.layer_count * 4);
        }
        p4_trainer_sums_send(t, l);
    }
}

/* Replicated gradients that no layer has sent, in runs of neighbours: norms, biases, embeddings. */
static void sum_rest(p4_trainer *t)
{
    const p4_model *model = t->model;
    int64_t run = -1, end = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        if (t->sharded[i] || t->sums.summed[i]) {
            continue;
        }
        if (run >= 0 && (t->optim.at[i] < end || t->optim.at[i] >= end + P4_FLAT_GAP)) {
            t->compute->coll.sum_f32(&t->compute->coll, t->optim.grad + run, end - run);
            run = -1;
        }
        run = run >= 0 ? run : t->optim.at[i];
        end = t->optim.at[i] + model->params[i].rows * model->params[i].cols;
    }
    if (run >= 0) {
        t->compute->coll.sum_f32(&t->compute->coll, t->optim.grad + run, end - run);
    }
}

/* The squares of what is summed by then, while the last sums are under way. */
static void finish_sums(p4_trainer *t)
{
    p4_coll *coll = &t->compute->coll;
    coll->begin(coll);
    sum_rest(t);
    coll->end(coll);
    coll->order_after(
        coll,
        t->sums.sent[p4_min_i64(1, t->model->arch.L - 1)]); /* later layers' and the head's are before it */
    for (int64_t b = 1; b < t->sums.buffers; b++) {         /* the first layer's is buffer 0 */
        clear_buffer(t, b);
    }
    p4_trainer_norms_add(t, true);
    p4_coll_join(coll);
    clear_buffer(t, 0);
    p4_trainer_norms_add(t, false);
}

void p4_trainer_sums_finish(p4_trainer *t)
{
    if (t->plan.exact_sums) {
        p4_trainer_exact_finish(t);
        return;
    }
    if (t->compute->group->ranks > 1) {
        finish_sums(t);
        return;
    }
    for (int64_t b = 0; b < t->sums.buffers; b++) {
        clear_buffer(t, b);
    }
}
