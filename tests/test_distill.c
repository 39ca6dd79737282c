/* Distillation in the network, on every fixture model: a teacher that is the model itself changes nothing but
 * the weight of the cross-entropy; the gradient is the slope of the loss; a teacher that is cut to all its
 * classes is the whole one; chunks of rows change nothing. The outputs of blocks are compared too: the states
 * that a forward pass keeps are those that it passes through, and recomputation changes nothing. Also: forms
 * whose matrices are converted compute the same bits; files of records. */
#include "io/file/files.h"
#include "io/file/record_file.h"
#include "net_world.h"
#include "src/leaf/rng.h"

enum { B = 8, T = 12, N = B * T, CHUNK = 64 /* rows of logits at a time: two chunks */ };
enum { LAYERS = 8 /* of a model, at most */ };
#define BLOCKS 1.5f /* weight of the distance of blocks */

typedef struct subject {
    p4_hf_model hf;
    p4_device_form form, teacher_form;
    int32_t ids[N], teacher_ids[N];
    void *states, *head;   /* of the teacher, on the device */
    float *head_bias;      /* [ld], zero from V on; NULL: none */
    void *outputs[LAYERS]; /* the states after each of its blocks */
    p4_net_teacher teacher;
} subject;

static void random_ids(int32_t *ids, int64_t V, uint64_t stream)
{
    p4_rng rng = {.seed = 3, .stream = stream};
    for (int i = 0; i < N; i++) {
        ids[i] = (int32_t)p4_rng_below(&rng, (uint64_t)V);
    }
}

/* Normed final states of the ids, into `to`; and, unless NULL, the states after each block and the logits of
 * a form, host [N, V]. */
static void forward(const subject *s, const p4_form *form, const int32_t *ids, void *to, void *const *outputs,
                    float *h_logits)
{
    const p4_model *model = &s->hf.model;
    int64_t bytes = N * model->arch.C * ops->act_bytes(device);
    p4_net net;
    void *x = take(bytes);
    p4_net_plan plan = {.B = B, .T = T, .head = true};
    EXPECT_OK(p4_net_open(&net, ops, device, model, &plan));
    p4_net_set_tokens(&net, ids, B, T);
    p4_net_embed(&net, form, x, B, T);
    p4_net_layers(&net, &(p4_net_pass){.form = form, .B = B, .T = T, .outputs = outputs}, 0, model->arch.L,
                  x);
    if (outputs != NULL) {
        ops->copy(device, outputs[model->arch.L - 1], x, bytes);
    }
    p4_net_final_norm(&net, form, x, false, N);
    if (h_logits != NULL) {
        EXPECT_OK(p4_net_logits(&net, form, h_logits, N));
    }
    ops->copy(device, to, net.final_n, bytes);
    EXPECT_OK(ops->sync(device));
    p4_net_close(&net);
    ops->release(device, x);
}

/* Mean losses of the micro-batch; gradients to g, or NULL. */
static p4_score train_as(const subject *s, const p4_net_teacher *teacher, p4_recompute recompute,
                         int64_t rows, grads *g)
{
    p4_net net;
    p4_score score = {0};
    grads own = {0};
    const p4_model *model = &s->hf.model;
    p4_ops table = *ops;
    table.logits_chunk = rows * p4_net_logits_ld(ops, model->arch.V);
    p4_net_plan plan = {.B = B, .T = T, .train = true, .recompute = recompute, .head = true};
    plan.reference = true;
    plan.blocks = teacher != NULL && teacher->blocks != NULL;
    if (g == NULL) {
        take_grads(&own, model);
    }
    p4_grad_sink sink = {grad_buffer, ready, g != NULL ? g : &own};
    EXPECT_OK(p4_net_open(&net, &table, device, model, &plan));
    EXPECT(rows > N || net.chunk < N, "%lld rows at a time", (long long)net.chunk);
    net.teacher = teacher;
    p4_net_set_tokens(&net, s->ids, B, T);
    p4_net_train(&net, &s->form.form, B, T, 1.0f / (float)(B * (T - 1)), &sink);
    EXPECT_OK(p4_net_take_score(&net, &score));
    p4_net_close(&net);
    if (g != NULL) {
        read_grads(g);
    } else {
        free_grads(&own);
    }
    score.nll /= score.count;
    score.kl /= score.count;
    score.blocks /= (double)(N * model->arch.L);
    return score;
}

