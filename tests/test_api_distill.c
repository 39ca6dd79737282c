/* Distillation through phase4.h: p4_fine_tune with each kind of teacher brings the model closer to the
 * original, and so do its blocks where they are compared. */
#include <unistd.h>

#include "api_world.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/out/hold.h"
#include "jobs/train/teacher.h"

static p4_session *session;
static p4_checkpoint *llama;
static p4_config config;

typedef struct seen {
    int64_t count;
    double first_kl, last_kl, first_distance, last_distance;
} seen;

static void see(const p4_training_point *point, void *user)
{
    seen *s = user;
    s->first_kl = s->count == 0 ? point->kl : s->first_kl;
    s->last_kl = point->kl;
    s->first_distance = s->count == 0 ? point->block_distance : s->first_distance;
    s->last_distance = point->block_distance;
    s->count++;
}

/* Trains a fresh model. *after: what becomes of it. */
static seen train(const p4_config *own, p4_evaluation *before, p4_evaluation *after)
{
    p4_compressed *c;
    p4_fine_tuning result;
    p4_calib *calib;
    p4_loader *loader;
    seen s = {0};
    EXPECT_OK(p4_calib_create(&calib, llama, &config, NULL));
    EXPECT_OK(p4_loader_create(&loader, session, calib));
    EXPECT_OK(p4_quantize_model(&c, session, llama, &config));
    EXPECT_OK(p4_compressed_evaluate(c, loader, before));
    EXPECT_OK(p4_fine_tune(c, loader, NULL, own, see, &s, &result));
    EXPECT_OK(p4_compressed_evaluate(c, loader, after));
    EXPECT(isnan(s.last_distance) ? isnan(result.block_distance) : result.block_distance == s.last_distance,
           "the last step's distance is %g, the result's %g", s.last_distance, result.block_distance);
    p4_fine_tuning_free(&result);
    p4_compressed_close(c);
    p4_loader_free(loader);
    p4_calib_free(calib);
    return s;
}

static void teachers_agree(void)
{
    static const p4_teacher_kind kinds[] = {P4_TEACHER_AUTO, P4_TEACHER_RESIDENT, P4_TEACHER_SHARDED,
                                            P4_TEACHER_CACHED};
    double first_kl = 0, kl = 0;
    for (int i = 0; i < 4; i++) {
        p4_evaluation before, after;
        p4_config own = config;
        own.distill = 1.0;
        own.distill_teacher = kinds[i];
        own.distill_top_k = VOCAB; /* a cut that leaves nothing out */
        own.fine_tune_epochs = 4;
        seen s = train(&own, &before, &after);
        EXPECT(s.count == 20 && s.last_kl < s.first_kl && after.kl < before.kl,
               "KL %g to %g, evaluated %g to %g", s.first_kl, s.last_kl, before.kl, after.kl);
        first_kl = i == 0 ? s.first_kl : first_kl;
        kl = i == 0 ? after.kl : kl;
        EXPECT_NEAR(s.first_kl, first_kl, 1e-5 * first_kl);
        EXPECT_NEAR(after.kl, kl, 1e-2 * kl);
    }
    EXPECT(!p4_file_exists(at("out/" P4_TEACHER_CACHE_FILE)), "the cache is left behind");
}

/* With the same steps, blocks that are compared end closer to the original's than they begin. */
static void blocks_come_closer(void)
{
    static const p4_teacher_kind kinds[] = {P4_TEACHER_RESIDENT, P4_TEACHER_SHARDED};
    seen one[2];
    for (int i = 0; i < 2; i++) {
        p4_evaluation before, after;
        p4_config own = config;
        own.distill = 0.9;
        own.distill_blocks = 10;
        own.distill_teacher = kinds[i];
        own.fine_tune_epochs = 4;
        one[i] = train(&own, &before, &after);
        EXPECT(one[i].last_distance < one[i].first_distance && after.kl < before.kl,
               "distance %g to %g, KL %g to %g", one[i].first_distance, one[i].last_distance, before.kl,
               after.kl);
    }
    EXPECT_NEAR(one[1].first_distance, one[0].first_distance, 1e-5 * one[0].first_distance);
    EXPECT_NEAR(one[1].last_distance, one[0].last_distance, 1e-2 * one[0].last_distance);
}

