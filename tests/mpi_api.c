/* phase4.h on several ranks: rank 0's word counts, everyone has the same model, results and errors. */
#include "api_world.h"
#include "dist/group.h"
#include "io/hf/safetensors.h"

static p4_session *session;
static p4_machine machine; /* the test's own, beside the session's */
static p4_group group;
static p4_checkpoint *llama;
static p4_config config;

/* Every rank has rank 0's bytes. */
static void expect_same(const void *data, size_t bytes, const char *what)
{
    void *copy = p4_alloc(bytes, 1);
    memcpy(copy, data, bytes);
    p4_group_bcast(&group, copy, (int64_t)bytes, 0);
    EXPECT(memcmp(copy, data, bytes) == 0, "rank %d has another %s", group.rank, what);
    free(copy);
}

static void expect_same_number(double value, const char *what)
{
    expect_same(&value, sizeof value, what);
}

static void expect_same_state(const p4_compressed *c)
{
    static const size_t bytes[] = {1, 2, 4};
    p4_state state, scales;
    EXPECT_OK(p4_compressed_quantized_state(c, &state));
    EXPECT_OK(p4_compressed_scale_factors(c, &scales));
    for (int64_t i = 0; i < state.count; i++) {
        const p4_state_tensor *t = &state.tensors[i];
        expect_same(t->data, (size_t)(t->shape[0] * t->shape[1]) * bytes[t->dtype], t->name);
    }
    for (int64_t i = 0; i < scales.count; i++) {
        const p4_state_tensor *t = &scales.tensors[i];
        expect_same(t->data, (size_t)(t->shape[0] * t->shape[1]) * 4, "scale");
    }
    p4_state_free(&state);
    p4_state_free(&scales);
}

/* Whatever the number of ranks: the codes are those of p4_quantize_tensor. */
static void codes_follow_the_rule(const p4_compressed *c)
{
    p4_safetensors file;
    p4_state state;
    char path[600];
    snprintf(path, sizeof path, "%s/model.safetensors", fixture("llama-gqa"));
    EXPECT_OK(p4_safetensors_open(&file, path));
    EXPECT_OK(p4_compressed_quantized_state(c, &state));
    for (int64_t i = 0; i < state.count; i++) {
        const p4_state_tensor *q = &state.tensors[i];
        const p4_safetensor *w = p4_safetensors_find(&file, q->name);
        int64_t count = q->shape[0] * q->shape[1];
        float *weights = p4_alloc((size_t)count, 4), *scale = p4_alloc((size_t)q->shape[0], 4);
        int8_t *want = p4_alloc((size_t)count, 1);
        p4_to_f32(weights, w->data, w->dtype, count);
        if (q->dtype == P4_STATE_INT8) {
            EXPECT_OK(p4_quantize_tensor(want, scale, weights, q->shape[0], q->shape[1],
                                         config.sparsity_threshold));
            EXPECT(memcmp(want, q->data, (size_t)count) == 0, "codes of %s", q->name);
        }
        free(weights);
        free(scale);
        free(want);
    }
    p4_state_free(&state);
    p4_safetensors_close(&file);
}

static p4_loader *load(void)
{
    p4_calib *calib;
    p4_loader *loader;
    EXPECT_OK(p4_calib_create(&calib, llama, &config, NULL));
    EXPECT_OK(p4_loader_create(&loader, session, calib));
    p4_calib_free(calib);
    return loader;
}

static void data_is_shared(void)
{
    p4_loader *loader = load();
    p4_activation_summary *stats;
    const int32_t *ids;
    int64_t B, T, count, seen = 0;
    for (p4_loader_next(loader, &ids, &B, &T); B > 0; p4_loader_next(loader, &ids, &B, &T)) {
        for (int64_t i = 0; i < B * T; i++) {
            EXPECT(ids[i] == token_at(seen + i), "token %lld", (long long)(seen + i));
        }
        seen += B * T;
    }
    EXPECT(seen == WINDOWS * WINDOW, "%lld tokens", (long long)seen);
    EXPECT_OK(p4_calib_collect_statistics(session, llama, loader, &stats, &count));
    EXPECT(count == 14, "%lld projections", (long long)count);
    for (int64_t i = 0; i < count; i++) {
        expect_same(stats[i].input_mean_square, (size_t)stats[i].inputs * sizeof(double), stats[i].name);
        expect_same_number(stats[i].mean, stats[i].name);
        EXPECT(stats[i].min < stats[i].mean && stats[i].mean < stats[i].max, "%s", stats[i].name);
    }
    p4_activation_summary_free(stats, count);
    p4_loader_free(loader);
}

static void count_points(const p4_training_point *point, void *user)
{
    (void)point;
    ++*(int64_t *)user;
}