static p4_score train(const subject *s, const p4_net_teacher *teacher, int64_t rows, grads *g)
{
    return train_as(s, teacher, P4_RECOMPUTE_NONE, rows, g);
}

static double norm(const grads *g, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)g->h_flat[i] * (double)g->h_flat[i];
    }
    return sqrt(sum);
}

/* |a - factor b|, relative to the norm of b. */
static double distance(const grads *a, const grads *b, double factor, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double d = (double)a->h_flat[i] - factor * (double)b->h_flat[i];
        sum += d * d;
    }
    return sqrt(sum) / norm(b, count);
}

static void open_subject(subject *s, const char *dir)
{
    EXPECT_OK(p4_hf_model_open(&s->hf, dir));
    const p4_model *model = &s->hf.model;
    const p4_arch *a = &model->arch;
    int64_t each = ops->act_bytes(device), ld = p4_net_logits_ld(ops, a->V);
    int64_t head = p4_model_find(model, a->tied ? P4_ROLE_EMBED : P4_ROLE_HEAD, -1);
    EXPECT_OK(p4_device_form_open(&s->form, ops, device, model, model->weights));
    EXPECT_OK(p4_device_form_open_dense(&s->teacher_form, ops, device, model, model->weights));
    random_ids(s->ids, a->V, 1);
    random_ids(s->teacher_ids, a->V, 2);
    s->states = take(N * a->C * each);
    s->head = take(ld * a->C * each);
    EXPECT(a->L <= LAYERS, "%s has %lld layers", dir, (long long)a->L);
    for (int64_t l = 0; l < a->L; l++) {
        s->outputs[l] = take(N * a->C * each);
    }
    ops->zero(device, s->head, ld * a->C * each);
    ops->weight_unpack(device, s->head, &s->form.form.weights[head]);
    s->head_bias = a->head_bias ? take(ld * 4) : NULL;
    if (a->head_bias) {
        ops->zero(device, s->head_bias, ld * 4);
        ops->copy(device, s->head_bias, s->form.form.vectors[p4_model_find(model, P4_ROLE_HEAD_BIAS, -1)],
                  a->V * 4);
    }
    s->teacher = (p4_net_teacher){.weight = 0.75f,
                                  .temperature = 1.0f,
                                  .states = s->states,
                                  .head = s->head,
                                  .head_bias = s->head_bias};
}

static void close_subject(subject *s)
{
    for (int64_t l = 0; l < s->hf.model.arch.L; l++) {
        ops->release(device, s->outputs[l]);
    }
    ops->release(device, s->states);
    ops->release(device, s->head);
    if (s->head_bias != NULL) {
        ops->release(device, s->head_bias);
    }
    p4_device_form_close(&s->form);
    p4_device_form_close(&s->teacher_form);
    p4_hf_model_close(&s->hf);
}

/* Both forms give the same states. */
static void check_forms(const subject *s, const char *dir)
{
    int64_t count = N * s->hf.model.arch.V;
    float *plain = p4_alloc((size_t)count, sizeof *plain), *dense = p4_alloc((size_t)count, sizeof *dense);
    forward(s, &s->form.form, s->ids, s->states, NULL, plain);
    forward(s, &s->teacher_form.form, s->ids, s->states, NULL, dense);
    EXPECT(memcmp(plain, dense, (size_t)count * sizeof *plain) == 0, "%s: the converted form differs", dir);
    EXPECT(p4_dense_form_bytes(ops, device, &s->hf.model, s->hf.model.weights) ==
               s->teacher_form.memory_bytes,
           "%s: planned bytes", dir);
    free(plain);
    free(dense);
}

