/* phase4_mpi - the main job: arguments -> ranks -> configuration -> the run (jobs/run.c) -> verdict. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "dist/launcher.h"
#include "io/json/config.h"
#include "io/out/plan_json.h"
#include "io/out/report.h"
#include "jobs/cli.h"
#include "jobs/measure_rates.h"
#include "jobs/plan.h"
#include "jobs/process.h"
#include "src/families.h"
#include "src/leaf/stop.h"
#include "src/phase4.h"

enum { VERDICT_FAILED = 3 }; /* exit status under --strict */

static int report(p4_rc rc)
{
    if (rc == P4_STOPPED) {
        fprintf(stderr, "phase4: %s\n", p4_last_error());
    } else {
        p4_error_print();
    }
    return p4_process_status(rc);
}

/* Does this process speak? Without a session by what its launcher says, so that one of many does. */
static bool speaks(const p4_session *session)
{
    return session != NULL ? p4_session_rank(session) == 0 : p4_launched_rank() <= 0;
}

/* The answers that take no MPI: once, whoever started how many of us. */
static int show_help(const p4_cli *cli)
{
    if (p4_launched_rank() <= 0) {
        p4_cli_print_help(stdout, cli->topics, cli->topic_count);
    }
    return EXIT_SUCCESS;
}

static int show_version(void)
{
    if (p4_launched_rank() <= 0) {
        printf("phase4_mpi %s\n", p4_version());
    }
    return EXIT_SUCCESS;
}

static int show_families(void)
{
    if (p4_launched_rank() <= 0) {
        p4_families_print(stdout, false);
    }
    return EXIT_SUCCESS;
}

/* session: NULL in a check without MPI. A verdict that could not be given is refused before the work, not
 * behind it. */
static p4_rc read_config(p4_config *config, const p4_cli *cli, p4_session *session)
{
    p4_rc rc = session != NULL ? p4_session_read_config(session, config, cli->cfg_path, P4_RECIPE_QUALITY,
                                                        cli->overrides, cli->override_count)
                               : p4_config_read_file(config, cli->cfg_path, P4_RECIPE_QUALITY, cli->overrides,
                                                     cli->override_count);
    if (rc == P4_OK && cli->strict && config->eval_samples == 0) {
        rc = FAIL(
            "--strict asks for a verdict, but eval_samples is 0: no quality would be measured to give it by");
    }
    return rc;
}

/* As a run takes the configuration: the first rank reads it, and all end alike. Alone it takes no MPI, which
 * a login node may not let start. */
static int validate(const p4_cli *cli)
{
    static p4_config config;
    p4_rc rc = P4_OK;
    p4_session *session = NULL;
    if (p4_launched_rank() >= 0) {
        TRY(p4_session_open(&session));
    }
    TRY(read_config(&config, cli, session));
done:
    if (speaks(session)) {
        if (rc == P4_OK) {
            printf("%s: valid\n", cli->cfg_path);
        } else {
            (void)report(rc);
        }
    }
    signal(SIGTERM, SIG_IGN); /* as in run */
    p4_session_close(session);
    return p4_process_status(rc);
}

/* What a run would find out before its work. */
static int check(const p4_cli *cli)
{
    static p4_config config;
    p4_rc rc = P4_OK;
    p4_session *session = NULL;
    TRY(p4_session_open(&session));
    p4_session_set_log(session, cli->quiet ? P4_LOG_WARN : P4_LOG_INFO);
    TRY(read_config(&config, cli, session));
    TRY(p4_check(session, &config));
done:
    if (speaks(session)) {
        if (rc == P4_OK) {
            printf("%s: no error found\n", cli->cfg_path);
        } else {
            (void)report(rc);
        }
    }
    signal(SIGTERM, SIG_IGN); /* as in run */
    p4_session_close(session);
    return p4_process_status(rc);
}

/* What a run would take. Alone, without MPI: a plan is made on any machine. */
static int plan(const p4_cli *cli)
{
    static p4_config config;
    p4_rc rc = P4_OK;
    p4_plan plan = {.ranks = 0};
    char *json = NULL;
    const p4_plan_request request = {.ranks = cli->ranks,
                                     .ranks_per_node = cli->ranks_per_node,
                                     .memory_bytes = cli->memory_bytes,
                                     .host_bytes = cli->host_bytes,
                                     .rates_path = cli->rates_path,
                                     .measures = true};
    if (p4_launched_rank() > 0) {
        return EXIT_SUCCESS;
    }
    p4_log_setup(cli->quiet || cli->json ? P4_LOG_WARN : P4_LOG_INFO, true);
    p4_process_keep_memory();
    TRY(read_config(&config, cli, NULL));
    TRY(p4_plan_make(&plan, &config, &request));
    if (cli->json) {
        json = p4_plan_json(&plan);
        TRY(json != NULL ? P4_OK : P4_E_SYSTEM);
        fputs(json, stdout);
    } else {
        p4_plan_print(stdout, &plan);
    }
done:
    if (rc != P4_OK) {
        (void)report(rc);
    }
    free(json);
    p4_plan_free(&plan);
    return (int)rc;
}

