/* Any bytes as a config.json: refused with a message, or an architecture whose parameter table can be made.
 */
#include <stdlib.h>

#include "io/hf/hf_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

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
    for (int64_t i = 0; i < arch.D / 2 && !arch.learned_positions; i++) {
        float frequency = p4_rope_inv_freq(&arch, i);
        if (!(frequency >= 0 && frequency <= 1)) {
            abort();
        }
    }
    p4_model_close(&model);
    return 0;
}
