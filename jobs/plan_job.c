/* plan_job.c - the whole plan of a run that is not there yet: any number of ranks, a device that need not be
 * at hand, a model of which config.json alone may be there. */
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/out/plan_json.h"
#include "jobs/plan.h"
#include "jobs/text_files.h"
#include "kernels/outline.h"
#include "src/leaf/limits.h"

enum { LEAST_TRIED = 1024, RANKS_MOST = 1 << 16 };
/* Of a GPU, for its context, cuBLAS and NCCL, which open before the room is measured in a run. */
static const double GPU_RESERVE = 2.0 * (1 << 30);
/* What MPI adds to a process that starts it, resident: 8.3 MiB in one rank, 10 MiB in each of two (Open
 * MPI 4.1). */
static const double MPI_BYTES = 9.0 * (1 << 20);

/* What stands for a rank's device and its group. */
typedef struct place {
    p4_compute compute;
    int ranks_per_node;
    int64_t job_ranks;
    double cores; /* of a rank; a part of one where ranks share it */
    p4_group group;
    p4_device *outline;        /* heap: of a GPU that is not at hand */
    const p4_named_gpu *named; /* whose memory the outline has; NULL: it was given */
} place;

static void close_place(place *p)
{
    if (p->compute.device != NULL && p->outline == NULL) {
        p->compute.ops->close(p->compute.device);
    }
    free(p->outline);
}

static int usable_gpus(void)
{
    const p4_ops *cuda = p4_ops_find("cuda");
    p4_device_info seen[P4_GPUS_MAX];
    int count = 0;
    if (cuda != NULL && cuda->list(seen, P4_GPUS_MAX, &count) != P4_OK) {
        p4_error_clear();
        count = 0;
    }
    return count;
}

static p4_rc open_gpu(place *p, const p4_config *c, double memory_bytes)
{
    p4_rc rc = P4_OK;
    if (memory_bytes > 0) {
        p->outline = p4_outline_open((int64_t)memory_bytes, c->mixed_precision);
        p->compute.ops = &p4_outline_ops;
        p->compute.device = p->outline;
        if (p->outline == NULL) {
            return P4_E_SYSTEM;
        }
        return c->exact_sums ? p4_compute_check_exact(&p->compute) : P4_OK;
    }
    CHECK(usable_gpus() > 0,
          "no GPU is at hand to read its memory from; --device-memory says how much one has, as in 80G, or "
          "--rates H100 or H200 which one it is");
    p->compute.ops = p4_ops_find("cuda");
    rc = p->compute.ops->open(&p->compute.device, 0, p->compute.threads, c->mixed_precision);
done:
    return rc;
}

/* Is the plan for a machine that the options describe? */
static bool is_elsewhere(const p4_plan_request *request)
{
    return request->memory_bytes > 0 || request->host_bytes > 0;
}

/* The ranks that share a node divide the cores of this machine. Another machine has a core for each thread.
 */
static void divide_cores(place *p, const p4_config *c, const p4_plan_request *request)
{
    p->cores = p4_cores_here() / (double)p4_min_i64(p->job_ranks, p->ranks_per_node);
    p->compute.threads = c->threads_per_rank > 0 ? c->threads_per_rank : p->cores > 1 ? (int)p->cores : 1;
    if (is_elsewhere(request)) {
        p->cores = p->compute.threads;
    }
}

/* A GPU where one is asked for or its memory is given, or is at hand. */
static p4_rc open_place(place *p, const p4_config *c, const p4_plan_request *request)
{
    bool gpu = c->device == P4_DEVICE_CUDA ||
               (c->device == P4_DEVICE_AUTO && (request->memory_bytes > 0 || usable_gpus() > 0));
    p->group = (p4_group){.ranks = request->ranks > 0 ? request->ranks : 1};
    p->compute.group = &p->group;
    p->job_ranks = p4_max_i64(p->group.ranks, request->job_ranks);
    p->ranks_per_node = request->ranks_per_node > 0 ? request->ranks_per_node
                        : gpu                       ? 8
                                                    : (int)p->job_ranks; /* as mpirun -n N starts them */
    divide_cores(p, c, request);
    if (gpu) {
        return open_gpu(p, c, request->memory_bytes);
    }
    p->compute.ops = p4_ops_find("cpu");
    return p->compute.ops->open(&p->compute.device, 0, p->compute.threads, false);
}

/* What this machine or its control group has; 0: the system does not say. */
static double memory_here(void)
{
    int64_t total, available;
    p4_limits limits = p4_limits_read("");
    p4_memory_read("", &total, &available);
    double node = (double)total, limit = (double)limits.memory_bytes;
    return limit > 0 && (node == 0 || limit < node) ? limit : node;
}

