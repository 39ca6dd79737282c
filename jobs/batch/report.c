/* report.c - what a batch leaves: the final table, batch_results.json, the plan, the exit status. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/batch/summary.h"
#include "jobs/batch/cli.h"
#include "jobs/batch/table.h"
#include "src/leaf/names.h"

int p4_batch_status(const p4_batch *batch)
{
    if (batch->failure != P4_OK) {
        return (int)batch->failure;
    }
    bool asked = batch->stopping != NULL && strcmp(batch->stopping, "--max-fails") != 0;
    if (asked || batch->counts[P4_STATE_STOPPED] > 0) {
        return P4_STOPPED;
    }
    return batch->counts[P4_STATE_FAILED] > 0                              ? P4_BATCH_STATUS_FAILED
           : batch->options->strict && batch->counts[P4_STATE_VERDICT] > 0 ? P4_BATCH_STATUS_VERDICT
                                                                           : 0;
}

char *p4_batch_summarize(char text[P4_BATCH_SUMMARY_BYTES], const p4_batch *batch, double seconds)
{
    p4_name_sample failed = {.count = 0};
    char took[32];
    int64_t skipped = 0;
    for (int64_t i = 0; i < batch->count; i++) {
        const p4_batch_model *m = &batch->models[i];
        skipped += m->earlier && m->state != P4_STATE_FAILED;
        if (m->state == P4_STATE_FAILED) {
            p4_name_sample_add(&failed, m->given->name);
        }
    }
    int64_t rest = batch->counts[P4_STATE_WAITING] + batch->counts[P4_STATE_STOPPED];
    const long long passed = batch->counts[P4_STATE_DONE], refused = batch->counts[P4_STATE_VERDICT];
    const bool check = batch->options->check_only;
    const char *separator = refused > 0 ? "; " : ", ";
    size_t used = (size_t)snprintf(text, P4_BATCH_SUMMARY_BYTES, "%lld %s", passed + refused,
                                   check ? "without an error" : "complete");
    if (batch->started_s > 0 && !check) { /* else nothing was worked on */
        used += (size_t)snprintf(text + used, P4_BATCH_SUMMARY_BYTES - used, " (%lld of them before)",
                                 (long long)skipped);
    }
    if (refused > 0) {
        used += (size_t)snprintf(text + used, P4_BATCH_SUMMARY_BYTES - used,
                                 ": %lld passed or unjudged, %lld with a failed verdict", passed, refused);
    }
    if (failed.count > 0) {
        int64_t count = failed.count;
        used += (size_t)snprintf(text + used, P4_BATCH_SUMMARY_BYTES - used, "%s%lld failed (%.600s)",
                                 separator, (long long)count, p4_name_sample_text(&failed));
        separator = ", ";
    }
    if (rest > 0) {
        used += (size_t)snprintf(text + used, P4_BATCH_SUMMARY_BYTES - used, "%s%lld to do", separator,
                                 (long long)rest);
    }
    if (batch->started_s > 0) {
        snprintf(text + used, P4_BATCH_SUMMARY_BYTES - used, " in %s",
                 p4_batch_format_seconds(took, seconds));
    }
    return text;
}

static double planned_of(const p4_batch_model *m)
{
    int ranks = m->record.ranks > 0 ? (int)m->record.ranks : m->plan.least;
    return m->plan.known ? m->plan.seconds[p4_batch_width(&m->plan, ranks)] : NAN;
}

p4_rc p4_batch_write_results(const p4_batch *batch, double seconds)
{
    p4_rc rc = P4_OK;
    char text[P4_BATCH_SUMMARY_BYTES];
    char *path = p4_format("%s/batch_results.json", batch->own_directory);
    p4_batch_summary_row *rows = p4_alloc((size_t)batch->count, sizeof *rows);
    int64_t count = 0;
    TRY(path != NULL && rows != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < batch->count; i++) {
        const p4_batch_model *m = &batch->models[i];
        if (m->record.name != NULL) { /* else another task's */
            rows[count++] = (p4_batch_summary_row){p4_batch_state_names[m->state], &m->record, planned_of(m)};
        }
    }
    const p4_batch_summary summary = {.queue = batch->options->queue_path,
                                      .text = p4_batch_summarize(text, batch, seconds),
                                      .status = p4_batch_status(batch),
                                      .ranks = batch->ranks,
                                      .count = count,
                                      .seconds = seconds,
                                      .rows = rows,
                                      .state_count = P4_STATES,
                                      .state_names = p4_batch_state_names,
                                      .state_counts = batch->counts};
    rc = p4_batch_summary_write(&summary, path);
done:
    free(rows);
    free(path);
    return rc;
}