/* The file of a cached teacher lies in output_path, which a run may be using. */
static void a_cache_needs_the_directory(void)
{
    p4_hold *hold;
    p4_compressed *c;
    p4_fine_tuning result;
    p4_calib *calib;
    p4_loader *loader;
    p4_config own = config;
    own.distill = 0.5;
    own.distill_teacher = P4_TEACHER_CACHED;
    own.distill_top_k = 8;
    EXPECT_OK(p4_calib_create(&calib, llama, &config, NULL));
    EXPECT_OK(p4_loader_create(&loader, session, calib));
    EXPECT_OK(p4_quantize_model(&c, session, llama, &config));
    EXPECT_OK(p4_hold_take(&hold, at("out"), 1.0));
    EXPECT_CODE(p4_fine_tune(c, loader, NULL, &own, NULL, NULL, &result), P4_E_INPUT,
                "another run is using this output directory");
    p4_hold_release(hold);
    EXPECT_OK(p4_atomic_write_all(at("out/" P4_TEACHER_CACHE_FILE), "mine", 4));
    EXPECT_CODE(p4_fine_tune(c, loader, NULL, &own, NULL, NULL, &result), P4_E_INPUT, "is in the way");
    EXPECT(unlink(at("out/" P4_TEACHER_CACHE_FILE)) == 0, "unlink");
    EXPECT_OK(p4_atomic_write_all(at("out/.phase4_run"), "[]", 2));
    EXPECT_CODE(p4_fine_tune(c, loader, NULL, &own, NULL, NULL, &result), P4_E_INPUT,
                "holds a run that has not ended");
    EXPECT(unlink(at("out/.phase4_run")) == 0, "unlink");
    EXPECT_OK(p4_fine_tune(c, loader, NULL, &own, NULL, NULL, &result));
    p4_fine_tuning_free(&result);
    p4_compressed_close(c);
    p4_loader_free(loader);
    p4_calib_free(calib);
}

static void nothing_is_distilled_by_default(void)
{
    p4_evaluation before, after;
    seen s = train(NULL, &before, &after);
    EXPECT(s.count == 10 && isnan(s.first_kl) && isnan(s.last_kl) && isnan(s.first_distance),
           "%lld points, KL %g", (long long)s.count, s.first_kl);
}

static void more_classes_than_tokens_are_refused(void)
{
    p4_compressed *c;
    p4_fine_tuning result;
    p4_calib *calib;
    p4_loader *loader;
    p4_config own = config;
    own.distill = 0.5;
    own.distill_teacher = P4_TEACHER_CACHED;
    own.distill_top_k = VOCAB + 1;
    EXPECT_CODE(p4_compressed_create(&c, session, llama, &own), P4_E_INPUT, "at most the 53 tokens");
    EXPECT_OK(p4_calib_create(&calib, llama, &config, NULL));
    EXPECT_OK(p4_loader_create(&loader, session, calib));
    EXPECT_OK(p4_quantize_model(&c, session, llama, &config));
    EXPECT_CODE(p4_fine_tune(c, loader, NULL, &own, NULL, NULL, &result), P4_E_INPUT,
                "at most the 53 tokens");
    p4_compressed_close(c);
    p4_loader_free(loader);
    p4_calib_free(calib);
}

/* A file of probabilities has no outputs of blocks, and without distillation there is no teacher. */
static void blocks_need_a_teacher(void)
{
    p4_compressed *c;
    p4_config own = config;
    own.distill_blocks = 1.0;
    EXPECT_CODE(p4_compressed_create(&c, session, llama, &own), P4_E_INPUT, "there is no teacher");
    own.distill = 0.5;
    own.distill_teacher = P4_TEACHER_CACHED;
    EXPECT_CODE(p4_compressed_create(&c, session, llama, &own), P4_E_INPUT,
                "expected \"auto\", \"resident\" or \"sharded\" with distill_blocks");
}

int main(void)
{
    if (!device_is_here()) {
        return check_failed > 0 ? TEST_END() : P4_SKIPPED;
    }
    world_fill();
    EXPECT_OK(p4_session_open(&session));
    small_config(&config);
    snprintf(config.output_path, sizeof config.output_path, "%s", at("out"));
    EXPECT_OK(p4_checkpoint_open(&llama, fixture("llama-gqa")));
    teachers_agree();
    blocks_come_closer();
    a_cache_needs_the_directory();
    nothing_is_distilled_by_default();
    more_classes_than_tokens_are_refused();
    blocks_need_a_teacher();
    p4_checkpoint_close(llama);
    p4_session_close(session);
    world_end();
    return TEST_END();
}