static p4_net_teacher with_blocks(const subject *s)
{
    p4_net_teacher teacher = s->teacher;
    teacher.blocks = s->outputs;
    teacher.blocks_scale = BLOCKS / (float)(N * s->hf.model.arch.L);
    return teacher;
}

/* The model teaches itself: no KL, and the gradient is that of (1 - weight) cross-entropy. */
static void check_itself(subject *s, const char *dir, int64_t count)
{
    grads alone, taught;
    take_grads(&alone, &s->hf.model);
    take_grads(&taught, &s->hf.model);
    forward(s, &s->teacher_form.form, s->ids, s->states, s->outputs, NULL);
    p4_net_teacher teacher = with_blocks(s);
    p4_score a = train(s, NULL, 2 * N, &alone), b = train(s, &teacher, 2 * N, &taught);
    EXPECT(fabs(a.nll - b.nll) < 1e-6 && a.kl == 0.0 && fabs(b.kl) < 1e-6, "%s: nll %g and %g, KL %g", dir,
           a.nll, b.nll, b.kl);
    EXPECT(fabs(b.blocks) < 1e-6, "%s: blocks %g", dir, b.blocks);
    EXPECT(distance(&taught, &alone, 0.25, count) < 1e-5, "%s: distance %g", dir,
           distance(&taught, &alone, 0.25, count));
    free_grads(&alone);
    free_grads(&taught);
}

/* Another teacher: in chunks, and cut to all its classes, it gives the same losses and gradients. */
static void check_ways(subject *s, const char *dir, int64_t count)
{
    const p4_arch *a = &s->hf.model.arch;
    grads whole, chunks, cut;
    int64_t ld = p4_net_logits_ld(ops, a->V);
    void *logits = take(N * ld * ops->act_bytes(device));
    p4_net_teacher top = s->teacher;
    top.states = top.head = NULL;
    top.top = (p4_top_rows){.k = a->V, .ids = take(N * a->V * 4), .logp = take(N * (a->V + 1) * 4)};
    ops->linear_forward(device, logits, s->states, s->head, s->head_bias, N, a->C, ld);
    ops->top_k(device, &(p4_top_k_args){.N = N,
                                        .V = a->V,
                                        .ld = ld,
                                        .logits = logits,
                                        .map = p4_logit_map_of(a),
                                        .temperature = top.temperature,
                                        .top = top.top});
    take_grads(&whole, &s->hf.model);
    take_grads(&chunks, &s->hf.model);
    take_grads(&cut, &s->hf.model);
    p4_score w = train(s, &s->teacher, 2 * N, &whole), c = train(s, &s->teacher, CHUNK, &chunks),
             t = train(s, &top, CHUNK, &cut);
    EXPECT(w.kl > 1e-4, "%s: the other teacher is the same: KL %g", dir, w.kl);
    EXPECT(fabs(w.kl - c.kl) < 1e-5 * w.kl && fabs(w.nll - c.nll) < 1e-6, "%s: in chunks KL %g and %g", dir,
           w.kl, c.kl);
    EXPECT(fabs(w.kl - t.kl) < 1e-4 * w.kl + 1e-6, "%s: cut to all classes KL %g and %g", dir, w.kl, t.kl);
    EXPECT(distance(&chunks, &whole, 1.0, count) < 1e-5, "%s: in chunks %g", dir,
           distance(&chunks, &whole, 1.0, count));
    EXPECT(distance(&cut, &whole, 1.0, count) < 1e-4, "%s: cut to all classes %g", dir,
           distance(&cut, &whole, 1.0, count));
    free_grads(&whole);
    free_grads(&chunks);
    free_grads(&cut);
    ops->release(device, logits);
    ops->release(device, top.top.ids);
    ops->release(device, top.top.logp);
}

static double loss_at(const subject *s, float *gain, const float *h_gain, const float *h_step, double size)
{
    int64_t C = s->hf.model.arch.C;
    float *h_moved = p4_alloc((size_t)C, sizeof *h_moved);
    for (int64_t c = 0; c < C; c++) {
        h_moved[c] = h_gain[c] + (float)size * h_step[c];
    }
    ops->to_device(device, gain, h_moved, C * 4);
    p4_score score = train(s, &s->teacher, 2 * N, NULL);
    double weight = (double)s->teacher.weight, tau = (double)s->teacher.temperature;
    ops->to_device(device, gain, h_gain, C * 4);
    free(h_moved);
    return (1.0 - weight) * score.nll + weight * tau * tau * score.kl;
}