/* Memory of a rank and of a node: as given, else the GPU's and this machine's. A GPU that is described may be
 * in any machine. */
static void find_room(p4_plan *plan, const place *p, const p4_plan_request *request)
{
    plan->process_bytes = p4_memory_resident() + (request->mpi_started ? 0 : MPI_BYTES);
    double node = request->host_bytes > 0 ? request->host_bytes : memory_here();
    if (plan->on_gpu) {
        plan->room_bytes = (double)p->compute.ops->room_bytes(p->compute.device);
        plan->reserve_bytes = p->outline != NULL ? GPU_RESERVE : 0;
        plan->node_bytes = p->outline != NULL && request->host_bytes == 0 ? 0 : node;
        return;
    }
    plan->room_of_node = request->memory_bytes == 0;
    plan->room_bytes = plan->room_of_node ? node / p4_plan_node_ranks(plan) : request->memory_bytes;
    plan->node_bytes = request->host_bytes > 0 || request->memory_bytes == 0 ? node : 0;
}

/* Of a file, or of the table. */
static p4_rc read_rates(p4_plan *plan, const place *p, const char *which)
{
    p4_rc rc = P4_OK;
    bool named = p4_plan_rates_find(&plan->rates, which, p->compute.threads, p->cores);
    CHECK(named || p4_file_exists(which),
          "--rates: found \"%.200s\", expected a file of phase4_mpi --measure-rates, or " P4_PLAN_RATES_NAMES
          " of the built-in table",
          which);
    CHECK(!named || !p4_file_exists(which),
          "--rates: \"%s\" is a file here, and also a name of the built-in table; write ./%s for the file, "
          "or rename it to use the table",
          which, which);
    TRY(named ? P4_OK : p4_rates_read(&plan->rates, which));
    CHECK((plan->rates.device == P4_RATES_OF_GPU) == plan->on_gpu,
          "%s: its rates are of %s (%s), and the plan is for %s: %s, or leave --rates out", which,
          plan->on_gpu ? "CPUs" : "GPUs", plan->rates.name, plan->on_gpu ? "GPUs" : "CPUs",
          plan->on_gpu ? (named ? "take those of a GPU" : "measure rates there")
          : named      ? "leave device=cpu out"
                       : "device=cuda and --device-memory describe a GPU");
    p4_plan_rates_compare(plan, (int)p4_min_i64(p->job_ranks, p->ranks_per_node), p->compute.threads);
done:
    return rc;
}

static p4_rc find_rates(p4_plan *plan, const place *p, const p4_plan_input *in,
                        const p4_plan_request *request)
{
    if (request->rates_path != NULL) {
        return read_rates(plan, p, request->rates_path);
    }
    if (request->measures && !plan->on_gpu && !is_elsewhere(request)) {
        return p4_plan_rates_here(&plan->rates, &in->original->hf.model.arch,
                                  in->config->calibration_sequence_length, p->compute.threads, p->cores);
    }
    const char *gpu = p->outline == NULL ? p->compute.ops->describe(p->compute.device) : NULL;
    p4_plan_rates_table(&plan->rates, plan->on_gpu, gpu, plan->room_bytes, p->compute.threads, p->cores);
    return P4_OK;
}

static p4_rc open_model(p4_original *original, p4_config *c, int ranks)
{
    p4_rc rc = P4_OK;
    TRY(p4_hf_model_outline(&original->hf, c->model_path, c->init == P4_INIT_RANDOM));
    if (original->hf.shard_count == 0 && c->init != P4_INIT_RANDOM) {
        INFO("%s: no weights are there: they are taken as bf16", original->hf.path);
    }
    TRY(p4_settings_fit_window(c, original->hf.path, original->hf.model.arch.positions));
    TRY(p4_settings_mark_original(original, c, ranks));
done:
    return rc;
}

static void describe(p4_plan *plan, const p4_original *original, const place *p)
{
    char memory[32];
    const p4_named_gpu *named = p->named;
    snprintf(plan->model, sizeof plan->model, "%s", original->hf.path);
    plan->params = (double)p4_model_count_elements(&original->hf.model);
    p4_format_bytes(memory, plan->room_bytes);
    if (named != NULL) {
        snprintf(plan->device, sizeof plan->device, "a GPU of %s, as an %s (%s) has%s", memory, named->name,
                 named->taken, named->others);
    } else if (p->outline != NULL) {
        snprintf(plan->device, sizeof plan->device, "a GPU of %s", memory);
    } else {
        snprintf(plan->device, sizeof plan->device, "%s", p->compute.ops->describe(p->compute.device));
    }
}

