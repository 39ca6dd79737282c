/* teacher_cache.c - the largest probabilities of the original at every prediction of the windows that
 * training will draw, in a file.
 *
 * One record a window: its ids [T, k], then its log-probabilities [T, k + 1] (p4_top_rows). The head's rank
 * writes them as micro-batches leave the pipeline; every rank maps the file. It is removed as soon as all
 * have it, or at the end where ranks of other nodes read it: a file that another node removes may be lost to
 * them. Of a run that can be continued it stays until the training is over; a pass that is stopped leaves a
 * file of the records that it has made, one that is killed those that it had made when the file was last
 * kept, and the process that continues makes the others. The file's key is of all that the records depend on.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jobs/train/stop.h"
#include "jobs/train/teacher.h"
#include "src/leaf/hash.h"

enum {
    SLAB = 16, /* micro-batches that rank 0 sends the tokens of at a time */
};

/* The pass that makes the file. */
typedef struct making {
    p4_teacher *teacher;
    p4_pipeline pipeline;
    uint32_t *drawn; /* [records]: the window of each record */
    int64_t B, slab; /* windows */
    int32_t *h_ids;  /* [slab, T] */
    /* On the head's rank. */
    p4_atomic_file file;
    char *h_record;
    void *logits; /* device: act [rows, ld] */
    int64_t rows, ld;
    p4_top_rows top; /* device: of B windows */
    int64_t at;      /* of the slab's first window */
    int64_t written; /* records */
    double others;   /* sum of what is left out, over all predictions */
    double kept_s;   /* by p4_now_s: what was written by then is kept, or the pass began */
    p4_rc rc;
} making;

static bool has_head(const p4_teacher *t)
{
    return t->original->shard.head_stage == t->compute->group->rank;
}

static int64_t ids_bytes(const p4_teacher *t)
{
    return t->plan.T * t->plan.top_k * 4;
}

static int64_t record_bytes(const p4_teacher *t)
{
    return ids_bytes(t) + t->plan.T * (t->plan.top_k + 1) * 4;
}

static int64_t window_bytes(const p4_teacher *t)
{
    return t->plan.T * t->original->hf.model.arch.C * t->compute->ops->act_bytes(t->compute->device);
}

p4_rc p4_teacher_cache_reserve(p4_teacher *t)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = t->compute->ops;
    t->view.top = (p4_top_rows){.k = t->plan.top_k};
    TRY(ops->alloc(t->compute->device, (void **)&t->view.top.ids, t->B * ids_bytes(t)));
    TRY(ops->alloc(t->compute->device, (void **)&t->view.top.logp, t->B * (record_bytes(t) - ids_bytes(t))));
done:
    return rc;
}

/* --- the pass --------------------------------------------------------------------------------- */

/* Numbers the windows in the order in which training draws them first. Local. */
static p4_rc number_windows(making *m)
{
    p4_rc rc = P4_OK;
    p4_teacher *t = m->teacher;
    p4_teacher_cache *c = &t->cache;
    int64_t windows = p4_training_set_count(t->training_set), draws = t->plan.steps * t->plan.sequences;
    c->record_of = p4_alloc((size_t)windows, sizeof *c->record_of);
    m->drawn = p4_alloc((size_t)p4_min_i64(windows, draws), sizeof *m->drawn);
    TRY(c->record_of != NULL && m->drawn != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < draws && c->layout.count < windows; i++) {
        int64_t window = p4_training_set_drawn(t->training_set, i / t->plan.sequences, i % t->plan.sequences);
        if (c->record_of[window] == 0) {
            m->drawn[c->layout.count++] = (uint32_t)window;
            c->record_of[window] = (uint32_t)c->layout.count;
        }
    }
done:
    return rc;
}