/* Along a random direction of the last norm's gain the loss rises as the gradient says. */
static void check_slope(subject *s, const char *dir)
{
    const double step = 2e-2;
    const p4_model *model = &s->hf.model;
    int64_t C = model->arch.C, at = p4_model_find(model, P4_ROLE_FINAL_GAIN, -1);
    float *gain = s->form.form.vectors[at], *h_gain = p4_alloc((size_t)C, sizeof *h_gain),
          *h_step = p4_alloc((size_t)C, sizeof *h_step);
    p4_rng rng = {.seed = 8, .stream = 4};
    grads g;
    double want = 0.0, size = 0.0;
    s->teacher.temperature = 2.0f;
    take_grads(&g, model);
    (void)train(s, &s->teacher, 2 * N, &g);
    ops->to_host(device, h_gain, gain, C * 4);
    for (int64_t c = 0; c < C; c++) {
        h_step[c] = (float)p4_rng_normal(&rng);
        want += (double)h_step[c] * (double)g.h_flat[g.at[at] + c];
        size += fabs((double)h_step[c] * (double)g.h_flat[g.at[at] + c]);
    }
    double got =
        (loss_at(s, gain, h_gain, h_step, step) - loss_at(s, gain, h_gain, h_step, -step)) / (2 * step);
    EXPECT(fabs(got - want) < 0.02 * size, "%s: slope %g, by the gradient %g", dir, got, want);
    free_grads(&g);
    free(h_gain);
    free(h_step);
}

/* What a pass through all blocks keeps are the states that passes through one block each go through. */
static void check_outputs(const subject *s, const char *dir)
{
    const p4_model *model = &s->hf.model;
    int64_t bytes = N * model->arch.C * ops->act_bytes(device);
    char *want = p4_alloc((size_t)bytes, 1), *got = p4_alloc((size_t)bytes, 1);
    p4_net net;
    p4_net_plan plan = {.B = B, .T = T};
    void *x = take(bytes);
    EXPECT_OK(p4_net_open(&net, ops, device, model, &plan));
    p4_net_set_tokens(&net, s->teacher_ids, B, T);
    p4_net_embed(&net, &s->teacher_form.form, x, B, T);
    for (int64_t l = 0; l < model->arch.L; l++) {
        p4_net_layers(&net, &(p4_net_pass){.form = &s->teacher_form.form, .B = B, .T = T}, l, l + 1, x);
        ops->to_host(device, want, x, bytes);
        ops->to_host(device, got, s->outputs[l], bytes);
        EXPECT_OK(ops->sync(device));
        EXPECT(memcmp(want, got, (size_t)bytes) == 0, "%s: the states after block %lld differ", dir,
               (long long)l);
    }
    p4_net_close(&net);
    ops->release(device, x);
    free(want);
    free(got);
}

/* The loss with blocks, where every vector has moved along a direction. */
static double moved_loss(const subject *s, const p4_net_teacher *teacher, float *const *h_vector,
                         float *const *h_step, double size)
{
    const p4_model *model = &s->hf.model;
    for (int64_t i = 0; i < model->params_count; i++) {
        int64_t count = model->params[i].cols;
        float *h_moved = p4_alloc((size_t)count, sizeof *h_moved);
        for (int64_t c = 0; h_vector[i] != NULL && c < count; c++) {
            h_moved[c] = h_vector[i][c] + (float)size * h_step[i][c];
        }
        if (h_vector[i] != NULL) {
            ops->to_device(device, s->form.form.vectors[i], h_moved, count * 4);
        }
        free(h_moved);
    }
    p4_score score = train(s, teacher, 2 * N, NULL);
    double weight = (double)teacher->weight, tau = (double)teacher->temperature;
    return (1.0 - weight) * score.nll + weight * tau * tau * score.kl + (double)BLOCKS * score.blocks;
}

