/* api_world.h - what the tests of phase4.h share: a folder of token files that is removed at the end, a small
 * model of the fixtures, and a configuration that fits it. */
#ifndef P4_API_WORLD_H
#define P4_API_WORLD_H

#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "kernels/ops.h"
#include "src/leaf/base.h"
#include "src/phase4.h"

enum { WINDOW = 16, WINDOWS = 40, VOCAB = 53 }; /* VOCAB: of the model llama-gqa */
enum { P4_SKIPPED = 77 };                       /* CMakeLists.txt */

static char world[] = "/tmp/phase4-api.XXXXXX";

/* "<world>/<name>" in one of a few buffers. */
static inline const char *at(const char *name)
{
    static char paths[8][512];
    static int next;
    next = (next + 1) % 8;
    snprintf(paths[next], sizeof paths[next], "%s/%s", world, name);
    return paths[next];
}

static inline const char *fixture(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/models/%s", P4_FIXTURES, name);
    return path;
}

/* Token i of the text: a pattern that a small model can learn. */
static inline int32_t token_at(int64_t i)
{
    return (int32_t)(3 + (i * i / 3 + i / WINDOW) % 20);
}

/* `count` tokens of the text as raw uint16. */
static inline void put_tokens(const char *name, int64_t count)
{
    FILE *file = fopen(at(name), "wb");
    EXPECT(file != NULL, "%s", at(name));
    for (int64_t i = 0; file != NULL && i < count; i++) {
        uint16_t id = (uint16_t)token_at(i);
        EXPECT(fwrite(&id, sizeof id, 1, file) == 1, "%s", at(name));
    }
    if (file != NULL) {
        fclose(file);
    }
}

/* Makes the folder and the text; on several ranks, on one of them. */
static inline void world_fill(void)
{
    EXPECT(mkdtemp(world) != NULL, "%s", world);
    put_tokens("text.bin", WINDOWS * WINDOW + 5);
}

static inline void world_end(void)
{
    EXPECT_OK(p4_remove_tree(world));
}

static inline void expect_set(p4_config *config, const char *key, const char *value)
{
    EXPECT_OK(p4_config_set(config, key, value));
}

/* P4_TEST_DEVICE=cuda: the same tests on a GPU, in fp32. */
static inline const char *test_device(void)
{
    const char *device = getenv("P4_TEST_DEVICE");
    return device != NULL ? device : "cpu";
}

/* False, and why, where that device is not: the test is skipped (exit status P4_SKIPPED), unless P4_NEED_GPU
 * is set. Where it is the CPU, the GPUs are hidden: a model that is loaded takes the best device there is. */
static inline bool device_is_here(void)
{
    if (strcmp(test_device(), "cpu") == 0) {
        setenv("CUDA_VISIBLE_DEVICES", "", 1);
    }
    enum { MOST = 16 };
    const p4_ops *ops = p4_ops_find(test_device());
    const char *local = getenv("OMPI_COMM_WORLD_LOCAL_SIZE"); /* each rank of a GPU test takes one */
    p4_device_info info[MOST];
    int count = 0, ranks = local != NULL && strcmp(test_device(), "cpu") != 0 ? atoi(local) : 1;
    p4_rc rc =
        ops != NULL ? ops->list(info, MOST, &count) : FAIL("this build has no backend %s", test_device());
    EXPECT(rc == P4_OK || getenv("P4_NEED_GPU") == NULL, "%s", p4_last_error());
    rc = rc == P4_OK && count < ranks ? FAIL("%d devices for %d ranks", count, ranks) : rc;
    if (rc != P4_OK && check_failed == 0) {
        printf("skipped: %s\n", p4_last_error());
    }
    return rc == P4_OK;
}

/* The specification's defaults, made to fit the small model and the text. */
static inline void small_config(p4_config *config)
{
    p4_config_default(config);
    expect_set(config, "calibration_dataset", "custom");
    expect_set(config, "calibration_files", at("text.bin"));
    expect_set(config, "calibration_sequence_length", "16");
    expect_set(config, "calibration_batch_size", "8");
    expect_set(config, "device", test_device());
    expect_set(config, "mixed_precision", "false");
    expect_set(config, "threads_per_rank", "1");
    expect_set(config, "fine_tune_lr", "3e-3");
    expect_set(config, "warmup_steps", "2");
    expect_set(config, "enable_grokfast", "false");
    expect_set(config, "log_every", "1");
    expect_set(config, "wandb_enabled", "false");
}

/* The call fails with this code, and its message holds `part`. */
#define EXPECT_CODE(call, code, part)                                                                        \
    do {                                                                                                     \
        p4_rc got_rc = (call);                                                                               \
        EXPECT(got_rc == (code), "code %d, want %d (%s)", (int)got_rc, (int)(code), p4_last_error());        \
        EXPECT(strstr(p4_last_error(), part) != NULL, "message \"%s\" lacks \"%s\"", p4_last_error(), part); \
    } while (0)

#endif
