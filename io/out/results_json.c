/* results.json: what a run measured and wrote. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "io/json/evaluation.h"
#include "io/out/evaluations_json.h"
#include "io/out/experts_json.h"
#include "io/out/outputs.h"
#include "io/out/provenance.h"
#include "io/out/report.h"
#include "io/out/sizes_json.h"

static bool put_output_paths(cJSON *object, const p4_output_paths *paths)
{
    bool ok = p4_json_put_text(object, "primary_output", paths->primary_output);
    for (int i = 0; ok && i < P4_OUTPUTS; i++) {
        ok = p4_json_put_text(object, p4_outputs[i].id, p4_output_path(paths, &p4_outputs[i]));
    }
    return ok;
}

static bool put_history(cJSON *list, const p4_fine_tuning *tuning)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < tuning->history_count; i++) {
        const p4_history_entry *entry = &tuning->history[i];
        const p4_json_real numbers[] = {{"epoch", (double)entry->epoch},
                                        {"step", (double)entry->step},
                                        {"train_loss", entry->train_loss},
                                        {"eval_loss", entry->eval_loss},
                                        {"eval_perplexity", entry->eval_perplexity}};
        cJSON *object = cJSON_CreateObject();
        ok = p4_json_put_reals(object, numbers, sizeof numbers / sizeof numbers[0]) &&
             cJSON_AddItemToArray(list, object);
        if (!ok) {
            cJSON_Delete(object);
        }
    }
    return ok;
}

static bool put_tuning(cJSON *object, const p4_fine_tuning *tuning)
{
    const p4_json_real numbers[] = {{"epochs_completed", tuning->epochs_completed},
                                    {"steps", (double)tuning->steps},
                                    {"tokens", (double)tuning->tokens},
                                    {"final_loss", tuning->final_loss},
                                    {"final_perplexity", tuning->final_perplexity},
                                    {"best_perplexity", tuning->best_perplexity},
                                    {"block_distance", tuning->block_distance}};
    return p4_json_put_reals(object, numbers, sizeof numbers / sizeof numbers[0]) &&
           put_history(cJSON_AddArrayToObject(object, "training_history"), tuning);
}

static bool put_fine_tuning(cJSON *root, const p4_fine_tuning *tuning)
{
    return tuning->ran ? put_tuning(cJSON_AddObjectToObject(root, "fine_tuning"), tuning)
                       : cJSON_AddNullToObject(root, "fine_tuning") != NULL;
}

p4_rc p4_training_summary(const p4_fine_tuning *result, char **json)
{
    p4_error_clear();
    cJSON *root = cJSON_CreateObject();
    *json = p4_json_print(root, put_tuning(root, result), true);
    return *json != NULL ? P4_OK : P4_E_SYSTEM;
}

static bool put_losses(cJSON *list, const p4_reconstruction *reconstruction)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < reconstruction->losses_count; i++) {
        const p4_block_loss *loss = &reconstruction->losses[i];
        const p4_json_real numbers[] = {{"first_block", (double)loss->first_block},
                                        {"blocks", (double)loss->blocks},
                                        {"loss_before", loss->before},
                                        {"loss_after", loss->after}};
        cJSON *object = cJSON_CreateObject();
        ok = p4_json_put_reals(object, numbers, sizeof numbers / sizeof numbers[0]) &&
             cJSON_AddItemToArray(list, object);
        if (!ok) {
            cJSON_Delete(object);
        }
    }
    return ok;
}

static bool put_reconstruction(cJSON *root, const p4_reconstruction *reconstruction)
{
    int64_t blocks = 0;
    for (int64_t i = 0; i < reconstruction->losses_count; i++) {
        blocks += reconstruction->losses[i].blocks;
    }
    const p4_json_real numbers[] = {{"blocks", (double)blocks},
                                    {"tokens", (double)reconstruction->tokens},
                                    {"steps", (double)reconstruction->steps},
                                    {"seconds", reconstruction->seconds}};
    if (!reconstruction->ran) {
        return cJSON_AddNullToObject(root, "reconstruction") != NULL;
    }
    cJSON *object = cJSON_AddObjectToObject(root, "reconstruction");
    return p4_json_put_reals(object, numbers, sizeof numbers / sizeof numbers[0]) &&
           put_losses(cJSON_AddArrayToObject(object, "losses"), reconstruction);
}

/* measured false: null, for neither answer would be true. */
static bool put_bool(cJSON *object, const char *key, bool value, bool measured)
{
    return object != NULL && (measured ? cJSON_AddBoolToObject(object, key, value)
                                       : cJSON_AddNullToObject(object, key)) != NULL;
}

