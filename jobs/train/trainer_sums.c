/* trainer_sums.c - the gradients of a step on their way: where the backward pass puts them, and when they are
 * summed over the ranks (trainer.h says what zero_stage changes).
 *
 * A replicated gradient accumulates in the flat array of optim.h and is summed there. One that goes to an
 * owner is computed in its layer's buffer of `staging`, which the layer `buffers` earlier in the backward
 * pass has left: the device waits for that layer's sums before it writes there again. */
#include <stdlib.h>

#include "jobs/train/trainer.h"

/* The slots of a layer, in the order in which the backward pass completes them. */
static const p4_role slots[] = {P4_ROLE_DOWN, P4_ROLE_UP, P4_ROLE_O, P4_ROLE_QKV};
enum {
    SLOTS = sizeof slots / sizeof slots[0],
    AHEAD = 16 /* layers that the host queues ahead of the sums it knows to be done: about 500 launches
                  (p4_coll.reach) */
};

static bool goes_to_owner(const p4_trainer *t, int64_t i)
{
    return t->sharded[i] && t->job->compute.group->ranks > 1;
}

/* The parts of a slot lie one after another in the flat gradient array, so that its GEMM can add to it
 * directly. */
static bool in_one_piece(const p4_trainer *t, int64_t first)
{
    const p4_model *model = &t->job->hf.model;
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
    return p4_slot_rows(&t->job->hf.model, first) * t->job->hf.model.params[first].cols;
}

static float *staged(const p4_trainer *t, int64_t first)
{
    int64_t buffer = t->job->hf.model.params[first].layer % t->buffers;
    return t->staging + buffer * t->layer_count + t->staged_at[first];
}

p4_rc p4_trainer_sums_layout(p4_trainer *t)
{
    const p4_model *model = &t->job->hf.model;
    int64_t L = model->arch.L;
    t->sums_once = t->job->config.zero_stage < 2;
    t->staged_at = p4_alloc((size_t)model->params_count, sizeof *t->staged_at);
    if (t->staged_at == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        t->staged_at[i] = -1;
    }
    for (int64_t l = 0; l < L; l++) {
        int64_t count = 0;
        for (int s = 0; s < SLOTS; s++) {
            int64_t first = p4_model_find(model, slots[s], l);
            if (!in_one_piece(t, first)) {
                t->staged_at[first] = count;
                count += p4_ceil_div(slot_count(t, first), 16) * 16; /* 64-byte lines */
            }
        }
        t->layer_count = p4_max_i64(t->layer_count, count);
    }
    return P4_OK;
}

/* Sums once a step keep the gradients of every layer from round to round. */
static int64_t buffers_of(const p4_trainer *t, int64_t rounds)
{
    int64_t L = t->job->hf.model.arch.L;
    return t->sums_once && rounds > 1 ? L : p4_min_i64(2, L);
}

int64_t p4_trainer_sums_bytes(const p4_trainer *t, int64_t rounds)
{
    return buffers_of(t, rounds) * t->layer_count * 4;
}

p4_rc p4_trainer_sums_open(p4_trainer *t)
{
    const p4_model *model = &t->job->hf.model;
    int64_t L = model->arch.L;
    t->buffers = buffers_of(t, t->rounds);
    t->summed = p4_alloc((size_t)model->params_count, sizeof *t->summed);
    t->marks = p4_alloc((size_t)t->buffers, sizeof *t->marks);
    t->pending = p4_alloc((size_t)t->buffers, sizeof *t->pending);
    t->sent = p4_alloc((size_t)L, sizeof *t->sent);
    if (t->summed == NULL || t->marks == NULL || t->pending == NULL || t->sent == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t b = 0; b < t->buffers; b++) {
        t->pending[b] = -1;
    }
    return t->job->compute.ops->alloc(t->job->compute.device, (void **)&t->staging,
                                      p4_trainer_sums_bytes(t, t->rounds));
}

/* The gradients that are summed lie at the same offset on every rank: replicated ones come first in the flat
 * array. */
p4_rc p4_trainer_sums_share(p4_trainer *t)
{
    p4_rc rc = P4_OK;
    p4_coll *coll = &t->job->compute.coll;
    TRY(coll->share(coll, t->optim.grad, t->optim.replicated_count * 4));
    TRY(t->layer_count > 0 ? coll->share(coll, t->staging, p4_trainer_sums_bytes(t, t->rounds)) : P4_OK);
done:
    return rc;
}