/* Along a random direction of all gains and biases the loss rises as the gradient says. */
static void check_whole_slope(const subject *s, const char *dir, const p4_net_teacher *teacher,
                              const grads *g)
{
    const double size = 2e-4; /* so small that no token goes to other experts */
    const p4_model *model = &s->hf.model;
    p4_rng rng = {.seed = 8, .stream = 5};
    float **h_vector = p4_alloc((size_t)model->params_count, sizeof *h_vector),
          **h_step = p4_alloc((size_t)model->params_count, sizeof *h_step);
    double want = 0.0, all = 0.0;
    for (int64_t i = 0; i < model->params_count; i++) {
        const float *vector = s->form.form.vectors[i];
        int64_t count = model->params[i].cols;
        if (vector == NULL) {
            continue;
        }
        h_vector[i] = p4_alloc((size_t)count, sizeof **h_vector);
        h_step[i] = p4_alloc((size_t)count, sizeof **h_step);
        ops->to_host(device, h_vector[i], vector, count * 4);
        for (int64_t c = 0; c < count; c++) {
            h_step[i][c] = (float)p4_rng_normal(&rng);
            want += (double)h_step[i][c] * (double)g->h_flat[g->at[i] + c];
            all += (double)g->h_flat[g->at[i] + c] * (double)g->h_flat[g->at[i] + c];
        }
    }
    double up = moved_loss(s, teacher, h_vector, h_step, size),
           down = moved_loss(s, teacher, h_vector, h_step, -size), got = (up - down) / (2 * size);
    (void)moved_loss(s, teacher, h_vector, h_step, 0);
    EXPECT(fabs(got - want) < 0.02 * sqrt(all), "%s: slope %g, by the gradient %g of norm %g", dir, got, want,
           sqrt(all));
    for (int64_t i = 0; i < model->params_count; i++) {
        free(h_vector[i]);
        free(h_step[i]);
    }
    free(h_vector);
    free(h_step);
}

/* Another teacher whose blocks are compared: the slope of the loss, and the gradients of recomputation. */
static void check_blocks(const subject *s, const char *dir, int64_t count)
{
    static const p4_recompute ways[] = {P4_RECOMPUTE_LIGHT, P4_RECOMPUTE_BLOCKS};
    grads g, without;
    const p4_net_teacher teacher = with_blocks(s);
    take_grads(&g, &s->hf.model);
    take_grads(&without, &s->hf.model);
    p4_score score = train(s, &teacher, 2 * N, &g), plain = train(s, &s->teacher, 2 * N, &without);
    EXPECT(score.blocks > 1e-4 && score.blocks < 2.0 && plain.blocks == 0.0, "%s: blocks %g, %g without", dir,
           score.blocks, plain.blocks);
    EXPECT(fabs(score.kl - plain.kl) < 1e-6 * plain.kl, "%s: KL %g, %g without", dir, score.kl, plain.kl);
    EXPECT(distance(&without, &g, 1.0, count) > 1e-3, "%s: the blocks change nothing", dir);
    check_whole_slope(s, dir, &teacher, &g);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        grads again;
        take_grads(&again, &s->hf.model);
        p4_score other = train_as(s, &teacher, ways[i], 2 * N, &again);
        EXPECT(fabs(other.blocks - score.blocks) < 1e-6, "%s: computed again, blocks %g and %g", dir,
               other.blocks, score.blocks);
        EXPECT(distance(&again, &g, 1.0, count) < 1e-5, "%s: computed again, the gradient differs by %g", dir,
               distance(&again, &g, 1.0, count));
        free_grads(&again);
    }
    free_grads(&g);
    free_grads(&without);
}

static void check_model(const char *dir)
{
    subject *s = p4_alloc(1, sizeof *s);
    open_subject(s, dir);
    const p4_model *model = &s->hf.model;
    int64_t count = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        count += model->params[i].rows * model->params[i].cols;
    }
    check_forms(s, dir);
    check_itself(s, dir, count);
    forward(s, &s->teacher_form.form, s->teacher_ids, s->states, s->outputs, NULL);
    check_outputs(s, dir);
    check_ways(s, dir, count);
    check_slope(s, dir);
    check_blocks(s, dir, count);
    close_subject(s);
    free(s);
}

