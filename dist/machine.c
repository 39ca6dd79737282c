#define _GNU_SOURCE /* sched_getaffinity, cpu_set_t */
#include "dist/machine.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dist/ending.h"
#include "dist/launcher.h"
#include "dist/mpi_state.h"
#include "src/leaf/limits.h"

/* Ranks bound to different cores keep what they have; ranks that may all use the same cores divide them, and
 * a container's quota of processor time: more threads than it feeds are stopped in turn while others wait for
 * them. */
static void count_cores(p4_machine *machine)
{
    cpu_set_t mine;
    if (sched_getaffinity(0, sizeof mine, &mine) != 0) {
        CPU_ZERO(&mine);
    }
    cpu_set_t together = mine;
    MPI_Allreduce(&mine, &together, (int)sizeof mine, MPI_BYTE, MPI_BOR, machine->state->node);
    int own = CPU_COUNT(&mine), node = CPU_COUNT(&together);
    int share = node / machine->node_ranks;
    int cores = own < node ? own : share;
    if (own < node && own > share && share > 0) {
        cores = share;
    }
    if (machine->cpu_quota > 0 && machine->cpu_quota < (double)cores * machine->node_ranks) {
        cores = (int)(machine->cpu_quota / machine->node_ranks);
    }
    machine->cores = cores > 0 ? cores : 1;
    double limit = machine->cpu_quota > 0 && machine->cpu_quota < node ? machine->cpu_quota : node;
    machine->core_share = limit > 0 ? limit / machine->node_ranks : 1;
    if (machine->core_share > own && own > 0) {
        machine->core_share = own;
    }
}

/* The first words of a text that may have several lines: "Open MPI v4.1.4, package: ...". */
static void name_mpi(char *name, size_t bytes)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    MPI_Get_library_version(text, &length);
    text[length < (int)sizeof text ? length : (int)sizeof text - 1] = '\0';
    snprintf(name, bytes, "%.*s", (int)strcspn(text, ",\n"), text);
}

static p4_rc start_mpi(p4_machine *machine)
{
    p4_rc rc = P4_OK;
    int provided = 0, failed;
    p4_launch_environment environment;
#ifdef OPEN_MPI /* other MPIs may have process managers of their own */
    TRY(p4_launch_check());
#endif
    TRY(p4_launch_begin(&environment));
    failed = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS;
    p4_launch_end(&environment);
    if (failed) {
        return FAULT("MPI could not be started");
    }
    machine->owns_mpi = true;
    MPI_Comm_size(MPI_COMM_WORLD, &machine->ranks);
    rc = p4_launch_check_ranks(machine->ranks);
done:
    return rc;
}

/* All ranks go on, or none. Collective. */
static p4_rc agree_on(MPI_Comm comm, p4_rc rc)
{
    int failed = rc != P4_OK;
    MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, comm);
    return failed && rc == P4_OK ? FAULT("another rank could not begin") : rc;
}

p4_rc p4_machine_agree(p4_machine *machine, p4_rc rc)
{
    return agree_on(machine->state->world, rc);
}

/* The threads by which a rank knows that the others live. Collective. */
static p4_rc open_pulse(p4_machine *machine)
{
    p4_rc rc = P4_OK;
    struct p4_machine_state *state = machine->state;
    p4_pulse_address mine, *all = p4_alloc((size_t)machine->ranks, sizeof *all);
    rc = p4_pulse_open(&state->pulse, &mine, machine->host, machine->rank, machine->ranks);
    TRY(p4_machine_agree(machine, all == NULL ? P4_E_SYSTEM : rc));
    MPI_Allgather(&mine, (int)sizeof mine, MPI_BYTE, all, (int)sizeof mine, MPI_BYTE, state->world);
    p4_pulse_connect(state->pulse, all);
    MPI_Barrier(state->world);
    int missing = p4_pulse_try(state->pulse);
    MPI_Allreduce(MPI_IN_PLACE, &missing, 1, MPI_INT, MPI_MAX, state->world);
    if (missing >= 0 && machine->rank == 0) {
        WARN("warning: rank %d on %s does not answer UDP packets of other ranks (is there a firewall between "
             "the nodes?): if it is stopped outside of a training step, the others wait without end",
             missing, all[missing].host);
    }
done:
    free(all);
    return rc;
}

/* Communicators, and this rank's place in them. Collective. */
static p4_rc open_state(p4_machine *machine)
{
    p4_rc rc = P4_OK;
    struct p4_machine_state *state = machine->state = p4_alloc(1, sizeof *state);
    TRY(agree_on(MPI_COMM_WORLD, state != NULL ? P4_OK : P4_E_SYSTEM));
    MPI_Comm_dup(MPI_COMM_WORLD, &state->world);
    MPI_Comm_rank(state->world, &machine->rank);
    MPI_Comm_size(state->world, &machine->ranks);
    MPI_Comm_split_type(state->world, MPI_COMM_TYPE_SHARED, machine->rank, MPI_INFO_NULL, &state->node);
    MPI_Comm_rank(state->node, &machine->node_rank);
    MPI_Comm_size(state->node, &machine->node_ranks);
    if (gethostname(machine->host, sizeof machine->host - 1) != 0) {
        snprintf(machine->host, sizeof machine->host, "unknown");
    }
    name_mpi(machine->mpi, sizeof machine->mpi);
    TRY(machine->ranks > 1 ? open_pulse(machine) : P4_OK);
    return P4_OK;
done:
    if (state != NULL && rc != P4_OK && machine->node_ranks == 0) { /* it has no communicators */
        free(state);
        machine->state = NULL;
    }
    return rc;
}