/* The mean loss after training, the same on every rank. */
static double train(int zero_stage)
{
    p4_compressed *c;
    p4_evaluation before, after;
    p4_fine_tuning result;
    p4_config own = config;
    p4_loader *loader = load();
    int64_t points = 0;
    own.zero_stage = zero_stage;
    own.quantization_bits = group.rank == 0 ? own.quantization_bits : 8; /* rank 0's configuration counts */
    EXPECT_OK(p4_quantize_model(&c, session, llama, &own));
    expect_same_state(c);
    codes_follow_the_rule(c);
    EXPECT_OK(p4_compressed_evaluate(c, loader, &before));
    expect_same(&before, sizeof before, "evaluation");
    EXPECT_OK(p4_fine_tune(c, loader, loader, NULL, count_points, &points, &result));
    EXPECT(points == (group.rank == 0 ? result.steps : 0), "rank %d saw %lld points", group.rank,
           (long long)points);
    EXPECT(result.history_count == 2 && result.steps == 10, "%lld steps", (long long)result.steps);
    expect_same(result.history, 2 * sizeof *result.history, "history");
    expect_same_state(c);
    EXPECT_OK(p4_compressed_evaluate(c, loader, &after));
    expect_same_number(after.loss, "loss");
    EXPECT(after.loss < before.loss && after.kl > 0, "loss %g to %g", before.loss, after.loss);
    p4_fine_tuning_free(&result);
    p4_compressed_close(c);
    p4_loader_free(loader);
    return after.loss;
}

/* The last rank's trouble is everyone's, in its words. */
static void errors_are_shared(void)
{
    p4_compressed *c;
    p4_config wrong = config;
    bool last = group.rank == group.ranks - 1;
    p4_rc rc = p4_compressed_load(&c, session, at(last ? "missing.h5" : "out/model.h5"));
    EXPECT(rc == P4_E_INPUT && c == NULL && strstr(p4_last_error(), "missing.h5") != NULL, "rank %d: %d %s",
           group.rank, (int)rc, p4_last_error());
    wrong.max_accuracy_drop = group.rank == 0 ? 1.5 : 0.1;
    EXPECT_CODE(p4_compressed_create(&c, session, llama, &wrong), P4_E_INPUT,
                "max_accuracy_drop must be between 0.0 and 0.5");
    EXPECT_OK(p4_compressed_load(&c, session, at("out/model.h5"))); /* and the session goes on */
    expect_same_state(c);
    p4_compressed_close(c);
}

static void results_are_shared(void)
{
    static p4_results results;
    p4_config own = config;
    snprintf(own.model_path, sizeof own.model_path, "%s", fixture("llama-gqa"));
    snprintf(own.output_path, sizeof own.output_path, "%s", at("out"));
    own.eval_samples = 8;
    own.reconstruct = true;
    own.reconstruct_steps = 2;
    EXPECT_OK(p4_execute(session, &own, NULL, NULL, &results));
    EXPECT(results.success && results.gradient_flow.passed, "%s", results.error);
    EXPECT(results.reconstruction.ran && results.reconstruction.losses_count == 2, "%lld losses",
           (long long)results.reconstruction.losses_count);
    if (results.reconstruction.losses_count == 2) {
        expect_same(results.reconstruction.losses, 2 * sizeof *results.reconstruction.losses,
                    "set of losses");
    }
    expect_same(&results.output_paths, sizeof results.output_paths, "set of paths");
    expect_same(&results.metrics, sizeof results.metrics, "set of sizes");
    expect_same_number(results.total_s, "time");
    EXPECT(access(results.output_paths.primary_output, F_OK) == 0, "no %s",
           results.output_paths.primary_output);
    p4_results_free(&results);
    EXPECT_CODE(p4_execute(session, &own, NULL, NULL, &results), P4_E_INPUT, "is complete already");
    EXPECT(!results.success && strstr(results.error, "is complete already") != NULL, "%s", results.error);
    p4_results_free(&results);
}

int main(void)
{
    EXPECT_OK(p4_session_open(&session));
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_group_open(&group, &machine, NULL, 60));
    EXPECT(p4_session_rank(session) == group.rank && p4_session_ranks(session) == group.ranks, "rank %d",
           group.rank);
    if (group.rank == 0) {
        world_fill();
    }
    p4_group_bcast(&group, world, sizeof world, 0);
    small_config(&config);
    EXPECT_OK(p4_checkpoint_open(&llama, fixture("llama-gqa")));
    data_is_shared();
    double replicated = train(0), sharded = train(2);
    EXPECT_NEAR(replicated, sharded, 1e-4);
    results_are_shared();
    errors_are_shared();
    p4_checkpoint_close(llama);
    p4_group_barrier(&group);
    if (group.rank == 0) {
        world_end();
    }
    p4_group_close(&group);
    p4_machine_close(&machine);
    p4_session_close(session);
    return TEST_END();
}