/* A number of the table, "-" where it is not known. */
static const char *format(char text[P4_NUMBER_BYTES], double value)
{
    return isfinite(value) ? p4_format_number(text, value, 2) : "-";
}

static void print_row(const p4_batch *batch, const p4_batch_model *m)
{
    const bool check = batch->options->check_only,
               checked = check && m->state == P4_STATE_DONE && !m->earlier;
    char took[32], before[P4_NUMBER_BYTES], after[P4_NUMBER_BYTES], ratio[P4_NUMBER_BYTES];
    const p4_batch_record *r = &m->record;
    const char *text = r->error != NULL ? r->error : "";
    printf("%-28s %-14s %5lld", m->given->name, checked ? "no error" : p4_batch_state_names[m->state],
           (long long)r->ranks);
    if (!check) {
        printf(" %9s %10s %10s %7s %8lld", p4_batch_format_seconds(took, r->seconds),
               format(before, r->pre_perplexity), format(after, r->perplexity),
               format(ratio, r->compression_ratio), (long long)r->warnings);
    }
    if (m->state == P4_STATE_FAILED || m->state == P4_STATE_STOPPED || m->state == P4_STATE_VERDICT) {
        printf("  %.*s", (int)strcspn(text, "\n"), text);
    }
    putchar('\n');
}

void p4_batch_print(const p4_batch *batch, double seconds)
{
    char text[P4_BATCH_SUMMARY_BYTES];
    printf("%-28s %-14s %5s", "model", "state", "ranks");
    if (batch->options->check_only) { /* which measures nothing */
        putchar('\n');
    } else {
        printf(" %9s %10s %10s %7s %8s\n", "time", "ppl before", "ppl after", "ratio", "warnings");
    }
    for (int64_t i = 0; i < batch->count; i++) {
        const p4_batch_model *m = &batch->models[i];
        if (m->record.name != NULL) {
            print_row(batch, m);
        }
    }
    printf("phase4_batch: %s\n", p4_batch_summarize(text, batch, seconds));
}

static void print_planned(const p4_batch_model *m)
{
    char time[32], memory[32], device[32], disk[32];
    const p4_batch_plan *p = &m->plan;
    if (!p->known) {
        const char *text = m->record.error != NULL ? m->record.error : "";
        printf("%-28s %-14s  %.*s\n", m->given->name, p4_batch_state_names[m->state],
               (int)strcspn(text, "\n"), text);
        return;
    }
    printf("%-28s %-14s %9.4gM %5d %9s %11s %11s %11s\n", m->given->name, p4_batch_state_names[m->state],
           p->params / 1e6, p->least, p4_batch_format_seconds(time, p->seconds[0]),
           p4_format_bytes(memory, p->rank_bytes[0]),
           p->device_bytes > 0 ? p4_format_bytes(device, p->device_bytes) : "-",
           p4_format_bytes(disk, p->disk_bytes));
}

void p4_batch_print_plan(const p4_batch *batch, double forecast_s)
{
    char time[32], sum[32];
    double rank_s = 0;
    printf("%-28s %-14s %10s %5s %9s %11s %11s %11s\n", "model", "state", "weights", "ranks", "time",
           "host/rank", "GPU/rank", "disk");
    for (int64_t i = 0; i < batch->count; i++) {
        const p4_batch_model *m = &batch->models[batch->order[i]];
        if (m->record.name != NULL) {
            print_planned(m);
            rank_s += m->plan.known && m->state == P4_STATE_WAITING ? m->plan.least * m->plan.seconds[0] : 0;
        }
    }
    printf("%lld model%s to do, %lld complete, %lld failed; %s on %d rank%s, %s on one rank at a time\n",
           (long long)batch->counts[P4_STATE_WAITING], p4_plural(batch->counts[P4_STATE_WAITING]),
           (long long)(batch->counts[P4_STATE_DONE] + batch->counts[P4_STATE_VERDICT]),
           (long long)batch->counts[P4_STATE_FAILED], p4_batch_format_seconds(time, forecast_s), batch->ranks,
           p4_plural(batch->ranks), p4_batch_format_seconds(sum, rank_s));
}
