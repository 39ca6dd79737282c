#include "jobs/batch/table.h"

#include <math.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "src/leaf/escape.h"

enum { LINE_BYTES = 4096, RUNNING_SHOWN = 16, COLUMNS = 80 };
static const double REDRAW_S = 0.5;

char *p4_batch_format_seconds(char text[32], double seconds)
{
    if (isnan(seconds)) {
        snprintf(text, 32, "-");
    } else if (seconds < 100.0) {
        snprintf(text, 32, seconds < 10.0 ? "%.1f s" : "%.0f s", seconds);
    } else if (seconds < 6000.0) {
        snprintf(text, 32, "%.0f min", seconds / 60.0);
    } else {
        snprintf(text, 32, "%.1f h", seconds / 3600.0);
    }
    return text;
}

void p4_batch_table_open(p4_batch_table *table, const p4_batch_options *options)
{
    bool terminal = options->live || isatty(STDERR_FILENO) == 1;
    *table = (p4_batch_table){.live = terminal && !options->quiet, .quiet = options->quiet};
}

static void erase(p4_batch_table *table)
{
    if (table->lines > 0) {
        fprintf(stderr, "\033[%dA\r\033[J", table->lines);
        table->lines = 0;
    }
}

void p4_batch_table_say(p4_batch_table *table, const char *format, ...)
{
    char text[LINE_BYTES], line[LINE_BYTES], now[P4_TIME_BYTES];
    va_list args;
    if (table->quiet) {
        return;
    }
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)p4_escape(line, sizeof line, text, sizeof text);
    erase(table);
    fprintf(stderr, "%s %s\n", p4_utc_now(now), line);
    fflush(stderr);
}

static void draw_line(p4_batch_table *table, int columns, const char *text)
{
    char line[LINE_BYTES];
    (void)p4_escape(line, sizeof line, text, LINE_BYTES);
    fprintf(stderr, "%.*s\n", columns - 1, line);
    table->lines++;
}

static void draw_model(p4_batch_table *table, int columns, const p4_batch_model *m, double now_s)
{
    char text[LINE_BYTES], took[32], left[32], work[48] = "";
    p4_batch_format_seconds(took, now_s - m->began_s);
    p4_batch_format_seconds(left, m->left_s);
    if (m->total > 0) {
        snprintf(work, sizeof work, "%.0f/%.0f", m->done, m->total);
    }
    snprintf(text, sizeof text, "  %-20.20s %3d rank%s %7s  %-10.10s %13.13s %7s left", m->given->name,
             m->ranks, m->ranks == 1 ? " " : "s", took, m->label[0] != '\0' ? m->label : "starts", work,
             left);
    draw_line(table, columns, text);
}

void p4_batch_table_draw(p4_batch_table *table, const p4_batch *batch, bool now)
{
    double now_s = p4_now_s();
    char text[LINE_BYTES], took[32], verdicts[64] = "";
    struct winsize size;
    if (!table->live || (!now && now_s - table->drawn_s < REDRAW_S)) {
        return;
    }
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    int columns = known ? size.ws_col : COLUMNS, shown = 0, idle = 0;
    table->drawn_s = now_s;
    for (int r = 0; r < batch->ranks; r++) {
        idle += batch->rank[r].model < 0;
    }
    erase(table);
    if (batch->counts[P4_STATE_VERDICT] > 0) {
        snprintf(verdicts, sizeof verdicts, " (%lld with a failed verdict)",
                 (long long)batch->counts[P4_STATE_VERDICT]);
    }
    snprintf(text, sizeof text,
             "%lld complete%s, %lld running, %lld waiting, %lld failed; %d of %d ranks idle; %s",
             (long long)(batch->counts[P4_STATE_DONE] + batch->counts[P4_STATE_VERDICT]), verdicts,
             (long long)batch->counts[P4_STATE_RUNNING], (long long)batch->counts[P4_STATE_WAITING],
             (long long)batch->counts[P4_STATE_FAILED], idle, batch->ranks,
             p4_batch_format_seconds(took, now_s - batch->started_s));
    draw_line(table, columns, text);
    for (int64_t i = 0; i < batch->count && shown < RUNNING_SHOWN; i++) {
        const p4_batch_model *m = &batch->models[batch->order[i]];
        if (m->state == P4_STATE_RUNNING) {
            draw_model(table, columns, m, now_s);
            shown++;
        }
    }
    if (batch->counts[P4_STATE_RUNNING] > shown) {
        snprintf(text, sizeof text, "  and %lld more", (long long)(batch->counts[P4_STATE_RUNNING] - shown));
        draw_line(table, columns, text);
    }
    fflush(stderr);
}
