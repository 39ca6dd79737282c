/* Tiny random models of both families against the reference library: logits, loss and every gradient
 * (fixtures/make_tiny_models.py). Also: recomputation and micro-batches give the same gradients. */
#include <dirent.h>
#include <stdlib.h>

#include "check.h"
#include "form.h"
#include "hf_model.h"

typedef struct grads {
    const p4_model *model;
    float *flat;
    int64_t *at;
} grads;

static float *grad_buffer(void *user, int64_t param, bool *accumulate)
{
    grads *g = user;
    *accumulate = true;
    return g->flat + g->at[param];
}

static void ready(void *user, int64_t param)
{
    (void)user;
    (void)param;
}

static int64_t take_grads(grads *g, const p4_model *model)
{
    int64_t count = 0;
    g->model = model;
    g->at = p4_alloc((size_t)model->params_count, sizeof *g->at);
    for (int64_t i = 0; i < model->params_count; i++) {
        g->at[i] = count;
        count += model->params[i].rows * model->params[i].cols;
    }
    g->flat = p4_alloc((size_t)count, sizeof *g->flat);
    return count;
}

/* Elements of golden tensor `name` as floats; *count of them. NULL: not there. */
static float *golden(const p4_safetensors *file, const char *name, int64_t *count)
{
    const p4_safetensor *t = p4_safetensors_find(file, name);
    *count = 1;
    if (t == NULL) {
        return NULL;
    }
    for (int d = 0; d < t->rank; d++) {
        *count *= t->shape[d];
    }
    float *values = p4_alloc((size_t)*count, sizeof *values);
    p4_to_f32(values, t->data, t->dtype, *count);
    return values;
}

static void compare_gradients(const char *dir, const p4_safetensors *file, const grads *g)
{
    for (int64_t i = 0; i < g->model->params_count; i++) {
        const p4_param *p = &g->model->params[i];
        char name[P4_TENSOR_NAME_BYTES + 8];
        int64_t count;
        snprintf(name, sizeof name, "grad.%s", p->name);
        float *want = golden(file, name, &count);
        EXPECT(want != NULL && count == p->rows * p->cols, "%s: golden %s is missing", dir, name);
        if (want == NULL) {
            continue;
        }
        double error = 0, norm = 0;
        for (int64_t r = 0; r < p->rows; r++) {
            for (int64_t c = 0; c < p->cols; c++) {
                double w = want[p->transposed ? c * p->rows + r : r * p->cols + c];
                double d = (double)g->flat[g->at[i] + r * p->cols + c] - w;
                error += d * d;
                norm += w * w;
            }
        }
        EXPECT(sqrt(error) <= 1e-3 * sqrt(norm) + 1e-9, "%s: %s: relative gradient error %.3g", dir, p->name,
               sqrt(error / norm));
        free(want);
    }
}

static void check_forward(const char *dir, p4_net *net, const p4_form *form, const int32_t *ids, const float *logits,
                          int64_t B, int64_t T)
{
    const p4_arch *a = &net->model->arch;
    int64_t count = B * T * a->V;
    float *x = p4_alloc((size_t)(B * T * a->C), sizeof *x), *got = p4_alloc((size_t)count, sizeof *got);
    p4_net_set_tokens(net, ids, B, T);
    p4_net_embed(net, form, x, B, T);
    p4_net_layers(net, form, 0, a->L, x, B, T, NULL);
    p4_net_final_norm(net, form, x, false, B * T);
    EXPECT_OK(p4_net_logits(net, form, got, B * T));
    double worst = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)got[i] - (double)logits[i]);
        worst = d > worst || d != d ? d : worst;
    }
    EXPECT(worst <= 1e-4, "%s: logits differ by %.3g", dir, worst);
    free(x);
    free(got);
}

static void check_training(const char *dir, const p4_ops *ops, p4_device *device, const p4_model *model, const p4_form *form,
                           const p4_safetensors *file, const int32_t *ids, int64_t B, int64_t T, bool recompute,
                           bool one_by_one)
{
    p4_net net;
    grads g;
    p4_score score = {0};
    int64_t unused;
    int64_t per = one_by_one ? 1 : B;
    take_grads(&g, model);
    p4_net_plan plan = {.B = per, .T = T, .train = true, .recompute = recompute, .head = true};
    p4_grad_sink sink = {grad_buffer, ready, &g};
    EXPECT_OK(p4_net_open(&net, ops, device, model, &plan));
    for (int64_t b = 0; b < B; b += per) {
        p4_net_set_tokens(&net, ids + b * T, per, T);
        EXPECT_OK(p4_net_train(&net, form, per, T, 1.0f / (float)(B * (T - 1)), &sink, &score));
    }
    float *loss = golden(file, "loss", &unused);
    EXPECT_NEAR(score.nll / score.count, loss[0], 1e-5);
    compare_gradients(dir, file, &g);
    free(loss);
    free(g.flat);
    free(g.at);
    p4_net_close(&net);
}

static void check_model(const p4_ops *ops, p4_device *device, const char *dir)
{
    p4_hf_model hf;
    p4_safetensors file;
    p4_device_form form;
    p4_net net;
    char *path = p4_format("%s/golden.safetensors", dir);
    EXPECT_OK(p4_hf_model_open(&hf, dir));
    EXPECT_OK(p4_safetensors_open(&file, path));
    const p4_safetensor *t = p4_safetensors_find(&file, "ids");
    int64_t B = t->shape[0], T = t->shape[1], count;
    int32_t *ids = p4_alloc((size_t)(B * T), sizeof *ids);
    for (int64_t i = 0; i < B * T; i++) {
        memcpy(&ids[i], (const char *)t->data + i * (int64_t)(t->bytes / (uint64_t)(B * T)), 4); /* I32 or low half of I64 */
    }
    EXPECT_OK(p4_device_form_open(&form, ops, device, &hf.model, hf.model.weights));
    p4_net_plan plan = {.B = B, .T = T, .head = true};
    EXPECT_OK(p4_net_open(&net, ops, device, &hf.model, &plan));
    float *logits = golden(&file, "logits", &count);
    EXPECT(logits != NULL && count == B * T * hf.model.arch.V, "%s: golden logits", dir);
    check_forward(dir, &net, &form.form, ids, logits, B, T);
    check_training(dir, ops, device, &hf.model, &form.form, &file, ids, B, T, false, false);
    check_training(dir, ops, device, &hf.model, &form.form, &file, ids, B, T, true, true);
    free(logits);
    free(ids);
    free(path);
    p4_net_close(&net);
    p4_device_form_close(&form);
    p4_safetensors_close(&file);
    p4_hf_model_close(&hf);
}

int main(void)
{
    const p4_ops *ops = p4_ops_find("cpu");
    p4_device *device = NULL;
    int models = 0;
    EXPECT_OK(ops->open(&device, 0, 2, false));
    DIR *folder = opendir(P4_FIXTURES "/models");
    EXPECT(folder != NULL, "no fixtures");
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] != '.') {
            char *dir = p4_format("%s/models/%s", P4_FIXTURES, entry->d_name);
            check_model(ops, device, dir);
            free(dir);
            models++;
        }
    }
    closedir(folder);
    EXPECT(models >= 8, "%d models, expected at least 8", models);
    ops->close(device);
    return TEST_END();
}
