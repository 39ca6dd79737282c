/* For every family of the table: there are fixture models, names round-trip with and without the prefix,
 * a randomly initialized model can be written, opened and trained, and pages and lists name it. */
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "jobs/train/random_model.h"
#include "net_world.h"

enum { SEED = 7, B = 2, T = 9, STEPS = 3 };

static char world[] = "/tmp/phase4-families.XXXXXX";
static const char *family;        /* whose fixtures are tested */
static int fixtures, with_prefix; /* of the family; of these, how many use its prefix */

/* Names are unique, and role and layer find each tensor's slot. */
static void check_names(const char *dir, const p4_model *model)
{
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        int64_t first = p4_model_find(model, p->role, p->layer);
        EXPECT(first >= 0 && first <= i && i < first + p4_model_parts(model, first),
               "%s: %s is not in its slot", dir, p->name);
        for (int64_t other = 0; other < i; other++) {
            EXPECT(strcmp(model->params[other].name, p->name) != 0, "%s: two tensors %s", dir, p->name);
        }
    }
}

/* All names of the checkpoint have the family's prefix or none has it; the head's never has it. */
static void check_prefix(const char *dir, const p4_model *model)
{
    p4_model with, without;
    const char *prefix = p4_family_prefix(model->arch.family);
    int64_t same_with = 0, same_without = 0;
    EXPECT_OK(p4_model_init(&with, &model->arch, prefix));
    EXPECT_OK(p4_model_init(&without, &model->arch, ""));
    for (int64_t i = 0; i < model->params_count; i++) {
        const char *bare = without.params[i].name, *full = with.params[i].name;
        p4_role role = model->params[i].role;
        size_t skipped = role == P4_ROLE_HEAD || role == P4_ROLE_HEAD_BIAS ? 0 : strlen(prefix);
        EXPECT(strncmp(full, prefix, skipped) == 0 && strcmp(full + skipped, bare) == 0, "%s: %s of %s", dir,
               full, bare);
        same_with += strcmp(model->params[i].name, full) == 0;
        same_without += strcmp(model->params[i].name, bare) == 0;
    }
    EXPECT(same_with == model->params_count || same_without == model->params_count,
           "%s: %lld names with the prefix, %lld without it, of %lld", dir, (long long)same_with,
           (long long)same_without, (long long)model->params_count);
    with_prefix += same_with == model->params_count;
    p4_model_close(&with);
    p4_model_close(&without);
}

static p4_rc rows_of(void *user, uint16_t *halves, int64_t param, int64_t first_row, int64_t rows)
{
    const p4_hf_model *hf = user;
    const p4_weight *w = &hf->model.weights[param];
    const float *from = (const float *)w->data + first_row * w->cols;
    for (int64_t k = 0; k < rows * w->cols; k++) {
        halves[k] = p4_f32_to_f16(from[k]);
    }
    return P4_OK;
}

/* A model that is written and opened again has the same names and, rounded to fp16, the same weights. */
static void check_written(const char *dir, p4_hf_model *hf)
{
    p4_hf_model again;
    char *path = p4_format("%s/model", world);
    p4_hf_source source = {.rows = rows_of, .user = hf, .threads = 1};
    EXPECT_OK(p4_hf_model_write(path, hf, 0, &source));
    EXPECT_OK(p4_hf_model_open(&again, path));
    EXPECT(again.model.params_count == hf->model.params_count, "%s: %lld tensors, written were %lld", dir,
           (long long)again.model.params_count, (long long)hf->model.params_count);
    for (int64_t i = 0; i < again.model.params_count; i++) {
        const p4_param *p = &again.model.params[i];
        const p4_weight *w = &hf->model.weights[i];
        float row[512];
        EXPECT(strcmp(p->name, hf->model.params[i].name) == 0, "%s: %s, written was %s", dir, p->name,
               hf->model.params[i].name);
        for (int64_t r = 0; r < p->rows; r++) {
            p4_weight_row_f32(row, &again.model.weights[i], r);
            for (int64_t c = 0; c < p->cols; c++) {
                EXPECT_NEAR(row[c], ((const float *)w->data)[r * p->cols + c], 2e-4);
            }
        }
    }
    p4_hf_model_close(&again);
    EXPECT_OK(p4_remove_tree(path));
    free(path);
}