void p4_trainer_sums_close(p4_trainer *t)
{
    t->job->compute.coll.withdraw(&t->job->compute.coll, t->optim.grad);
    t->job->compute.coll.withdraw(&t->job->compute.coll, t->staging);
    if (t->staging != NULL) {
        t->job->compute.ops->release(t->job->compute.device, t->staging);
    }
    free(t->staged_at);
    free(t->summed);
    free(t->marks);
    free(t->pending);
    free(t->sent);
}

/* Adds the layer's staged parts that went to their owners (`summed`), or those that stay, to the flat array.
 */
static void add_parts(p4_trainer *t, int64_t layer, bool summed)
{
    const p4_model *model = &t->job->hf.model;
    for (int s = 0; s < SLOTS; s++) {
        int64_t first = p4_model_find(model, slots[s], layer);
        if (t->staged_at[first] < 0) {
            continue;
        }
        for (int64_t i = first; i < first + p4_model_parts(model, first); i++) {
            const p4_param *p = &model->params[i];
            if (goes_to_owner(t, i) == summed && t->optim.at[i] >= 0) {
                t->job->compute.ops->add_f32(t->job->compute.device, t->optim.grad + t->optim.at[i],
                                             staged(t, first) + p->row_offset * p->cols, p->rows * p->cols);
            }
        }
    }
}

static void clear_buffer(p4_trainer *t, int64_t buffer)
{
    t->job->compute.coll.after(&t->job->compute.coll, t->marks[buffer]);
    if (t->pending[buffer] >= 0) {
        add_parts(t, t->pending[buffer], true);
        t->pending[buffer] = -1;
    }
}

void p4_trainer_sums_clear(p4_trainer *t, int64_t layer)
{
    clear_buffer(t, layer % t->buffers);
}

static bool last_round(const p4_trainer *t)
{
    return t->round == t->rounds - 1;
}

/* A slot's parts to their owners: straight to the flat array while nothing is there, else in place, to be
 * added. */
static void reduce_slot(p4_trainer *t, int64_t first, bool to_flat)
{
    p4_job *job = t->job;
    const p4_model *model = &job->hf.model;
    for (int64_t i = first; i < first + p4_model_parts(model, first); i++) {
        const p4_param *p = &model->params[i];
        if (goes_to_owner(t, i)) {
            float *part = staged(t, first) + p->row_offset * p->cols;
            float *to = to_flat && t->optim.at[i] >= 0 ? t->optim.grad + t->optim.at[i] : part;
            job->compute.coll.reduce_f32(&job->compute.coll, to, part, p->rows * p->cols,
                                         job->shard.owner[i]);
        }
    }
}

/* Sums `count` elements of replicated gradients from parameter `first` on, which `parts` parameters fill. */
static void sum_replicated(p4_trainer *t, int64_t first, int64_t parts, int64_t count)
{
    p4_job *job = t->job;
    job->compute.coll.sum_f32(&job->compute.coll, t->optim.grad + t->optim.at[first], count);
    for (int64_t i = first; i < first + parts; i++) {
        t->summed[i] = true;
    }
}

/* The head's gradients are complete since before the last layer's. */
void p4_trainer_sums_send(p4_trainer *t, int64_t layer)
{
    p4_job *job = t->job;
    const p4_model *model = &job->hf.model;
    int64_t buffer = layer % t->buffers, head = p4_model_find(model, P4_ROLE_HEAD, -1);
    bool to_flat = t->sums_once || t->round == 0;
    if (t->sums_once && !last_round(t)) {
        return;
    }
    add_parts(t, layer, false);
    if (job->compute.group->ranks == 1) {
        return;
    }
    if (layer + AHEAD < model->arch.L) {
        job->compute.coll.reach(&job->compute.coll, t->sent[layer + AHEAD], "gradient sums");
    }
    job->compute.coll.begin(&job->compute.coll);
    for (int s = 0; s < SLOTS; s++) {
        int64_t first = p4_model_find(model, slots[s], layer);
        if (t->staged_at[first] >= 0) {
            reduce_slot(t, first, to_flat);
        } else if (last_round(t)) {
            sum_replicated(t, first, p4_model_parts(model, first), slot_count(t, first));
        }
    }
    if (last_round(t) && layer == model->arch.L - 1 && head >= 0) {
        sum_replicated(t, head, 1, model->params[head].rows * model->params[head].cols);
    }
    job->compute.coll.end(&job->compute.coll);
    t->marks[buffer] = t->sent[layer] = job->compute.coll.mark(&job->compute.coll);
    t->pending[buffer] = to_flat ? -1 : layer;
}