/* The windows that the head's rank compares later: their ids and states. Local. */
static p4_rc take_compared(p4_teacher *t)
{
    p4_rc rc = P4_OK;
    p4_teacher_cache *c = &t->cache;
    c->compared = p4_min_i64(P4_TEACHER_COMPARED, c->layout.count);
    c->h_ids = p4_alloc((size_t)(c->compared * t->plan.T), sizeof *c->h_ids);
    TRY(c->h_ids != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(t->compute->ops->alloc(t->compute->device, &t->states, c->compared * window_bytes(t)));
done:
    return rc;
}

/* The record goes to the file. Local. */
static p4_rc write_record(making *m, const char *record)
{
    const p4_teacher *t = m->teacher;
    const int64_t T = t->plan.T, k = t->plan.top_k;
    const float *logp = (const float *)(const void *)(record + ids_bytes(t));
    for (int64_t i = 0; i < T - 1; i++) {
        m->others += exp((double)logp[i * (k + 1) + k]);
    }
    m->written++;
    return p4_atomic_write(&m->file, record, (size_t)record_bytes(t));
}

/* The first m->at records from the file of the process before. Local. */
static p4_rc take_over(making *m)
{
    p4_rc rc = P4_OK;
    const p4_teacher_cache *c = &m->teacher->cache;
    p4_record_file before = {0};
    p4_record_layout layout = c->layout;
    layout.count = m->at;
    TRY(p4_record_file_map(&before, c->path, &layout));
    for (int64_t i = 0; i < m->at; i++) {
        TRY(write_record(m, p4_record_at(&before, i)));
    }
done:
    p4_record_file_close(&before);
    return rc;
}

/* What the head's rank needs to write records. Local. */
static p4_rc open_writer(making *m)
{
    p4_rc rc = P4_OK;
    p4_teacher *t = m->teacher;
    const p4_ops *ops = t->compute->ops;
    p4_device *device = t->compute->device;
    const int64_t V = t->original->hf.model.arch.V;
    m->ld = p4_net_logits_ld(ops, V);
    m->rows = p4_teacher_cache_rows(t, m->B);
    m->top.k = t->plan.top_k;
    m->h_record = p4_alloc((size_t)record_bytes(t), 1);
    TRY(m->h_record != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_teacher_open_head(t));
    TRY(take_compared(t));
    TRY(ops->alloc(device, &m->logits, m->rows * m->ld * ops->act_bytes(device)));
    TRY(ops->alloc(device, (void **)&m->top.ids, m->B * ids_bytes(t)));
    TRY(ops->alloc(device, (void **)&m->top.logp, m->B * (record_bytes(t) - ids_bytes(t))));
    TRY(p4_make_directories(t->plan.folder));
    TRY(p4_record_file_begin(&m->file, t->cache.path, &t->cache.layout));
    TRY(m->at > 0 ? take_over(m) : P4_OK);
done:
    return rc;
}

/* Local. */
static p4_rc open_making(making *m)
{
    p4_rc rc = P4_OK;
    p4_teacher *t = m->teacher;
    const int64_t T = t->plan.T;
    const p4_pipeline_plan plan = p4_teacher_cache_pass(t);
    m->B = plan.B;
    m->slab = SLAB * m->B;
    m->h_ids = p4_alloc((size_t)(m->slab * T), sizeof *m->h_ids);
    TRY(m->h_ids != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_teacher_open_weights(t));
    TRY(p4_pipeline_open(&m->pipeline, t->compute, &t->original->hf.model, &t->original->shard, &plan));
    TRY(has_head(t) ? open_writer(m) : P4_OK);
done:
    return rc;
}

static void close_making(making *m)
{
    p4_teacher *t = m->teacher;
    void *memory[] = {m->logits, m->top.ids, m->top.logp};
    p4_pipeline_close(&m->pipeline);
    p4_device_form_close(&t->form);
    for (int i = 0; i < 3; i++) {
        if (memory[i] != NULL) {
            t->compute->ops->release(t->compute->device, memory[i]);
        }
    }
    (void)p4_atomic_close(&m->file, false); /* one that is complete is closed before */
    free(m->h_record);
    free(m->h_ids);
    free(m->drawn);
}

/* The records of `B` windows whose top rows are on the device. Local. */
static p4_rc write_records(making *m, int64_t B)
{
    p4_rc rc = P4_OK;
    p4_teacher *t = m->teacher;
    const p4_ops *ops = t->compute->ops;
    const int64_t T = t->plan.T, k = t->plan.top_k;
    for (int64_t b = 0; b < B; b++) {
        ops->to_host(t->compute->device, m->h_record, m->top.ids + b * T * k, ids_bytes(t));
        ops->to_host(t->compute->device, m->h_record + ids_bytes(t), m->top.logp + b * T * (k + 1),
                     record_bytes(t) - ids_bytes(t));
        TRY(ops->sync(t->compute->device));
        TRY(write_record(m, m->h_record));
    }
done:
    return rc;
}

/* p4_pass.on_states. */
static void keep_states(void *user, const void *states, int64_t first, int64_t B)
{
    making *m = user;
    p4_teacher *t = m->teacher;
    const p4_ops *ops = t->compute->ops;
    p4_device *device = t->compute->device;
    const int64_t C = t->original->hf.model.arch.C, V = t->original->hf.model.arch.V, N = B * t->plan.T;
    int64_t record = m->at + first, compared = p4_min_i64(B, t->cache.compared - record);
    if (m->rc != P4_OK) {
        return;
    }
    for (int64_t row = 0; row < N; row += m->rows) {
        int64_t rows = p4_min_i64(m->rows, N - row);
        const char *from = (const char *)states + row * C * ops->act_bytes(device);
        p4_top_rows top = {
            .k = m->top.k, .ids = m->top.ids + row * m->top.k, .logp = m->top.logp + row * (m->top.k + 1)};
        ops->linear_forward(device, m->logits, from, t->head, t->view.head_bias, rows, C, m->ld);
        ops->top_k(device, &(p4_top_k_args){.N = rows,
                                            .V = V,
                                            .ld = m->ld,
                                            .logits = m->logits,
                                            .map = p4_logit_map_of(&t->original->hf.model.arch),
                                            .temperature = (float)t->plan.temperature,
                                            .top = top});
    }
    if (compared > 0) {
        ops->copy(device, (char *)t->states + record * window_bytes(t), states, compared * window_bytes(t));
        memcpy(t->cache.h_ids + record * t->plan.T, m->h_ids + first * t->plan.T,
               (size_t)(compared * t->plan.T) * sizeof *m->h_ids);
    }
    m->rc = write_records(m, B);
}

/* Now and then a process that continues could take up the file here. Local. */
static p4_rc keep_if_due(making *m)
{
    p4_rc rc = P4_OK;
    const p4_teacher *t = m->teacher;
    bool due = t->plan.keep_every_s > 0 && p4_now_s() - m->kept_s >= t->plan.keep_every_s;
    if (has_head(t) && t->cache.stays && due) {
        TRY(p4_record_file_keep(&m->file, &t->cache.layout, m->written));
        m->kept_s = p4_now_s();
    }
done:
    return rc;
}

/* Windows [m->at, m->at + count) of the records. P4_STOPPED: the first of them are written. Collective. */
static p4_rc run_slab(making *m, int64_t count)
{
    p4_rc rc = P4_OK;
    p4_teacher *t = m->teacher;
    p4_group *group = t->compute->group;
    const int64_t T = t->plan.T;
    const p4_windows windows = {.ids = m->h_ids, .count = count, .T = T};
    const p4_pass pass = {
        .form = &t->form.form, .windows = &windows, .label = "teacher", .on_states = keep_states, .user = m};
    for (int64_t i = 0; i < count && group->rank == 0; i++) {
        p4_training_set_window(t->training_set, m->h_ids + i * T, (int64_t)m->drawn[m->at + i]);
    }
    p4_group_bcast(group, m->h_ids, count * T * (int64_t)sizeof *m->h_ids, 0);
    bool stopped = p4_pipeline_flow_or_stop(&m->pipeline, &pass);
    TRY_ALL(group, m->rc == P4_OK ? keep_if_due(m) : m->rc);
    rc = stopped ? p4_stop_end(t->compute->stop) : P4_OK;
done:
    return rc;
}

/* The records so far become a file, which the process that continues completes. Local. */
static p4_rc keep_part(making *m)
{
    p4_rc rc = P4_OK;
    if (m->written > 0) {
        rc = p4_record_file_finish(&m->file, &m->teacher->cache.layout, m->written);
    }
    return rc;
}

/* Collective. */
static p4_rc run_pass(making *m)
{
    p4_rc rc = P4_OK;
    p4_teacher *t = m->teacher;
    p4_teacher_cache *c = &t->cache;
    p4_progress progress;
    m->kept_s = p4_now_s();
    p4_progress_start(&progress, "teacher", "tokens", (double)(c->layout.count * t->plan.T));
    for (; m->at < c->layout.count; m->at += m->slab) {
        int64_t count = p4_min_i64(m->slab, c->layout.count - m->at);
        rc = run_slab(m, count);
        if (rc == P4_STOPPED) {
            p4_error_clear(); /* a failure to keep it says what ended the run */
            TRY_ALL(t->compute->group, has_head(t) ? keep_part(m) : P4_OK);
            rc = p4_stop_end(t->compute->stop);
        }
        TRY(rc);
        p4_progress_update(&progress, (double)((m->at + count) * t->plan.T), NULL);
    }
    TRY_ALL(t->compute->group,
            has_head(t) ? p4_record_file_finish(&m->file, &c->layout, c->layout.count) : P4_OK);
    c->kept = 1.0 - m->others / (double)(c->layout.count * (t->plan.T - 1));
done:
    p4_progress_end(&progress);
    return rc;
}

/* Local. */
static void remove_file(p4_teacher *t)
{
    if (t->cache.path != NULL && has_head(t) && !t->cache.stays) {
        unlink(t->cache.path);
    }
    free(t->cache.path);
    t->cache.path = NULL;
}

/* Which records, under which name and key. Local. */
static p4_rc name_file(making *m, uint64_t key)
{
    p4_rc rc = P4_OK;
    p4_teacher *t = m->teacher;
    p4_teacher_cache *c = &t->cache;
    const int64_t numbers[] = {t->plan.T, t->plan.top_k, t->original->hf.model.arch.V,
                               t->compute->ops->act_bytes(t->compute->device)};
    c->layout.record_bytes = record_bytes(t);
    c->path = p4_format("%s/%s", t->plan.folder, P4_TEACHER_CACHE_FILE);
    TRY(c->path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(number_windows(m));
    key = p4_hash(key, numbers, sizeof numbers);
    key = p4_hash(key, &t->plan.temperature, sizeof t->plan.temperature);
    c->layout.key = p4_hash(key, m->drawn, (size_t)c->layout.count * sizeof *m->drawn);
done:
    return rc;
}

/* How many records of a process before this one are there. Collective. */
static int64_t find_records(const p4_teacher *t)
{
    const p4_teacher_cache *c = &t->cache;
    int64_t found = has_head(t) && c->stays ? p4_record_file_count(c->path, &c->layout) : 0;
    p4_group_bcast(t->compute->group, &found, sizeof found, t->original->shard.head_stage);
    if (found > 0) {
        INFO(
            "      continues with the probabilities of %lld of %lld windows that the process before wrote to "
            "%s",
            (long long)found, (long long)c->layout.count, c->path);
    }
    return found;
}

p4_rc p4_teacher_cache_open(p4_teacher *t)
{
    p4_rc rc = P4_OK;
    p4_group *group = t->compute->group;
    p4_teacher_cache *c = &t->cache;
    making m = {.teacher = t, .file = {.fd = -1}};
    uint64_t keys[] = {t->plan.key, (uint64_t)getpid() << 40 ^ (uint64_t)(1e9 * p4_now_s())};
    p4_group_bcast(group, keys, sizeof keys, 0);
    c->stays = keys[0] != 0;
    TRY_ALL(group, name_file(&m, c->stays ? keys[0] : keys[1]));
    m.at = find_records(t);
    c->reused = m.at > 0;
    if (m.at < c->layout.count) {
        TRY_ALL(group, open_making(&m));
        TRY(run_pass(&m));
    }
    TRY_ALL(group, p4_record_file_map(&c->file, c->path, &c->layout));
    if (group->local_ranks == group->ranks && !c->stays) {
        remove_file(t);
    }
done:
    close_making(&m);
    if (c->reused) {
        p4_teacher_close_head(t);
    }
    return rc;
}

void p4_teacher_cache_close(p4_teacher *t)
{
    p4_teacher_cache *c = &t->cache;
    void *memory[] = {t->view.top.ids, t->view.top.logp};
    for (int i = 0; i < 2; i++) {
        if (memory[i] != NULL) {
            t->compute->ops->release(t->compute->device, memory[i]);
        }
    }
    p4_record_file_close(&c->file);
    remove_file(t);
    free(c->record_of);
    free(c->h_ids);
    *c = (p4_teacher_cache){0};
}

/* --- training --------------------------------------------------------------------------------- */

/* The record to place b of the micro-batch. */
static void put_record(p4_teacher *t, int64_t b, int64_t record)
{
    const char *from = p4_record_at(&t->cache.file, record);
    const p4_top_rows *top = &t->view.top;
    const int64_t T = t->plan.T;
    t->compute->ops->to_device(t->compute->device, top->ids + b * T * top->k, from, ids_bytes(t));
    t->compute->ops->to_device(t->compute->device, top->logp + b * T * (top->k + 1), from + ids_bytes(t),
                               record_bytes(t) - ids_bytes(t));
}

void p4_teacher_cache_prepare(p4_teacher *t, int64_t step, int64_t from, int64_t B)
{
    for (int64_t b = 0; b < B; b++) {
        int64_t window = p4_training_set_drawn(t->training_set, step, from + b);
        put_record(t, b, (int64_t)t->cache.record_of[window] - 1);
    }
}

static float *no_gradient(void *user, int64_t param, bool *accumulate)
{
    (void)user;
    (void)param;
    *accumulate = false;
    return NULL;
}

/* Mean KL of the compared windows to the model, with this view of the teacher. Local. */
static p4_rc mean_kl(double *kl, p4_net *net, const p4_form *form, const p4_net_teacher *view, int64_t B,
                     int64_t T)
{
    const p4_grad_sink sink = {.grad = no_gradient};
    p4_score score = {0};
    net->teacher = view;
    p4_net_train_forward(net, form, B, T, 0.0f, &sink);
    p4_net_add_scores(net, B, T, P4_SUM_KL);
    p4_rc rc = p4_net_take_score(net, &score);
    *kl = score.kl / score.count;
    return rc;
}

/* figures: mean KL, whole and cut. Local. */
static p4_rc compare(p4_teacher *t, p4_net *net, const p4_form *form, double figures[2])
{
    p4_rc rc = P4_OK;
    const int64_t B = p4_min_i64(t->cache.compared, t->B), T = t->plan.T;
    p4_net_teacher whole = t->view;
    whole.states = t->states;
    whole.head = t->head;
    for (int64_t b = 0; b < B; b++) {
        put_record(t, b, b);
    }
    p4_net_set_tokens(net, t->cache.h_ids, B, T);
    TRY(mean_kl(&figures[0], net, form, &whole, B, T));
    TRY(mean_kl(&figures[1], net, form, &t->view, B, T));
done:
    net->teacher = &t->view;
    p4_teacher_close_head(t);
    return rc;
}

p4_rc p4_teacher_measure(p4_teacher *t, p4_net *net, const p4_form *form)
{
    p4_rc rc = P4_OK;
    double figures[3] = {0, 0, t->cache.kept}; /* of the head's rank */
    if (!p4_teacher_is_open(t) || t->plan.kind != P4_TEACHER_CACHED || t->cache.reused) {
        return P4_OK; /* the process before has said it */
    }
    int head = t->original->shard.head_stage;
    TRY_ALL(t->compute->group, has_head(t) ? compare(t, net, form, figures) : P4_OK);
    p4_group_bcast(t->compute->group, figures, sizeof figures, head);
    INFO("      the %lld largest of %lld probabilities hold %.2f %%; of KL to the model "
         "as it starts, %.4f nats, they keep %.4f (%.2f %%), measured on %lld window%s",
         (long long)t->plan.top_k, (long long)t->original->hf.model.arch.V, 100.0 * figures[2], figures[0],
         figures[1], figures[0] > 0 ? 100.0 * figures[1] / figures[0] : 100.0,
         (long long)p4_min_i64(p4_min_i64(P4_TEACHER_COMPARED, t->cache.layout.count), t->B),
         p4_plural(p4_min_i64(p4_min_i64(P4_TEACHER_COMPARED, t->cache.layout.count), t->B)));
done:
    return rc;
}
