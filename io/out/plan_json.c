#include "io/out/plan_json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/json/read.h"
#include "io/json/write.h"

/* --- the plan ---------------------------------------------------------------------------------- */

/* Adds an object under a key, "" in a list; NULL: out of memory. */
static cJSON *add_object(cJSON *to, const char *key)
{
    cJSON *object = cJSON_CreateObject();
    bool added = object != NULL &&
                 (key[0] != '\0' ? cJSON_AddItemToObject(to, key, object) : cJSON_AddItemToArray(to, object));
    if (!added) {
        cJSON_Delete(object);
        return NULL;
    }
    return object;
}

static bool put_purposes(cJSON *to, const char *key, const double bytes[P4_MEMORY_PURPOSES])
{
    cJSON *object = add_object(to, key);
    bool ok = object != NULL;
    for (int i = 0; ok && i < P4_MEMORY_PURPOSES; i++) {
        ok = bytes[i] == 0 || p4_json_put_whole(object, p4_purpose_names[i], (int64_t)bytes[i]);
    }
    return ok && p4_json_put_whole(object, "sum", (int64_t)p4_memory_sum(bytes));
}

static bool put_peak(cJSON *to, const char *key, const p4_rank_plan *rank, bool device)
{
    double bytes;
    p4_plan_stage_id stage = p4_rank_plan_peak(rank, device, &bytes);
    cJSON *object = add_object(to, key);
    return object != NULL && p4_json_put_text(object, "stage", p4_plan_stage_names[stage]) &&
           p4_json_put_whole(object, "bytes", (int64_t)bytes);
}

static bool put_rank(cJSON *list, const p4_plan *plan, const p4_rank_plan *rank)
{
    cJSON *object = add_object(list, ""), *stages = NULL;
    bool ok = object != NULL && p4_json_put_whole(object, "rank", rank->rank) &&
              p4_json_put_whole(object, "ranks_alike", rank->alike) &&
              p4_json_put_whole(object, "micro_batch_size", rank->micro_batch) &&
              p4_json_put_whole(object, "checkpoint_copy_bytes", (int64_t)rank->checkpoint_copy_bytes) &&
              put_peak(object, "host_peak", rank, false) &&
              (!plan->on_gpu || put_peak(object, "device_peak", rank, true)) &&
              (stages = add_object(object, "stages")) != NULL;
    for (int s = 0; ok && s < P4_PLAN_STAGES; s++) {
        cJSON *stage = rank->runs[s] ? add_object(stages, p4_plan_stage_names[s]) : NULL;
        ok = !rank->runs[s] || (stage != NULL && put_purposes(stage, "host", rank->stages[s].host) &&
                                (!plan->on_gpu || put_purposes(stage, "device", rank->stages[s].device)));
    }
    return ok;
}

static bool put_work(cJSON *to, const p4_plan *plan)
{
    bool ok = true;
    for (int s = 0; ok && s < P4_PLAN_STAGES; s++) {
        const p4_stage_work *w = &plan->work[s];
        const p4_json_real reals[] = {{"seconds", w->seconds},
                                      {"operations", w->flops},
                                      {"bytes_read", w->read_bytes},
                                      {"bytes_written", w->written_bytes},
                                      {"bytes_sent", w->sent_bytes}};
        cJSON *stage = plan->rank_plans[0].runs[s] ? add_object(to, p4_plan_stage_names[s]) : NULL;
        ok = !plan->rank_plans[0].runs[s] ||
             (stage != NULL && p4_json_put_reals(stage, reals, sizeof reals / sizeof reals[0]));
    }
    return ok;
}

/* Numbers of p4_rates, for the writer, the reader and the plan. */
static const struct {
    const char *key;
    size_t offset;
    bool may_lack; /* in the file: then it is 0, as it also may be where it is there */
} rate_fields[] = {{"forward_flops", offsetof(p4_rates, forward_flops), false},
                   {"train_flops", offsetof(p4_rates, train_flops), false},
                   {"memory_bytes_per_s", offsetof(p4_rates, memory_bytes), false},
                   {"kernel_seconds", offsetof(p4_rates, kernel_s), true},
                   {"disk_read_bytes_per_s", offsetof(p4_rates, disk_read), false},
                   {"disk_write_bytes_per_s", offsetof(p4_rates, disk_write), false},
                   {"node_link_bytes_per_s", offsetof(p4_rates, node_link), false},
                   {"net_link_bytes_per_s", offsetof(p4_rates, net_link), false},
                   {"text_bytes_per_s", offsetof(p4_rates, text_bytes), false}};