/* Returns the loss; *g gets the gradients, which the caller frees. */
static double train(const p4_hf_model *hf, const int32_t *ids, grads *g)
{
    p4_net net;
    p4_device_form form;
    p4_score score = {0};
    p4_net_plan plan = {.B = B, .T = T, .train = true, .head = true};
    p4_grad_sink sink = {grad_buffer, ready, g};
    take_grads(g, &hf->model);
    EXPECT_OK(p4_device_form_open(&form, ops, device, &hf->model, hf->model.weights));
    EXPECT_OK(p4_net_open(&net, ops, device, &hf->model, &plan));
    p4_net_set_tokens(&net, ids, B, T);
    p4_net_train(&net, &form.form, B, T, 1.0f / (float)(B * (T - 1)), &sink);
    EXPECT_OK(p4_net_take_score(&net, &score));
    read_grads(g);
    p4_net_close(&net);
    p4_device_form_close(&form);
    return score.nll / score.count;
}

/* Steps of one length down the gradient from random weights: the loss starts near log V and falls with every
 * step. */
static void check_training(const char *dir, const p4_hf_model *hf, float *weights)
{
    int32_t ids[B * T];
    int64_t count = p4_model_count_elements(&hf->model);
    double before = 0, guess = log((double)hf->model.arch.V);
    for (int n = 0; n < B * T; n++) {
        ids[n] = (int32_t)((n * 7 + 3) % hf->model.arch.V);
    }
    for (int step = 0; step <= STEPS; step++) {
        grads g;
        double loss = train(hf, ids, &g), squares = 0;
        EXPECT(isfinite(loss), "%s: step %d: loss %g", dir, step, loss);
        EXPECT(step == 0 ? fabs(loss - guess) < 0.1 * guess : loss < before,
               "%s: step %d: loss %g, before %g, of a guess %g", dir, step, loss, before, guess);
        for (int64_t k = 0; k < count; k++) {
            squares += (double)g.h_flat[k] * (double)g.h_flat[k];
        }
        for (int64_t k = 0; k < count; k++) {
            weights[k] -= (float)(0.03 / sqrt(squares)) * g.h_flat[k];
        }
        before = loss;
        free_grads(&g);
    }
}

static void check_random(const char *dir)
{
    p4_hf_model hf;
    float *weights;
    EXPECT_OK(p4_random_model_open(&hf, &weights, dir, SEED));
    for (int64_t i = 0; i < hf.model.params_count; i++) {
        const p4_param *p = &hf.model.params[i];
        const float *w = hf.model.weights[i].data;
        float first = p4_roles[p->role].kind == P4_KIND_GAIN && !hf.model.arch.gain_offset ? 1.0f : 0.0f;
        EXPECT(p->vector ? w[0] == first : w[0] != 0 && fabsf(w[0]) < 0.2f, "%s: %s begins with %g", dir,
               p->name, (double)w[0]);
    }
    check_names(dir, &hf.model);
    check_written(dir, &hf);
    check_training(dir, &hf, weights);
    p4_hf_model_close(&hf);
    free(weights);
}

static void check_fixture(const char *dir)
{
    p4_hf_model hf;
    EXPECT_OK(p4_hf_model_open(&hf, dir));
    if (strcmp(hf.model.arch.family, family) == 0) {
        fixtures++;
        check_names(dir, &hf.model);
        check_prefix(dir, &hf.model);
        check_random(dir);
    }
    p4_hf_model_close(&hf);
}

/* Places that name every family, by hand. */
static void check_places(void)
{
    static const struct {
        const char *path, *quote;
    } places[] = {
        {"../fuzz/corpus/hf_config.dict", "\\\""},
        {"../../docs/exports.md", "`"},
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char *path = p4_format("%s/%s", P4_FIXTURES, places[i].path), *text = calloc(1, 1 << 20);
        FILE *file = fopen(path, "r");
        EXPECT(file != NULL && text != NULL && fread(text, 1, (1 << 20) - 1, file) > 0, "%s", path);
        for (int64_t f = 0; p4_family_name(f) != NULL; f++) {
            char *named = p4_format("%s%s%s", places[i].quote, p4_family_name(f), places[i].quote);
            EXPECT(strstr(text, named) != NULL, "%s lacks %s", path, named);
            free(named);
        }
        fclose(file);
        free(text);
        free(path);
    }
}

int main(void)
{
    p4_log_setup(P4_LOG_QUIET, false);
    EXPECT(mkdtemp(world) != NULL, "%s", world);
    EXPECT(open_backend("cpu", false), "cpu");
    for (int64_t i = 0; p4_family_name(i) != NULL; i++) {
        family = p4_family_name(i);
        fixtures = with_prefix = 0;
        for_each_model(check_fixture);
        EXPECT(fixtures > 0, "%s: no model in %s/models, expected one", family, P4_FIXTURES);
        EXPECT(p4_family_prefix(family)[0] == '\0' || (with_prefix > 0 && with_prefix < fixtures),
               "%s: %d of %d fixture models use its prefix, expected some but not all", family, with_prefix,
               fixtures);
    }
    check_places();
    ops->close(device);
    EXPECT_OK(p4_remove_tree(world));
    return TEST_END();
}
