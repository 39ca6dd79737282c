#include "jobs/batch/plans.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/batch/models.h"
#include "jobs/plan.h"
#include "src/leaf/hash.h"

enum { SLOTS_FIRST = 256 };

typedef struct kept {
    uint64_t key; /* 0: free */
    p4_batch_plan plan;
} kept;

struct p4_batch_plans {
    const p4_batch_options *options;
    int ranks, ranks_per_node, cores;
    bool warned;   /* of rates of other ranks */
    bool with_mpi; /* the batch works */
    int64_t count, slots;
    kept *at;
    p4_config *scratch; /* a configuration is too large for the stack of some systems */
};

p4_rc p4_batch_plans_open(p4_batch_plans **made, const p4_batch_options *options, int ranks,
                          int ranks_per_node, int cores)
{
    p4_batch_plans *plans = *made = p4_alloc(1, sizeof *plans);
    if (plans == NULL) {
        return P4_E_SYSTEM;
    }
    *plans = (p4_batch_plans){.options = options,
                              .ranks = ranks,
                              .ranks_per_node = ranks_per_node,
                              .cores = cores,
                              .with_mpi = cores > 0,
                              .slots = SLOTS_FIRST};
    plans->at = p4_alloc((size_t)plans->slots, sizeof *plans->at);
    plans->scratch = p4_alloc(1, sizeof *plans->scratch);
    if (plans->at == NULL || plans->scratch == NULL) {
        p4_batch_plans_close(plans);
        *made = NULL;
        return P4_E_SYSTEM;
    }
    return P4_OK;
}

void p4_batch_plans_close(p4_batch_plans *plans)
{
    if (plans != NULL) {
        free(plans->at);
        free(plans->scratch);
    }
    free(plans);
}

/* ---- the plans that are kept ---- */

static kept *find(const p4_batch_plans *plans, uint64_t key)
{
    int64_t i = (int64_t)(key & (uint64_t)(plans->slots - 1));
    while (plans->at[i].key != 0 && plans->at[i].key != key) {
        i = (i + 1) & (plans->slots - 1);
    }
    return &plans->at[i];
}

static p4_rc keep(p4_batch_plans *plans, uint64_t key, const p4_batch_plan *plan)
{
    if (2 * (plans->count + 1) > plans->slots) {
        p4_batch_plans larger = {.slots = 2 * plans->slots};
        larger.at = p4_alloc((size_t)larger.slots, sizeof *larger.at);
        if (larger.at == NULL) {
            return P4_E_SYSTEM;
        }
        for (int64_t i = 0; i < plans->slots; i++) {
            if (plans->at[i].key != 0) {
                *find(&larger, plans->at[i].key) = plans->at[i];
            }
        }
        free(plans->at);
        plans->at = larger.at;
        plans->slots = larger.slots;
    }
    *find(plans, key) = (kept){.key = key, .plan = *plan};
    plans->count++;
    return P4_OK;
}

/* What a plan depends on: the shape of the model, the configuration but for the names of directories, and the
 * ranks that the user allows. */
static p4_rc find_key(uint64_t *key, p4_batch_plans *plans, const p4_config *config,
                      const p4_queue_entry *given)
{
    p4_rc rc = P4_OK;
    uint64_t shape;
    p4_config *c = plans->scratch;
    TRY(p4_model_shape(&shape, config->model_path));
    *c = *config;
    memset(c->model_path, 0, sizeof c->model_path);
    memset(c->output_path, 0, sizeof c->output_path);
    c->seed = 0;
    *key = p4_hash(P4_HASH_START, &shape, sizeof shape);
    *key = p4_hash(*key, c, sizeof *c);
    *key = p4_hash(*key, &given->ranks, sizeof given->ranks);
    *key = p4_hash(*key, &given->max_ranks, sizeof given->max_ranks);
    *key += *key == 0;
done:
    return rc;
}

/* ---- making one ---- */

/* *least: ranks with which it fits, 0: none up to the most that were tried. */
static p4_rc plan_on(p4_batch_plans *plans, p4_batch_plan *plan, int width, int ranks,
                     const p4_config *config, int64_t *least)
{
    p4_rc rc = P4_OK;
    p4_plan made = {.ranks = 0};
    const p4_plan_request request = {.ranks = ranks,
                                     .job_ranks = plans->ranks,
                                     .ranks_per_node = plans->ranks_per_node,
                                     .memory_bytes = plans->options->memory_bytes,
                                     .host_bytes = plans->options->host_bytes,
                                     .rates_path = plans->options->rates_path,
                                     .mpi_started = plans->with_mpi};
    TRY(p4_plan_make(&made, config, &request));
    if (made.rates_note[0] != '\0' && !plans->warned) {
        plans->warned = true;
        WARN("warning: --rates %s: %s", request.rates_path, made.rates_note);
    }
    plan->seconds[width] = made.total_s;
    plan->rank_bytes[width] = p4_plan_node_needs(&made) / p4_plan_node_ranks(&made);
    if (width == 0) {
        plan->params = made.params;
        plan->disk_bytes = made.disk.outputs + made.disk.kept * made.disk.checkpoint + made.disk.scratch;
        plan->device_bytes = 0;
        for (int64_t i = 0; made.on_gpu && i < made.rank_plans_count; i++) {
            double bytes;
            (void)p4_rank_plan_peak(&made.rank_plans[i], true, &bytes);
            plan->device_bytes = fmax(plan->device_bytes, bytes);
        }
    }
    *least = made.least_ranks;
done:
    p4_plan_free(&made);
    return rc;
}

static p4_rc make(p4_batch_plans *plans, p4_batch_plan *plan, const p4_queue_entry *given)
{
    p4_rc rc = P4_OK;
    int64_t least = 0;
    const p4_config *c = plans->scratch;
    int most = given->max_ranks > 0 && given->max_ranks < plans->ranks ? given->max_ranks : plans->ranks;
    *plan = (p4_batch_plan){.widths = 1};
    plan->least = given->ranks > 0 ? given->ranks : 1;
    TRY(plan_on(plans, plan, 0, plan->least, c, &least));
    CHECK(given->ranks > 0 || given->max_ranks == 0 || least <= given->max_ranks,
          "%s: \"max_ranks\" is %d, but the model fits on no fewer than %lld ranks", given->source,
          given->max_ranks, (long long)least);
    if (given->ranks == 0 && least != 1) { /* where nothing fits, the run says so, with its advice */
        plan->least = least == 0 || least > most ? most : (int)least;
        TRY(plan_on(plans, plan, 0, plan->least, c, &least));
    }
    while (given->ranks == 0 && plan->widths < P4_BATCH_WIDTHS && plan->least << plan->widths <= most) {
        TRY(plan_on(plans, plan, plan->widths, plan->least << plan->widths, c, &least));
        plan->widths++;
    }
done:
    plan->known = rc == P4_OK;
    return rc;
}

p4_rc p4_batch_plans_make(p4_batch_plans *plans, p4_batch_plan *plan, const p4_config *config,
                          const p4_queue_entry *given)
{
    p4_rc rc = P4_OK;
    uint64_t key;
    TRY(find_key(&key, plans, config, given));
    const kept *known = find(plans, key);
    if (known->key == key) {
        *plan = known->plan;
        return P4_OK;
    }
    *plans->scratch = *config;
    if (plans->scratch->threads_per_rank == 0) {
        plans->scratch->threads_per_rank = plans->cores;
    }
    TRY(make(plans, plan, given));
    TRY(keep(plans, key, plan));
done:
    return rc;
}