/* --- files of records -------------------------------------------------------------------------- */

static void check_records(void)
{
    char folder[] = "/tmp/phase4-records.XXXXXX", path[64];
    p4_record_layout layout = {.count = 3, .record_bytes = 5, .key = 77}, other = layout;
    p4_record_file file = {0};
    p4_atomic_file out;
    EXPECT(mkdtemp(folder) != NULL, "%s", folder);
    snprintf(path, sizeof path, "%s/records", folder);
    EXPECT_OK(p4_record_file_begin(&out, path, &layout));
    EXPECT_OK(p4_atomic_write(&out, "abcdefghijklmno", 15));
    EXPECT(!p4_file_exists(path), "the file is there before it is complete");
    EXPECT_OK(p4_atomic_close(&out, true));
    EXPECT_OK(p4_record_file_map(&file, path, &layout));
    EXPECT(memcmp(p4_record_at(&file, 1), "fghij", 5) == 0 && (uintptr_t)file.records % 64 == 0, "record 1");
    p4_record_file_close(&file);
    other.key = 78;
    EXPECT_REFUSED(p4_record_file_map(&file, path, &other), "is another file");
    other = layout;
    other.count = 4;
    EXPECT_REFUSED(p4_record_file_map(&file, path, &other), "found 79 bytes, expected 84");
    other.count = INT64_MAX / 2;
    EXPECT_REFUSED(p4_record_file_map(&file, path, &other), "more than a file can hold");
    EXPECT_OK(p4_remove_tree(folder));
}

/* A file whose writer dies has the records that were kept. */
static void check_kept_records(void)
{
    char folder[] = "/tmp/phase4-records.XXXXXX", path[64];
    p4_record_layout layout = {.count = 3, .record_bytes = 5, .key = 77}, two = layout;
    p4_record_file file = {0};
    p4_atomic_file out;
    two.count = 2;
    EXPECT(mkdtemp(folder) != NULL, "%s", folder);
    snprintf(path, sizeof path, "%s/records", folder);
    EXPECT_OK(p4_record_file_begin(&out, path, &layout));
    EXPECT_OK(p4_atomic_write(&out, "abcde", 5));
    EXPECT_OK(p4_record_file_keep(&out, &layout, 1));
    EXPECT(p4_record_file_count(path, &layout) == 1, "one record is kept");
    EXPECT_OK(p4_atomic_write(&out, "fghijklm", 8));
    EXPECT(p4_record_file_count(path, &layout) == 1, "more are written");
    EXPECT_OK(p4_record_file_keep(&out, &layout, 2));
    EXPECT_OK(p4_atomic_close(&out, false));
    EXPECT(p4_record_file_count(path, &layout) == 2, "two records are kept");
    EXPECT_OK(p4_record_file_map(&file, path, &two));
    EXPECT(memcmp(p4_record_at(&file, 1), "fghij", 5) == 0, "record 1");
    p4_record_file_close(&file);
    EXPECT_OK(p4_record_file_begin(&out, path, &layout));
    EXPECT_OK(p4_atomic_write(&out, "ABCDEFGHIJKLMNO", 15));
    EXPECT(p4_record_file_count(path, &layout) == 2, "the file before is there until it is replaced");
    EXPECT_OK(p4_record_file_keep(&out, &layout, 1));
    EXPECT_OK(p4_record_file_finish(&out, &layout, 3));
    EXPECT(p4_record_file_count(path, &layout) == 3, "all records are there");
    EXPECT_OK(p4_remove_tree(folder));
}

int main(void)
{
    check_records();
    check_kept_records();
    if (open_backend("cpu", false)) {
        for_each_model(check_model);
        ops->close(device);
    }
    if (open_backend("cuda", false)) {
        for_each_model(check_model);
        ops->close(device);
    }
    return TEST_END();
}
