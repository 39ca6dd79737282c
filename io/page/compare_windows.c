#include "io/page/compare_windows.h"

#include <math.h>
#include <string.h>

const char *p4_page_fingerprint(const p4_page_run *run, const char *name)
{
    const cJSON *input;
    cJSON_ArrayForEach(input, p4_page_item(run->results, "provenance.inputs"))
    {
        if (strcmp(p4_page_string(input, "name"), name) == 0) {
            return p4_page_string(input, "fingerprint");
        }
    }
    return "";
}

double p4_page_window_tokens(const p4_page_run *run)
{
    return p4_page_real(run->config, "calibration_sequence_length");
}

double p4_page_predictions(const cJSON *evaluated)
{
    double count = p4_page_real(evaluated, "pre_compression.tokens");
    return count > 0 ? count : NAN;
}

static bool differ(double a, double b)
{
    return isfinite(a) && isfinite(b) && a != b;
}

bool p4_page_same_windows(p4_page_windows a, p4_page_windows b)
{
    bool known = a.fingerprint[0] != '\0' && b.fingerprint[0] != '\0';
    return (!known || strcmp(a.fingerprint, b.fingerprint) == 0) && !differ(a.tokens, b.tokens) &&
           !differ(a.predictions, b.predictions);
}
