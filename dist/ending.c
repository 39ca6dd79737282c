#include "dist/ending.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "src/leaf/thread.h"

static const long LOOK_NS = 50000000;
static const double ASK_EVERY_S = 0.5, EACH_S = 0.3, MOST_S = 3.0;

static bool sleep_unless_over(const p4_ending *e, double seconds)
{
    for (double slept = 0; slept < seconds && !atomic_load(&e->over); slept += 1e-9 * (double)LOOK_NS) {
        nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
    }
    return !atomic_load(&e->over);
}

/* The lowest rank that has been silent for as long as is allowed; -1: there is none. */
static int find_silent(const p4_ending *e)
{
    for (int rank = 0; rank < e->ranks; rank++) {
        if (rank != e->rank && p4_pulse_silent_s(e->pulse, rank) >= e->timeout_s) {
            return rank;
        }
    }
    return -1;
}

/* MPI is ending, so the process itself has to end; the launcher then ends the others. A lower rank speaks
 * first. */
static void end_process(p4_ending *e, int silent)
{
    double turn_s = e->rank * EACH_S;
    if (sleep_unless_over(e, turn_s < MOST_S ? turn_s : MOST_S)) {
        fprintf(stderr,
                "phase4: rank %d on %s: end of the job: rank %d on %s: has not run for %.0f s "
                "(collective_timeout_s): stopped, or its node is lost\n",
                e->rank, e->host, silent, p4_pulse_host(e->pulse, silent), e->timeout_s);
        _exit(P4_E_SYSTEM);
    }
}

static void *watch(void *user)
{
    p4_ending *e = user;
    int *others = p4_alloc((size_t)e->ranks, sizeof *others), silent;
    for (int rank = 0; others != NULL && rank < e->ranks; rank++) {
        others[rank] = rank;
    }
    p4_pulse_begin(e->pulse);
    while (others != NULL && sleep_unless_over(e, ASK_EVERY_S)) {
        p4_pulse_ask(e->pulse, others, e->ranks, ASK_EVERY_S);
        if ((silent = find_silent(e)) >= 0) {
            end_process(e, silent);
        }
    }
    free(others);
    return NULL;
}

void p4_ending_watch(p4_ending *ending, p4_pulse *pulse, const char *host, int rank, int ranks,
                     double timeout_s)
{
    *ending = (p4_ending){.pulse = pulse, .host = host, .rank = rank, .ranks = ranks, .timeout_s = timeout_s};
    if (pulse != NULL && timeout_s > 0) {
        ending->watched = p4_thread_start(&ending->thread, watch, ending) == 0;
    }
}

void p4_ending_over(p4_ending *ending)
{
    atomic_store(&ending->over, true);
    if (ending->watched) {
        pthread_join(ending->thread, NULL);
    }
}