/* How fast the ranks are, to a file. */
static int measure_rates(const p4_cli *cli)
{
    enum { START_TIMEOUT_S = 600 };
    static p4_config config;
    p4_rc rc = P4_OK;
    p4_machine machine = {.state = NULL};
    p4_group group = {.state = NULL};
    TRY(p4_machine_open(&machine));
    TRY(p4_group_open(&group, &machine, NULL, START_TIMEOUT_S));
    p4_group_set_log(&group, cli->quiet ? P4_LOG_WARN : P4_LOG_INFO);
    TRY_ROOT(&group, read_config(&config, cli, NULL)); /* other ranks may not see the file */
    p4_group_bcast(&group, &config, sizeof config, 0);
    TRY(p4_rates_measure(&group, &config, cli->measured_path));
done:
    if (group.state != NULL ? group.rank == 0 : p4_launched_rank() <= 0) {
        if (rc == P4_OK) {
            printf("%s: written\n", cli->measured_path);
        } else {
            (void)report(rc);
        }
    }
    signal(SIGTERM, SIG_IGN); /* as in run */
    p4_group_close(&group);
    p4_machine_close(&machine);
    return p4_process_status(rc);
}

#define SAVED_FIRST "the state of the run is saved first"
#define SECOND_CTRL_C "; a second Ctrl-C ends the run at once, and what is not saved is lost"
#define ALL_THERE " if all ranks are still there"

/* What a signal says: no more than what holds. mpirun and srun send SIGTERM to the ranks that are left when
 * one has died, and then no state can be saved; mpirun kills all ranks some seconds after Ctrl-C. */
static const p4_stop_notice *stop_notice(const p4_session *session)
{
    static const p4_stop_notice alone = {.interrupt = SAVED_FIRST SECOND_CTRL_C, .other = SAVED_FIRST},
                                one_of_many = {.interrupt = SAVED_FIRST ALL_THERE SECOND_CTRL_C,
                                               .other = SAVED_FIRST ALL_THERE},
                                of_mpirun = {
                                    .interrupt = SAVED_FIRST ALL_THERE " and mpirun does not end them before",
                                    .other = SAVED_FIRST ALL_THERE " and mpirun does not end them before"};
    return p4_session_ranks(session) == 1 ? &alone : p4_launched_by_mpirun() ? &of_mpirun : &one_of_many;
}

static int run(const p4_cli *cli)
{
    static p4_config config;
    p4_rc rc = P4_OK;
    p4_session *session = NULL;
    p4_results results;
    p4_results_init(&results);
    TRY(p4_session_open(&session));
    p4_stop_catch_signals(p4_session_rank(session) == 0 && !cli->quiet ? stop_notice(session) : NULL);
    p4_session_set_log(session, cli->quiet ? P4_LOG_WARN : P4_LOG_INFO);
    TRY(read_config(&config, cli, session));
    TRY(p4_execute(session, &config, NULL, NULL, &results));
    if (p4_session_rank(session) == 0) {
        p4_report_table(stdout, &results, &config);
    }
done:;
    int status =
        rc == P4_OK && cli->strict && !results.quality.passed ? VERDICT_FAILED : p4_process_status(rc);
    if (rc != P4_OK && speaks(session)) {
        (void)report(rc);
    }
    p4_results_free(&results);
    signal(SIGTERM,
           SIG_IGN); /* srun --kill-on-bad-exit ends the other ranks once one has left: let all leave alike */
    p4_session_close(session);
    return status;
}

/* A mistyped command is said once, not once a rank. */
static int refuse_arguments(void)
{
    return p4_launched_rank() <= 0 ? report(P4_E_INPUT) : P4_E_INPUT;
}

static int act(const p4_cli *cli)
{
    switch (cli->action) {
    case P4_CLI_HELP:
        return show_help(cli);
    case P4_CLI_VERSION:
        return show_version();
    case P4_CLI_FAMILIES:
        return show_families();
    case P4_CLI_VALIDATE:
        return validate(cli);
    case P4_CLI_CHECK:
        return check(cli);
    case P4_CLI_PLAN:
        return plan(cli);
    case P4_CLI_MEASURE_RATES:
        return measure_rates(cli);
    case P4_CLI_RUN:
        break;
    }
    return run(cli);
}

int main(int argc, char **argv)
{
    static p4_cli cli;
    p4_process_let_threads_sleep(argv);
    p4_process_start();
    p4_rc parsed = p4_cli_parse(&cli, argc, argv);
    p4_log_set_times(cli.log_time);
    int status = parsed == P4_OK ? act(&cli) : refuse_arguments();
    return p4_process_end(status);
}