enum { RATES = sizeof rate_fields / sizeof rate_fields[0], MAX_RATES_BYTES = 1 << 20 };

/* How they were measured; a table, and files of earlier versions, do not say it. */
static const struct {
    const char *key;
    size_t offset;
} count_fields[] = {{"ranks", offsetof(p4_rates, ranks)},
                    {"ranks_per_node", offsetof(p4_rates, ranks_per_node)},
                    {"threads", offsetof(p4_rates, threads)}};
enum { COUNTS = sizeof count_fields / sizeof count_fields[0], MOST_RANKS = 1 << 20 };

static const char *const device_names[] = {[P4_RATES_OF_CPU] = "cpu", [P4_RATES_OF_GPU] = "cuda"};

static bool put_rates(cJSON *to, const p4_rates *rates)
{
    bool ok = p4_json_put_text(to, "name", rates->name) &&
              p4_json_put_text(to, "device", device_names[rates->device]);
    for (int i = 0; ok && i < RATES; i++) {
        const p4_json_real real = {rate_fields[i].key,
                                   *(const double *)((const char *)rates + rate_fields[i].offset)};
        ok = p4_json_put_reals(to, &real, 1);
    }
    for (int i = 0; ok && i < COUNTS; i++) {
        int count = *(const int *)((const char *)rates + count_fields[i].offset);
        ok = count == 0 || p4_json_put_whole(to, count_fields[i].key, count);
    }
    return ok;
}

static bool put_head(cJSON *root, const p4_plan *plan)
{
    return p4_json_put_text(root, "model", plan->model) && p4_json_put_text(root, "device", plan->device) &&
           p4_json_put_whole(root, "parameters", (int64_t)plan->params) &&
           p4_json_put_whole(root, "ranks", plan->ranks) &&
           p4_json_put_whole(root, "ranks_per_node", plan->ranks_per_node) &&
           cJSON_AddBoolToObject(root, "ranks_per_node_assumed", plan->placement_assumed) != NULL &&
           p4_json_put_whole(root, "machines", p4_ceil_div(plan->ranks, plan->ranks_per_node)) &&
           cJSON_AddBoolToObject(root, "fits", plan->fits) != NULL &&
           p4_json_put_whole(root, "memory_bytes", (int64_t)plan->room_bytes) &&
           p4_json_put_whole(root, "node_memory_bytes", (int64_t)plan->node_bytes) &&
           p4_json_put_whole(root, "process_bytes", (int64_t)plan->process_bytes) &&
           p4_json_put_whole(root, "reserve_bytes", (int64_t)plan->reserve_bytes) &&
           p4_json_put_whole(root, "least_ranks", plan->least_ranks) &&
           p4_json_put_whole(root, "ranks_tried", plan->most_tried) &&
           p4_json_put_text(root, "advice", plan->advice) &&
           p4_json_put_whole(root, "training_steps", plan->train_steps) &&
           cJSON_AddBoolToObject(root, "training_steps_assumed", plan->steps_assumed) != NULL;
}

static bool put_disk(cJSON *to, const p4_disk_plan *disk)
{
    return to != NULL && p4_json_put_whole(to, "outputs", (int64_t)disk->outputs) &&
           p4_json_put_whole(to, "checkpoint", (int64_t)disk->checkpoint) &&
           p4_json_put_whole(to, "checkpoints_at_once", (int64_t)disk->kept) &&
           p4_json_put_whole(to, "scratch", (int64_t)disk->scratch);
}

char *p4_plan_json(const p4_plan *plan)
{
    cJSON *root = cJSON_CreateObject(), *list = NULL, *work, *rates;
    const p4_json_real total = {"seconds", plan->total_s};
    bool ok = root != NULL && put_head(root, plan) && p4_json_put_reals(root, &total, 1) &&
              (work = add_object(root, "stages")) != NULL && put_work(work, plan) &&
              put_disk(add_object(root, "disk"), &plan->disk) &&
              (rates = add_object(root, "rates")) != NULL && put_rates(rates, &plan->rates) &&
              p4_json_put_text(root, "rates_note", plan->rates_note) &&
              (list = cJSON_AddArrayToObject(root, "ranks_planned")) != NULL;
    for (int64_t i = 0; ok && i < plan->rank_plans_count; i++) {
        ok = put_rank(list, plan, &plan->rank_plans[i]);
    }
    return p4_json_print(root, ok, true);
}