bool p4_trainer_overwrites(const p4_trainer *t, int64_t param)
{
    const p4_model *model = &t->job->hf.model;
    const p4_param *p = &model->params[param];
    int64_t first = p4_role_is_matrix(p->role) ? p4_model_find(model, p->role, p->layer) : param;
    return param == p4_net_head_param(&t->net) || (p4_role_is_matrix(p->role) && t->staged_at[first] < 0);
}

static float *grad_buffer(void *user, int64_t param, bool *accumulate)
{
    p4_trainer *t = user;
    if (!p4_role_is_matrix(t->job->hf.model.params[param].role) || t->staged_at[param] < 0) {
        *accumulate = t->round > 0 || !p4_trainer_overwrites(t, param);
        return t->optim.grad + t->optim.at[param];
    }
    *accumulate = t->sums_once && t->round > 0;
    return staged(t, param);
}

p4_grad_sink p4_trainer_sink(p4_trainer *t)
{
    return (p4_grad_sink){.grad = grad_buffer, .user = t};
}

void p4_trainer_sums_start(p4_trainer *t)
{
    for (int64_t i = 0; i < t->job->hf.model.params_count; i++) {
        t->summed[i] = false;
    }
}

void p4_trainer_sums_idle(p4_trainer *t)
{
    bool holds_earlier = t->sums_once && t->round > 0; /* this rank's earlier micro-batches of the step */
    for (int64_t l = t->job->hf.model.arch.L - 1; l >= 0; l--) {
        int64_t buffer = l % t->buffers;
        clear_buffer(t, buffer);
        if (!holds_earlier) {
            t->job->compute.ops->zero(t->job->compute.device, t->staging + buffer * t->layer_count,
                                      t->layer_count * 4);
        }
        p4_trainer_sums_send(t, l);
    }
}

/* Replicated gradients that no layer has sent, in runs of neighbours: norms, biases, embeddings. */
static void sum_rest(p4_trainer *t)
{
    const p4_model *model = &t->job->hf.model;
    int64_t run = -1, end = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        if (t->sharded[i] || t->summed[i]) {
            continue;
        }
        if (run >= 0 && (t->optim.at[i] < end || t->optim.at[i] >= end + P4_FLAT_GAP)) {
            t->job->compute.coll.sum_f32(&t->job->compute.coll, t->optim.grad + run, end - run);
            run = -1;
        }
        run = run >= 0 ? run : t->optim.at[i];
        end = t->optim.at[i] + model->params[i].rows * model->params[i].cols;
    }
    if (run >= 0) {
        t->job->compute.coll.sum_f32(&t->job->compute.coll, t->optim.grad + run, end - run);
    }
}

bool p4_trainer_sums_by_layer(const p4_trainer *t, int64_t i)
{
    const p4_param *p = &t->job->hf.model.params[i];
    return goes_to_owner(t, i) || t->staged_at[p4_model_find(&t->job->hf.model, p->role, p->layer)] < 0;
}

/* The squares of what is summed by then, while the last sums are under way. */
static void finish_sums(p4_trainer *t)
{
    p4_coll *coll = &t->job->compute.coll;
    coll->begin(coll);
    sum_rest(t);
    coll->end(coll);
    coll->after(
        coll,
        t->sent[p4_min_i64(1, t->job->hf.model.arch.L - 1)]); /* later layers' and the head's are before it */
    for (int64_t b = 1; b < t->buffers; b++) {                /* the first layer's is buffer 0 */
        clear_buffer(t, b);
    }
    p4_trainer_norms_add(t, true);
    p4_coll_join(coll);
    clear_buffer(t, 0);
    p4_trainer_norms_add(t, false);
}

void p4_trainer_sums_finish(p4_trainer *t)
{
    if (t->job->compute.group->ranks > 1) {
        finish_sums(t);
        return;
    }
    for (int64_t b = 0; b < t->buffers; b++) {
        clear_buffer(t, b);
    }
}
