/* A teacher takes the device memory for micro-batches that its plan says, wherever it lives, with the outputs
 * of blocks and without. */
#include "api_world.h"
#include "jobs/settings.h"
#include "jobs/train/teacher.h"

enum { SEQUENCES = 3 };

static p4_ops counting;
static const p4_ops *counted;
static int64_t taken; /* bytes of device memory */

static p4_rc count_bytes(p4_device *device, void **memory, int64_t bytes)
{
    taken += bytes;
    return counted->alloc(device, memory, bytes);
}

/* Bytes that it takes. */
static int64_t reserve(const p4_config *config, p4_group *group, p4_teacher_kind kind, double blocks)
{
    p4_compute compute;
    p4_original original;
    p4_teacher teacher = {0};
    p4_teacher_memory memory;
    p4_config own = *config;
    p4_compute_settings settings = p4_settings_compute(&own);
    EXPECT_OK(p4_compute_open(&compute, group, &settings));
    EXPECT_OK(p4_settings_open_original(&original, &own, group->ranks));
    p4_teacher_plan plan = p4_settings_train(&own, own.calibration_sequence_length, NULL).teacher;
    plan.kind = kind;
    plan.blocks = blocks;
    EXPECT_OK(p4_teacher_plan_bytes(&memory, &compute, &original, &plan, SEQUENCES, WINDOWS));
    EXPECT_OK(p4_teacher_open(&teacher, &compute, &original, NULL, &plan, 0));
    counted = compute.ops;
    counting = *counted;
    counting.alloc = count_bytes;
    compute.ops = &counting;
    taken = 0;
    EXPECT_OK(p4_teacher_reserve(&teacher, SEQUENCES));
    EXPECT(taken == memory.work, "took %lld bytes, planned %lld", (long long)taken, (long long)memory.work);
    EXPECT(p4_teacher_bytes(&teacher) == memory.held + memory.work, "bytes held");
    compute.ops = counted;
    p4_teacher_close(&teacher);
    p4_original_close(&original);
    p4_compute_close(&compute);
    return taken;
}

int main(void)
{
    static const char *const models[] = {"llama-gqa", "gpt_neox-parallel", "gemma2-caps", "phi-plain",
                                         "cohere-plain"};
    static p4_config config;
    p4_machine machine;
    p4_group group;
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_group_open(&group, &machine, NULL, 60));
    small_config(&config);
    expect_set(&config, "distill", "1");
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        snprintf(config.model_path, sizeof config.model_path, "%s", fixture(models[i]));
        for (p4_teacher_kind kind = P4_TEACHER_RESIDENT; kind <= P4_TEACHER_SHARDED; kind++) {
            EXPECT(reserve(&config, &group, kind, 0) < reserve(&config, &group, kind, 1),
                   "%s: the outputs of blocks take no memory", models[i]);
        }
    }
    p4_group_close(&group);
    p4_machine_close(&machine);
    return TEST_END();
}
