/* Any bytes as a config.json: refused with a message, or an architecture whose parameter table can be made,
 * and the same one from the text that is written for the fp16 model. */
#include <stdlib.h>
#include <string.h>

#include "io/hf/hf_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

/* What is written for the fp16 model describes the same network. Of a model that also takes images, that is
 * the language model's object. */
static void require_same_as_written(const p4_arch *arch, const uint8_t *bytes, size_t count)
{
    p4_arch again;
    char *json = p4_alloc(count + 1, 1);
    memcpy(json, bytes, count);
    char *inner = p4_hf_config_language_model(json);
    char *written = inner != NULL ? p4_hf_config_as_fp16(inner) : NULL;
    if (written == NULL || p4_hf_config_parse(&again, written, strlen(written), "written") != P4_OK ||
        memcmp(&again, arch, sizeof again) != 0) {
        abort();
    }
    free(written);
    free(inner);
    free(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    p4_arch arch;
    p4_model model;
    p4_log_setup(P4_LOG_QUIET, false);
    p4_error_clear();
    if (p4_hf_config_parse(&arch, (const char *)bytes, count, "input") != P4_OK) {
        if (p4_last_error()[0] == '\0') {
            abort();
        }
        return 0;
    }
    if (p4_model_init(&model, &arch, p4_family_prefix(arch.family)) != P4_OK ||
        p4_model_count_elements(&model) <= 0) {
        abort();
    }
    int64_t R = p4_arch_rope_dim(&arch);
    for (int64_t i = 0; i < R / 2 && !arch.learned_positions; i++) {
        float frequency = p4_rope_inv_freq(&arch.rope, R, arch.positions, i);
        if (!(frequency >= 0 && frequency <= 1.001e6f)) { /* LONGROPE and YARN divide 1 by 1e-6 or more */
            abort();
        }
    }
    p4_model_close(&model);
    require_same_as_written(&arch, bytes, count);
    return 0;
}
