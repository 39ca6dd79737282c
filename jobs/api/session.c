/* The ranks as a handle, and the whole run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json/config.h"
#include "jobs/api/api.h"
#include "jobs/run.h"

static const double START_TIMEOUT_S = 600; /* until a configuration says otherwise */

/* Before the ranks are divided: every one has a communicator, and the ranks of a node know their GPUs. All
 * ranks of MPI_COMM_WORLD go on, or none. Collective over MPI_COMM_WORLD. */
static p4_rc prepare_division(p4_session *session, const void *communicator)
{
    p4_rc rc = P4_OK;
    p4_group all = {0};
    TRY(p4_group_open(&all, &session->machine, NULL, START_TIMEOUT_S));
    TRY_ALL(&all, p4_group_check_communicator(communicator));
    TRY_ALL(&all, p4_compute_find_gpus(&session->machine));
done:
    p4_group_close(&all);
    return rc;
}

/* The machine comes first: a rank that is out of memory can tell the others only with MPI. communicator:
 * NULL: of all ranks. */
static p4_rc open_ranks(p4_session **opened, const void *communicator)
{
    p4_rc rc = P4_OK;
    p4_machine machine;
    p4_session *session = NULL;
    TRY(p4_machine_open(&machine));
    session = *opened = p4_alloc(1, sizeof *session);
    TRY(p4_machine_agree(&machine, session != NULL ? P4_OK : P4_E_SYSTEM));
    session->machine = machine;
    machine = (p4_machine){.state = NULL}; /* it is the session's */
    TRY(communicator != NULL ? prepare_division(session, communicator) : P4_OK);
    TRY(p4_group_open(&session->group, &session->machine, communicator, START_TIMEOUT_S));
    p4_session_set_log(session, P4_LOG_WARN);
done:
    p4_machine_close(&machine);
    return rc;
}

p4_rc p4_session_open_on(p4_session **session, const void *communicator)
{
    p4_error_clear();
    *session = NULL;
    p4_rc rc = open_ranks(session, communicator);
    if (rc != P4_OK) {
        p4_session_close(*session);
        *session = NULL;
    }
    return rc;
}

p4_rc p4_session_open(p4_session **session)
{
    return p4_session_open_on(session, NULL);
}

void p4_session_close(p4_session *session)
{
    if (session != NULL) {
        p4_group_close(&session->group);
        p4_machine_close(&session->machine);
        free(session);
    }
}

int p4_session_rank(const p4_session *session)
{
    return session->group.rank;
}

int p4_session_ranks(const p4_session *session)
{
    return session->group.ranks;
}

void p4_session_set_log(p4_session *session, p4_log_level level)
{
    p4_group_set_log(&session->group, level);
}

p4_rc p4_session_read_config(p4_session *session, p4_config *config, const char *path, p4_recipe recipe,
                             char *const *overrides, int count)
{
    p4_rc rc = P4_OK;
    p4_error_clear();
    TRY_ROOT(&session->group, p4_config_read_file(config, path, recipe, overrides, count));
    p4_group_bcast(&session->group, config, sizeof *config, 0);
done:
    return rc;
}

p4_rc p4_session_share_config(p4_session *session, p4_config *to, const p4_config *from)
{
    p4_rc rc = P4_OK;
    if (from != NULL) {
        *to = *from;
    } else {
        p4_config_default(to);
    }
    TRY_ROOT(&session->group, p4_config_check(to));
    p4_group_bcast(&session->group, to, sizeof *to, 0);
    session->group.timeout_s = to->collective_timeout_s;
done:
    return rc;
}

/* Rank 0 knows the paths it wrote; the lists are everyone's own. Collective. */
static void share_results(p4_group *group, p4_results *results)
{
    p4_fine_tuning mine = results->fine_tuning;
    p4_reconstruction reconstruction = results->reconstruction;
    p4_provenance provenance = results->provenance;
    double *expert_tokens = results->experts.tokens;
    int64_t warning_count = results->warning_count;
    char *warnings[P4_WARNINGS_MAX];
    memcpy(warnings, results->warnings, sizeof warnings);
    p4_group_bcast(group, results, sizeof *results, 0);
    results->fine_tuning.history = mine.history;
    results->fine_tuning.history_count = mine.history_count;
    results->fine_tuning.history_capacity = mine.history_capacity;
    results->reconstruction.losses_count = reconstruction.losses_count;
    results->reconstruction.losses = reconstruction.losses;
    results->experts.tokens = expert_tokens;
    results->warning_count = warning_count;
    memcpy(results->warnings, warnings, sizeof warnings);
    results->provenance.places = provenance.places;
    results->provenance.place_count = provenance.place_count;
    results->provenance.inputs = provenance.inputs;
    results->provenance.input_count = provenance.input_count;
}

/* The configuration of a run, as all ranks use it: output_path with its names replaced once, since hosts may
 * differ in their dates. Collective. */
static p4_rc share_job(p4_session *session, p4_config *shared, const p4_config *config)
{
    p4_rc rc = P4_OK;
    p4_group *group = &session->group;
    TRY(p4_session_share_config(session, shared, config));
    TRY_ROOT(group, p4_config_validate_job(shared));
    TRY_ROOT(group, p4_config_expand_output_path(shared));
    p4_group_bcast(group, shared, sizeof *shared, 0);
done:
    return rc;
}

p4_rc p4_check(p4_session *session, const p4_config *config)
{
    p4_rc rc = P4_OK;
    p4_error_clear();
    p4_config *shared = p4_alloc(1, sizeof *shared);
    TRY_ALL(&session->group, shared != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(share_job(session, shared, config));
    TRY(p4_run_check(&session->group, shared, true));
done:
    free(shared);
    return rc;
}

p4_rc p4_execute(p4_session *session, const p4_config *config, p4_log_callback callback, void *user,
                 p4_results *results)
{
    p4_rc rc = P4_OK;
    p4_group *group = &session->group;
    p4_error_clear();
    p4_results_init(results);
    p4_config *shared = p4_alloc(1, sizeof *shared);
    TRY_ALL(group, shared != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(share_job(session, shared, config));
    rc = p4_run_execute(group, shared, true, false, group->rank == 0 ? callback : NULL, user, results);
    share_results(group, results);
done:
    free(shared);
    results->success = rc == P4_OK;
    if (rc != P4_OK) {
        snprintf(results->error, sizeof results->error, "%s", p4_last_error());
    }
    return rc;
}