p4_rc p4_machine_open(p4_machine *machine)
{
    p4_rc rc = P4_OK;
    int started = 0;
    *machine = (p4_machine){.gpu = -1};
    MPI_Initialized(&started);
    TRY(started ? P4_OK : start_mpi(machine));
    TRY(open_state(machine));
    machine->cpu_quota = p4_limits_read("").cpus;
    count_cores(machine);
done:
    return rc;
}

void p4_machine_close(p4_machine *machine)
{
    p4_ending ending = {.watched = false};
    p4_pulse *pulse = NULL;
    if (machine->state != NULL) {
        pulse = machine->state->pulse;
        p4_ending_watch(&ending, pulse, machine->host, machine->rank, machine->ranks, machine->timeout_s);
        MPI_Comm_free(&machine->state->node);
        MPI_Comm_free(&machine->state->world);
        free(machine->state);
        machine->state = NULL;
    }
    if (machine->owns_mpi) {
        MPI_Finalize();
        machine->owns_mpi = false;
    }
    p4_ending_over(&ending);
    p4_pulse_close(pulse);
}

/* --- GPUs of a node --------------------------------------------------------------------------- */

typedef struct seen_gpus {
    int32_t count;
    p4_gpu gpu[P4_GPUS_MAX];
} seen_gpus;

/* The GPUs of this node, as its ranks see them. A GPU is known by its id, not by its ordinal. */
typedef struct node_gpus {
    int ranks, count;  /* of this node; different GPUs */
    seen_gpus *seen;   /* [ranks] */
    uint8_t (*id)[16]; /* [count] */
    int *which;        /* [ranks * P4_GPUS_MAX]: the GPU behind each rank's k-th */
    int *owner;        /* [count]: node rank, -1 while it is free */
    bool *asked;       /* [count]: give_gpu has been here */
} node_gpus;

static void close_node(node_gpus *node)
{
    free(node->seen);
    free(node->id);
    free(node->which);
    free(node->owner);
    free(node->asked);
}

static p4_rc open_node(node_gpus *node, int ranks)
{
    size_t most = (size_t)ranks * P4_GPUS_MAX;
    node->ranks = ranks;
    node->seen = p4_alloc((size_t)ranks, sizeof *node->seen);
    node->id = p4_alloc(most, sizeof *node->id);
    node->which = p4_alloc(most, sizeof *node->which);
    node->owner = p4_alloc(most, sizeof *node->owner);
    node->asked = p4_alloc(most, sizeof *node->asked);
    bool all = node->seen != NULL && node->id != NULL && node->which != NULL && node->owner != NULL &&
               node->asked != NULL;
    return all ? P4_OK : P4_E_SYSTEM;
}

static void number_gpus(node_gpus *node)
{
    for (int r = 0; r < node->ranks; r++) {
        for (int k = 0; k < node->seen[r].count; k++) {
            const uint8_t *id = node->seen[r].gpu[k].id;
            int at = 0;
            while (at < node->count && memcmp(node->id[at], id, sizeof node->id[at]) != 0) {
                at++;
            }
            if (at == node->count) {
                memcpy(node->id[at], id, sizeof node->id[at]);
                node->owner[at] = -1;
                node->count++;
            }
            node->which[r * P4_GPUS_MAX + k] = at;
        }
    }
}

/* Gives `rank` a GPU: the first free one that it sees, or one whose owner can take another (bipartite
 * matching). */
static bool give_gpu(node_gpus *node, int rank)
{
    const int *mine = node->which + rank * P4_GPUS_MAX;
    int count = node->seen[rank].count;
    for (int k = 0; k < count; k++) {
        if (node->owner[mine[k]] < 0) {
            node->owner[mine[k]] = rank;
            return true;
        }
    }
    for (int k = 0; k < count; k++) {
        if (!node->asked[mine[k]]) {
            node->asked[mine[k]] = true;
            if (give_gpu(node, node->owner[mine[k]])) {
                node->owner[mine[k]] = rank;
                return true;
            }
        }
    }
    return false;
}

/* Every rank of the node computes the same matching. */
static void match_gpus(node_gpus *node, p4_machine *machine)
{
    number_gpus(node);
    for (int r = 0; r < node->ranks; r++) {
        memset(node->asked, 0, (size_t)node->count * sizeof *node->asked);
        give_gpu(node, r);
    }
    for (int k = 0; k < node->seen[machine->node_rank].count; k++) {
        if (node->owner[node->which[machine->node_rank * P4_GPUS_MAX + k]] == machine->node_rank) {
            machine->gpu = node->seen[machine->node_rank].gpu[k].ordinal;
        }
    }
}

p4_rc p4_machine_assign_gpus(p4_machine *machine, const p4_gpu *gpus, int count, const char *why)
{
    node_gpus node = {0};
    seen_gpus mine = {.count = count};
    memcpy(mine.gpu, gpus, (size_t)count * sizeof *gpus);
    int failed = open_node(&node, machine->node_ranks) != P4_OK;
    MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, machine->state->node);
    if (!failed) {
        MPI_Allgather(&mine, (int)sizeof mine, MPI_BYTE, node.seen, (int)sizeof mine, MPI_BYTE,
                      machine->state->node);
        match_gpus(&node, machine);
        machine->knows_gpus = true;
        if (count == 0) {
            snprintf(machine->no_gpu, sizeof machine->no_gpu, "%s", why);
        } else if (machine->gpu < 0) {
            snprintf(machine->no_gpu, sizeof machine->no_gpu,
                     "a node has %d rank%s and %d GPU%s for %s: a GPU serves one rank", node.ranks,
                     p4_plural(node.ranks), node.count, p4_plural(node.count),
                     node.ranks == 1 ? "it" : "them");
        }
    }
    close_node(&node);
    return failed ? FAULT("out of memory: the GPUs of a node could not be listed") : P4_OK;
}
