/* What computes: a GPU of its own for every rank, or the CPU for all of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/job.h"

enum { GPUS_MAX = 32 }; /* that one rank may see */

typedef struct seen_gpus {
    int32_t count;
    p4_device_info gpu[GPUS_MAX];
} seen_gpus;

/* The GPUs of this node, as its ranks see them: each may see all, or only its own (Slurm's binding,
 * CUDA_VISIBLE_DEVICES). A GPU is known by its id, not by its ordinal. */
typedef struct node_gpus {
    int ranks, count;  /* of this node; different GPUs */
    seen_gpus *seen;   /* [ranks] */
    uint8_t (*id)[16]; /* [count] */
    int *which;        /* [ranks * GPUS_MAX]: the GPU behind each rank's k-th */
    int *owner;        /* [count]: local rank, -1 while nobody has it */
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
    size_t most = (size_t)ranks * GPUS_MAX;
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
            node->which[r * GPUS_MAX + k] = at;
        }
    }
}

/* Gives `rank` a GPU: the first free one that it sees, or one whose owner can take another (bipartite
 * matching). Where all ranks see the same GPUs, local rank r gets the r-th. */
static bool give_gpu(node_gpus *node, int rank)
{
    const int *mine = node->which + rank * GPUS_MAX;
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

/* Every rank of the node computes the same: no rank shares a GPU. Local. */
static p4_rc assign(node_gpus *node, int local_rank, int *ordinal)
{
    p4_rc rc = P4_OK;
    number_gpus(node);
    bool all = true;
    for (int r = 0; r < node->ranks; r++) {
        memset(node->asked, 0, (size_t)node->count * sizeof *node->asked);
        all = give_gpu(node, r) && all;
    }
    CHECK(all, "a node has %d rank%s and %d GPU%s for %s: a GPU serves one rank", node->ranks,
          p4_plural(node->ranks), node->count, p4_plural(node->count), node->ranks == 1 ? "it" : "them");
    for (int k = 0; k < node->seen[local_rank].count; k++) {
        if (node->owner[node->which[local_rank * GPUS_MAX + k]] == local_rank) {
            *ordinal = node->seen[local_rank].gpu[k].ordinal;
        }
    }
done:
    return rc;
}

/* This rank's GPU. That it has none need not end the run, so the ranks compare their results with p4_consult.
 * Local, but for the exchange of ids between the ranks of a node. */
static p4_rc find_gpu(p4_job *job, node_gpus *node)
{
    p4_rc rc = P4_OK;
    const p4_ops *cuda = p4_ops_find("cuda");
    seen_gpus mine = {0};
    p4_rc listed =
        cuda != NULL ? cuda->list(mine.gpu, GPUS_MAX, &mine.count) : FAIL("this build has no CUDA backend");
    p4_dist_node_gather(job->dist, node->seen, &mine, sizeof mine);
    TRY(listed);
    TRY(assign(node, job->dist->local_rank, &job->ordinal));
done:
    return rc;
}

/* Opens the GPU that find_gpu gave this rank. That it cannot be used ends the run: who has GPUs for all ranks
 * does not want to find out later that the CPUs did the work. Local. */
static p4_rc open_gpu(p4_job *job)
{
    p4_rc rc = P4_OK;
    const p4_ops *cuda = p4_ops_find("cuda");
    TRY(job->dist->ranks > 1 ? p4_coll_usable("nccl") : P4_OK); /* a single rank on a GPU moves nothing */
    TRY(cuda->open(&job->device, job->ordinal, job->threads, job->config.mixed_precision));
    job->ops = cuda;
done:
    if (rc != P4_OK && job->config.device == P4_DEVICE_AUTO) {
        char why[512];
        snprintf(why, sizeof why, "%s", p4_last_error());
        p4_error_clear();
        rc = p4_fail(rc, "a GPU was found, but cannot be used: %s (device \"cpu\" does without)", why);
    }
    return rc;
}

static p4_rc open_cpu(p4_job *job)
{
    job->ops = p4_ops_find("cpu");
    job->ordinal = 0;
    return job->ops->open(&job->device, 0, job->threads, false);
}

/* Not every rank has a GPU, p4_last_error says why: an error when GPUs are asked for, else a line of the log.
 * Local. */
static p4_rc do_without(p4_job *job, p4_rc rc)
{
    char why[512];
    snprintf(why, sizeof why, "%s", p4_last_error());
    p4_error_clear();
    if (job->config.device == P4_DEVICE_CUDA) {
        return p4_fail(rc, "key \"device\": found \"cuda\", but %s", why);
    }
    INFO("no GPU is used: %s", why);
    return P4_OK;
}

/* A GPU for every rank, or for none. Collective. */
static p4_rc try_gpus(p4_job *job)
{
    p4_rc rc = P4_OK;
    node_gpus node = {0};
    TRY_ALL(job->dist, open_node(&node, job->dist->local_ranks));
    rc = p4_consult(job->dist, find_gpu(job, &node));
    if (rc != P4_OK) {
        rc = do_without(job, rc);
    } else {
        TRY_ALL(job->dist, open_gpu(job));
    }
done:
    close_node(&node);
    return rc;
}

p4_rc p4_job_open_device(p4_job *job)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &job->config;
    job->threads = c->threads_per_rank > 0 ? c->threads_per_rank : p4_dist_cores(job->dist);
    if (c->device != P4_DEVICE_CPU) {
        TRY(try_gpus(job));
    }
    if (job->device == NULL) {
        TRY_ALL(job->dist, open_cpu(job));
    }
    bool nccl = !job->ops->host_memory && job->dist->ranks > 1;
    TRY(p4_coll_open(&job->coll, job->dist, nccl ? "nccl" : "mpi", job->ops->stream(job->device),
                     job->ordinal));
done:
    return rc;
}
