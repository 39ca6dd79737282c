#include "jobs/provenance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/h5/file.h"
#include "src/phase4.h"

/* ranks: on every rank, what it said itself. Neighbors that agree are one entry. */
static p4_rc list_places(p4_provenance *p, const p4_place *ranks, int count)
{
    p4_place *places = p4_alloc((size_t)count, sizeof *places);
    int64_t last = -1;
    if (places == NULL) {
        return P4_E_SYSTEM;
    }
    for (int rank = 0; rank < count; rank++) {
        bool same = last >= 0 && strcmp(places[last].host, ranks[rank].host) == 0 &&
                    strcmp(places[last].device, ranks[rank].device) == 0;
        if (same) {
            places[last].ranks++;
        } else {
            places[++last] = ranks[rank];
        }
    }
    p->places = places;
    p->place_count = last + 1;
    return P4_OK;
}

/* Collective. */
static p4_rc gather_places(p4_run *run, const char *device)
{
    p4_rc rc = P4_OK;
    p4_group *group = run->compute.group;
    p4_place *all = p4_alloc((size_t)group->ranks, sizeof *all);
    TRY_ALL(group, all != NULL ? P4_OK : P4_E_SYSTEM);
    p4_place *own = &all[group->rank];
    *own = (p4_place){.first_rank = group->rank, .ranks = 1};
    snprintf(own->host, sizeof own->host, "%s", group->machine->host);
    snprintf(own->device, sizeof own->device, "%s", device);
    for (int rank = 0; rank < group->ranks; rank++) {
        p4_group_bcast(group, &all[rank], sizeof all[rank], rank);
    }
    TRY_ALL(group, list_places(&run->results.provenance, all, group->ranks));
done:
    free(all);
    return rc;
}

p4_rc p4_provenance_begin(p4_run *run)
{
    const p4_compute *compute = &run->compute;
    p4_provenance *p = &run->results.provenance;
    p4_device_identity identity;
    compute->ops->identify(compute->device, &identity);
    (void)p4_utc_now(p->started);
    p->ranks = compute->group->ranks;
    p->threads = compute->threads;
    snprintf(p->device, sizeof p->device, "%s", compute->ops->name);
    snprintf(p->program, sizeof p->program, "%s", p4_version());
    snprintf(p->mpi, sizeof p->mpi, "%s", compute->group->machine->mpi);
    snprintf(p->blas, sizeof p->blas, "%s", identity.blas);
    snprintf(p->cuda, sizeof p->cuda, "%s", identity.cuda);
    snprintf(p->nccl, sizeof p->nccl, "%s", compute->coll.library);
    (void)p4_h5_version(p->hdf5);
    return gather_places(run, identity.name);
}

void p4_provenance_continue(p4_run *run, const char *checkpoint, int64_t step, const char *started,
                            int64_t continued)
{
    p4_provenance *p = &run->results.provenance;
    p->continued = continued + 1;
    p->checkpoint_step = step;
    snprintf(p->checkpoint, sizeof p->checkpoint, "%s", checkpoint);
    snprintf(p->started, sizeof p->started, "%s", started);
}