static bool put_gradient_flow(cJSON *object, const p4_gradient_flow *flow)
{
    const p4_json_real counts[] = {{"tensors_checked", (double)flow->tensors_checked},
                                   {"tensors_unused", (double)flow->tensors_unused}};
    return put_bool(object, "passed", flow->passed, flow->ran) &&
           p4_json_put_text(object, "error", flow->error) &&
           p4_json_put_reals(object, counts, sizeof counts / sizeof counts[0]);
}

bool p4_json_put_quality(cJSON *object, const p4_quality *quality, p4_verdict verdict)
{
    const p4_json_real numbers[] = {{"degradation_ratio", quality->degradation_ratio},
                                    {"degradation_low", quality->degradation_low},
                                    {"degradation_high", quality->degradation_high},
                                    {"max_accuracy_drop", quality->max_accuracy_drop}};
    return put_bool(object, "passed", verdict == P4_VERDICT_PASSED, verdict != P4_VERDICT_NONE) &&
           p4_json_put_reals(object, numbers, sizeof numbers / sizeof numbers[0]);
}

/* Why an evaluation has no bits per byte, or no perplexity per word; "": it has both, or there is none. */
static const char *why_no_text(const p4_evaluation *e)
{
    if (e->tokens == 0 || (isfinite(e->bits_per_byte) && isfinite(e->word_perplexity))) {
        return "";
    }
    if (isnan(e->bits_per_byte)) {
        return e->documents > 0 ? "some evaluation windows are token ids without their text"
                                : "an earlier version of the program evaluated the original model";
    }
    return isfinite(e->bits_per_byte)
               ? "the perplexity per word overflows: there are too few words separated "
                 "by white space"
               : "the documents of the evaluation windows are empty texts";
}

/* The sets of a run; nothing without sets. */
static bool put_sets(cJSON *root, const p4_set_results *sets, int64_t count)
{
    cJSON *list = count > 0 ? cJSON_AddArrayToObject(root, "eval_sets") : NULL;
    bool ok = count == 0 || list != NULL;
    for (int64_t i = 0; ok && i < count; i++) {
        const p4_set_results *set = &sets[i];
        cJSON *object = cJSON_CreateObject();
        ok = object != NULL && cJSON_AddItemToArray(list, object);
        if (!ok) {
            cJSON_Delete(object);
            break;
        }
        ok = p4_json_put_text(object, "name", set->name) &&
             p4_json_put_evaluation(cJSON_AddObjectToObject(object, "pre_compression"), &set->pre) &&
             p4_json_put_evaluation(cJSON_AddObjectToObject(object, "post_compression"), &set->post) &&
             p4_json_put_evaluation(cJSON_AddObjectToObject(object, "final"), &set->final) &&
             p4_json_put_text(object, "why_no_bits_per_byte", why_no_text(&set->pre)) &&
             p4_json_put_quality(cJSON_AddObjectToObject(object, "quality"), &set->quality,
                                 p4_quality_verdict(&set->quality));
    }
    return ok;
}

