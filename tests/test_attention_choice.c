/* Which implementation of attention computes which shape on which device: the table in
 * kernels/cuda/attention.cu, without a GPU. Skipped where the build has no CUDA column. */
#include <stdio.h>

#ifdef P4_CUDA
#include "check.h"
#include "kernels/cuda/attention_choice.h"

/* What a GPU supports: of compute capability 9.0 with and without cuDNN, and with P4_ATTENTION; older; in
 * fp32. */
static const p4_attention_support hopper = {.half = true};
static const p4_attention_support forced = {.half = true, .cudnn_first = true};
static const p4_attention_support own = {.half = true, .no_cudnn = "it is left out"};
static const p4_attention_support mma = {.half = true, .no_wgmma = "mma only", .no_cudnn = "mma only"};
static const p4_attention_support other9 = {.half = true, .no_wgmma = "compute capability is not 9.0"};
static const p4_attention_support plain = {.no_wgmma = "fp32", .no_cudnn = "fp32"};

static p4_attention_shape shape_of(int64_t T, int64_t H, int64_t D)
{
    return (p4_attention_shape){.B = 2, .T = T, .H = H, .Hkv = 2, .D = D, .scale = 0.125f};
}

static void expect_choice(const p4_attention_support *support, p4_attention_shape shape, const char *forward,
                          const char *backward, const char *reason)
{
    char why[2][512];
    const char *got[2] = {p4_attention_choice(support, &shape, false, why[0], sizeof why[0]),
                          p4_attention_choice(support, &shape, true, why[1], sizeof why[1])};
    EXPECT(strcmp(got[0], forward) == 0, "T %lld, D %lld forward: %s, expected %s (%s)", (long long)shape.T,
           (long long)shape.D, got[0], forward, why[0]);
    EXPECT(strcmp(got[1], backward) == 0, "T %lld, D %lld backward: %s, expected %s (%s)", (long long)shape.T,
           (long long)shape.D, got[1], backward, why[1]);
    EXPECT(strstr(why[1], reason) != NULL, "backward: \"%s\" does not say \"%s\"", why[1], reason);
}

static void check_devices(void)
{
    const p4_attention_shape shape = shape_of(1024, 8, 64);
    expect_choice(&hopper, shape, "cuDNN", "wgmma", "cuDNN: wgmma is faster in backward");
    expect_choice(&forced, shape, "cuDNN", "cuDNN", "");
    expect_choice(&own, shape, "wgmma", "wgmma", "cuDNN: it is left out; ");
    expect_choice(&mma, shape, "mma", "mma", "cuDNN: mma only; wgmma: mma only; ");
    expect_choice(&other9, shape, "cuDNN", "cuDNN", "");
    expect_choice(&plain, shape, "fp32", "fp32", "cuDNN: fp32; wgmma: fp32; mma: activations are fp32; ");
}

static void check_shapes(void)
{
    static const char cudnn_heads[] = "cuDNN: the head dimension is not a multiple of 8 from 32 to 256";
    static const char wgmma_heads[] = "wgmma: the head dimension is not a multiple of 8 from 40 to 128";
    p4_attention_shape negative = shape_of(1024, 8, 64);
    negative.scale = -1.0f;
    expect_choice(&hopper, shape_of(1024, 8, 24), "mma", "mma", cudnn_heads);
    expect_choice(&hopper, shape_of(1024, 8, 32), "cuDNN", "cuDNN", "");
    expect_choice(&hopper, shape_of(1024, 8, 36), "mma", "mma", cudnn_heads);
    expect_choice(&hopper, shape_of(1024, 8, 40), "cuDNN", "wgmma", "");
    expect_choice(&hopper, shape_of(1024, 8, 128), "cuDNN", "wgmma", "");
    expect_choice(&hopper, shape_of(1024, 8, 136), "cuDNN", "cuDNN", "");
    expect_choice(&own, shape_of(1024, 8, 32), "mma", "mma", wgmma_heads);
    expect_choice(&own, shape_of(1024, 8, 136), "mma", "mma", wgmma_heads);
    expect_choice(&own, negative, "mma", "mma", "wgmma: the scale is not positive");
    expect_choice(&hopper, shape_of(1, 8, 64), "wgmma", "wgmma", "cuDNN: fewer than 2 tokens");
    expect_choice(&mma, shape_of(1024, 8, 20), "mma", "mma", "");
    expect_choice(&plain, shape_of(1024, 8, 3), "fp32", "fp32", "");
}

/* A soft cap, as Gemma 2 has with heads of 256: own kernels for any device alone compute it. */
static void check_cap(void)
{
    p4_attention_shape capped = shape_of(1024, 8, 128);
    capped.cap = 50.0f;
    expect_choice(&hopper, capped, "mma", "mma",
                  "cuDNN: scores have a soft cap; wgmma: scores have a soft cap; ");
    expect_choice(&forced, capped, "mma", "mma", "cuDNN: scores have a soft cap; ");
    capped.D = 256;
    expect_choice(&other9, capped, "mma", "mma", "cuDNN: scores have a soft cap; ");
    expect_choice(&plain, capped, "fp32", "fp32", "");
    capped.cap = 0.0f;
    capped.window = 512;
    expect_choice(&hopper, capped, "cuDNN", "cuDNN", "");
    expect_choice(&own, capped, "mma", "mma", "wgmma: the head dimension");
}

/* cuDNN keeps the gradients of a sequence's scores in backward: 2 H T^2 bytes. */
static void check_long(void)
{
    const int64_t H = 16, most = 4096, more = 4224; /* 512 MiB, and above */
    expect_choice(&other9, shape_of(most, H, 64), "cuDNN", "cuDNN", "");
    expect_choice(&other9, shape_of(more, H, 64), "cuDNN", "mma", "512 MiB");
    expect_choice(&forced, shape_of(more, H, 64), "cuDNN", "cuDNN", "");
    expect_choice(&hopper, shape_of(more, H, 256), "cuDNN", "mma", "512 MiB");
}

/* Reasons that do not fit the buffer are cut. */
static void check_buffer(void)
{
    const p4_attention_shape shape = shape_of(1024, 8, 64);
    char why[17];
    memset(why, '#', sizeof why);
    EXPECT(strcmp(p4_attention_choice(&plain, &shape, false, why, 16), "fp32") == 0, "fp32");
    EXPECT(why[15] == '\0' && why[16] == '#', "\"%.17s\"", why);
}

int main(void)
{
    check_devices();
    check_shapes();
    check_cap();
    check_long();
    check_buffer();
    return TEST_END();
}
#else
int main(void)
{
    printf("skipped: this build has no CUDA column\n");
    return 77;
}
#endif