/* --- rates ------------------------------------------------------------------------------------- */

p4_rc p4_rates_write(const p4_rates *rates, const char *path)
{
    cJSON *root = cJSON_CreateObject();
    char *text = p4_json_print(root, root != NULL && put_rates(root, rates), true);
    p4_rc rc = text != NULL ? p4_atomic_write_all(path, text, strlen(text)) : P4_E_SYSTEM;
    free(text);
    return rc;
}

/* Files of earlier versions do not say it: --measure-rates named the device, and tables their kind. */
static p4_rc read_device(p4_rates *rates, const cJSON *root, const char *path)
{
    static const char *const of_cpus[] = {"measured: CPU", "measured here", "built-in table, CPU"},
                             *const of_gpus[] = {"measured: ", "built-in table, NVIDIA"};
    p4_rc rc = P4_OK;
    const char *device = NULL;
    TRY(p4_json_string(&device, path, "", root, "device", false));
    if (device != NULL) {
        rates->device =
            strcmp(device, device_names[P4_RATES_OF_GPU]) == 0 ? P4_RATES_OF_GPU : P4_RATES_OF_CPU;
        CHECK(strcmp(device, device_names[rates->device]) == 0,
              "%s: device: found \"%s\", expected \"cpu\" or \"cuda\"", path, device);
        return P4_OK;
    }
    for (size_t i = 0; i < sizeof of_cpus / sizeof of_cpus[0]; i++) {
        if (strncmp(rates->name, of_cpus[i], strlen(of_cpus[i])) == 0) {
            rates->device = P4_RATES_OF_CPU;
            return P4_OK;
        }
    }
    for (size_t i = 0; i < sizeof of_gpus / sizeof of_gpus[0]; i++) {
        if (strncmp(rates->name, of_gpus[i], strlen(of_gpus[i])) == 0) {
            rates->device = P4_RATES_OF_GPU;
            return P4_OK;
        }
    }
    rc = FAIL("%s: it does not say whether its rates are of CPUs or of GPUs: add \"device\": \"cpu\" or "
              "\"cuda\", or measure them again with phase4_mpi --measure-rates",
              path);
done:
    return rc;
}

/* All of them, or none: without the first the others say nothing. */
static p4_rc read_counts(p4_rates *rates, const cJSON *root, const char *path)
{
    p4_rc rc = P4_OK;
    for (int i = 0; i < COUNTS; i++) {
        const cJSON *item = NULL;
        int64_t count = 0;
        TRY(p4_json_member(&item, path, "", root, count_fields[i].key, i > 0));
        if (item == NULL) {
            return P4_OK;
        }
        CHECK(p4_json_is_whole(item, MOST_RANKS + 1, &count) && count > 0,
              "%s: %s: expected a whole number from 1 to %d", path, count_fields[i].key, (int)MOST_RANKS);
        *(int *)((char *)rates + count_fields[i].offset) = (int)count;
    }
done:
    return rc;
}

p4_rc p4_rates_read(p4_rates *rates, const char *path)
{
    p4_rc rc = P4_OK;
    char *text = NULL;
    size_t bytes = 0;
    cJSON *root = NULL;
    const char *name = NULL;
    *rates = (p4_rates){.name = ""};
    TRY(p4_file_read(&text, &bytes, path, MAX_RATES_BYTES));
    TRY(p4_json_read(&root, text, bytes, path));
    TRY(p4_json_string(&name, path, "", root, "name", false));
    snprintf(rates->name, sizeof rates->name, "%s", name != NULL ? name : path);
    TRY(read_device(rates, root, path));
    for (int i = 0; i < RATES; i++) {
        const cJSON *item = NULL;
        bool may_lack = rate_fields[i].may_lack;
        TRY(p4_json_member(&item, path, "", root, rate_fields[i].key, !may_lack));
        if (item == NULL) {
            continue;
        }
        CHECK(cJSON_IsNumber(item) && isfinite(item->valuedouble) &&
                  (item->valuedouble > 0 || (may_lack && item->valuedouble == 0)),
              "%s: %s: expected a number %s", path, rate_fields[i].key,
              may_lack ? "that is not negative" : "above 0");
        *(double *)((char *)rates + rate_fields[i].offset) = item->valuedouble;
    }
    TRY(read_counts(rates, root, path));
done:
    cJSON_Delete(root);
    free(text);
    return rc;
}