/* Everything behind an open model. given: with the keys that are left open. Local. */
static p4_rc fill(p4_plan *plan, p4_original *original, const place *p, p4_plan_input *in,
                  const p4_config *given)
{
    p4_rc rc = P4_OK;
    int64_t copied = 0;
    bool copies =
        (in->config->save_dequantized_fp16 || in->config->exports.count > 0) && original->hf.shard_count > 0;
    in->windows = p4_plan_windows_found(in->config, original);
    in->room_bytes = (int64_t)(plan->room_bytes - plan->reserve_bytes);
    plan->train_steps = p4_plan_steps(in->config, &in->windows);
    plan->steps_assumed = in->config->enable_fine_tuning && p4_trains_on_files(in->config) &&
                          !in->windows.train_known && in->config->fine_tune_max_steps == 0;
    TRY(p4_plan_ranks(plan, in));
    plan->fits = p4_plan_fits(plan);
    p4_plan_trial t = {.plan = *plan, .in = in};
    t.plan.rank_plans = NULL;
    if (!plan->fits) {
        rc = p4_plan_advise(plan->advice, in->config, plan->ranks, p4_plan_try, &t);
        p4_plan_free(&t.plan);
        TRY(rc);
    }
    const p4_plan_input open = {.config = given,
                                .original = original,
                                .compute = in->compute,
                                .windows = in->windows,
                                .room_bytes = in->room_bytes};
    TRY(p4_plan_least_ranks(plan, original, &open, p4_max_i64(LEAST_TRIED, plan->ranks)));
    if (copies && p4_hf_check_copied(&original->hf, &copied) != P4_OK) {
        p4_error_clear(); /* --check names it */
    }
    plan->disk = p4_plan_disk(in, (double)copied, plan->rank_plans[0].teacher_file_bytes);
    p4_plan_time(plan, in);
    describe(plan, original, p);
done:
    return rc;
}

/* Is a GPU at hand whose name has this in it? */
static bool is_at_hand(const p4_config *c, const char *name)
{
    p4_device *device = NULL;
    const p4_ops *cuda = p4_ops_find("cuda");
    bool found = false;
    if (usable_gpus() > 0 && cuda->open(&device, 0, 1, c->mixed_precision) == P4_OK) {
        found = strstr(cuda->describe(device), name) != NULL;
        cuda->close(device);
    }
    p4_error_clear();
    return found;
}

/* Rates of a GPU that is named and not at hand describe it, its memory too. */
static void name_gpu(place *p, p4_plan_request *request, const p4_config *c)
{
    const p4_named_gpu *named = request->rates_path != NULL ? p4_plan_rates_gpu(request->rates_path) : NULL;
    if (named != NULL && request->memory_bytes == 0 && c->device != P4_DEVICE_CPU &&
        !is_at_hand(c, named->name)) {
        p->named = named;
        request->memory_bytes = named->room_bytes;
    }
}

p4_rc p4_plan_make(p4_plan *plan, const p4_config *config, const p4_plan_request *given_request)
{
    p4_rc rc = P4_OK;
    p4_plan_request own = *given_request;
    const p4_plan_request *request = &own;
    place p = {.outline = NULL};
    p4_original original = {.shard = {0}};
    p4_config *c = p4_alloc(1, sizeof *c), *given = p4_alloc(1, sizeof *given);
    *plan = (p4_plan){.ranks = request->ranks > 0 ? request->ranks : 1};
    TRY(c != NULL && given != NULL ? P4_OK : P4_E_SYSTEM);
    CHECK(plan->ranks <= RANKS_MOST, "--ranks: found %d, expected at most %d", plan->ranks, (int)RANKS_MOST);
    *c = *config;
    p4_settings_resolve(c);
    name_gpu(&p, &own, c);
    TRY(open_place(&p, c, request));
    plan->on_gpu = !p.compute.ops->host_memory;
    plan->ranks_per_node = p.ranks_per_node;
    plan->placement_assumed = request->ranks_per_node == 0;
    TRY(open_model(&original, c, plan->ranks));
    *given = *c; /* windows no longer than the model's */
    p4_plan_input in = {.config = c, .original = &original, .compute = &p.compute};
    find_room(plan, &p, request);
    TRY(find_rates(plan, &p, &in, request));
    in.windows = p4_plan_windows_found(c, &original);
    in.room_bytes = (int64_t)(plan->room_bytes - plan->reserve_bytes);
    p4_plan_trial t = {.plan = *plan, .in = &in};
    rc = p4_plan_choose(c, plan->ranks, p4_plan_try, &t, &plan->fits);
    p4_plan_free(&t.plan);
    TRY(rc);
    TRY(fill(plan, &original, &p, &in, given));
done:
    p4_original_close(&original);
    close_place(&p);
    free(c);
    free(given);
    return rc;
}