bool p4_json_put_evaluations(cJSON *root, const p4_results *r)
{
    return p4_json_put_evaluation(cJSON_AddObjectToObject(root, "pre_compression"), &r->pre) &&
           p4_json_put_evaluation(cJSON_AddObjectToObject(root, "post_compression"), &r->post) &&
           p4_json_put_evaluation(cJSON_AddObjectToObject(root, "final"), &r->final) &&
           put_sets(root, r->sets, r->set_count);
}

static bool put_timing(cJSON *object, const p4_results *results)
{
    bool ok = true;
    for (int64_t i = 0; ok && i < results->stage_count; i++) {
        const p4_json_real stage = {results->stages[i].stage, results->stages[i].seconds};
        ok = p4_json_put_reals(object, &stage, 1);
    }
    const p4_json_real total = {"total", results->total_s};
    return ok && p4_json_put_reals(object, &total, 1);
}

static bool add_string(cJSON *list, const char *text)
{
    cJSON *item = cJSON_CreateString(text);
    const bool ok = item != NULL && cJSON_AddItemToArray(list, item);
    if (!ok) {
        cJSON_Delete(item);
    }
    return ok;
}

static bool put_warnings(cJSON *list, const p4_results *r)
{
    const int64_t kept = p4_min_i64(r->warning_count, P4_WARNINGS_MAX);
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < kept; i++) {
        ok = r->warnings[i] == NULL || add_string(list, r->warnings[i]);
    }
    if (ok && r->warning_count > kept) {
        char more[64];
        snprintf(more, sizeof more, "and %lld more, which the log has", (long long)(r->warning_count - kept));
        ok = add_string(list, more);
    }
    return ok;
}

p4_rc p4_results_print(const p4_results *results, char **json)
{
    cJSON *root = cJSON_CreateObject();
    bool ok =
        root != NULL && cJSON_AddBoolToObject(root, "success", results->success) != NULL &&
        p4_json_put_text(root, "phase", "phase4_bitnet") && p4_json_put_text(root, "error", results->error) &&
        p4_json_put_text(root, "model_type", results->model_type) &&
        p4_json_put_text(root, "method", results->method) &&
        p4_json_put_text(root, "scale_granularity", results->scale_granularity) &&
        p4_json_put_text(root, "packing", results->packing) &&
        p4_json_put_provenance(root, "provenance", &results->provenance) &&
        put_output_paths(cJSON_AddObjectToObject(root, "output_paths"), &results->output_paths) &&
        p4_json_put_evaluations(root, results) &&
        p4_json_put_text(root, "why_no_bits_per_byte", why_no_text(&results->pre)) &&
        put_reconstruction(root, &results->reconstruction) && put_fine_tuning(root, &results->fine_tuning) &&
        p4_json_put_experts(root, "experts", &results->experts) &&
        put_gradient_flow(cJSON_AddObjectToObject(root, "gradient_flow_test"), &results->gradient_flow) &&
        p4_json_put_quality(cJSON_AddObjectToObject(root, "quality"), &results->quality,
                            p4_results_verdict(results)) &&
        cJSON_AddBoolToObject(root, "original_guesses", results->original_guesses) != NULL &&
        p4_json_put_whole(root, "warning_count", results->warning_count) &&
        put_warnings(cJSON_AddArrayToObject(root, "warnings"), results) &&
        p4_json_put_sizes(cJSON_AddObjectToObject(root, "metrics"), &results->metrics) &&
        put_timing(cJSON_AddObjectToObject(root, "timing"), results);
    *json = p4_json_print(root, ok, true);
    return *json != NULL ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_results_store(const p4_results *results, const char *path)
{
    char *json = NULL;
    p4_rc rc = p4_results_print(results, &json);
    if (rc == P4_OK) {
        rc = p4_atomic_write_all(path, json, strlen(json));
    }
    free(json);
    return rc;
}

p4_rc p4_results_to_json(const p4_results *results, char **json)
{
    p4_error_clear();
    return p4_results_print(results, json);
}

p4_rc p4_results_write(const p4_results *results, const char *path)
{
    p4_error_clear();
    return p4_results_store(results, path);
}
