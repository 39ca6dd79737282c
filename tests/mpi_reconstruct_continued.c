/* Block reconstruction that goes on where a process before it was stopped: its progress, by which the time
 * left is judged. */
#define _GNU_SOURCE /* fopencookie, memmem */
#include "reconstruct_world.h"
#include "src/leaf/log_sink.h"

static p4_rc reconstruct(subject *s)
{
    return p4_reconstruct(&s->compute, &s->original, &s->windows, &s->plan, &s->packed, &s->masters,
                          &s->record);
}

/* A run that continues: when the log said so, and what the first update of the progress said. */
typedef struct continuing {
    double said_s, started_s, from, done, total;
} continuing;

static ssize_t note_log(void *user, const char *text, size_t bytes)
{
    continuing *c = user;
    if (memmem(text, bytes, "continues after block", strlen("continues after block")) != NULL) {
        c->said_s = p4_now_s();
    }
    return (ssize_t)bytes;
}

static void note_first(const p4_progress *progress, double left_s, void *user)
{
    continuing *c = user;
    (void)left_s;
    if (strcmp(progress->label, "reconstruct") == 0 && c->done == 0) {
        c->started_s = progress->started_s;
        c->from = progress->from;
        c->done = progress->done;
        c->total = progress->total;
    }
}

/* The time in which the blocks of the process before are passed through is not that of the steps that follow,
 * by which the time left is judged; nor are the steps of these blocks. */
static void check_continuing(p4_group *all)
{
    const way blocks = {.model = "llama-gqa", .keys = {{"reconstruct_window", "1"}}};
    subject *s = open_subject(all, &blocks);
    continuing c = {.done = 0};
    EXPECT_OK(reconstruct(s));
    EXPECT(s->record.losses_count == 2, "%lld sets", (long long)s->record.losses_count);
    s->record.losses_count = 1; /* as far as a checkpoint behind the first block has it */
    FILE *log = fopencookie(&c, "w", (cookie_io_functions_t){.write = note_log});
    EXPECT(log != NULL, "no log");
    p4_log_set_stream(log);
    p4_group_set_log(all, P4_LOG_INFO);
    p4_progress_observe(note_first, &c);
    EXPECT_OK(reconstruct(s));
    p4_progress_observe(NULL, NULL);
    p4_group_set_log(all, P4_LOG_WARN);
    p4_log_set_stream(NULL);
    fclose(log);
    if (all->rank == 0) {
        EXPECT(c.said_s > 0 && c.started_s >= c.said_s, "steps are timed from %g s before they begin",
               c.said_s - c.started_s);
        EXPECT(c.from == STEPS && c.done == STEPS + 1 && c.total == 2 * STEPS, "step %g of %g, from %g",
               c.done, c.total, c.from);
    }
    close_subject(s);
}

int main(void)
{
    return run_on_all_ranks(check_continuing);
}
