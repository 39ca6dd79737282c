#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/leaf/base.h"
#include "src/leaf/escape.h"

enum { LINE_BYTES = 16384 };

static p4_log_level log_level = P4_LOG_INFO;
static bool log_speaker = true;
static bool line_open; /* a progress line without its newline stands on the terminal */

void p4_log_setup(p4_log_level level, bool speaker)
{
    log_level = level;
    log_speaker = speaker;
}

void p4_log(p4_log_level level, const char *format, ...)
{
    if (!log_speaker || level > log_level) {
        return;
    }
    if (line_open) {
        fputs("\r\033[K", stderr);
        line_open = false;
    }
    char text[LINE_BYTES], line[LINE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)p4_escape(line, sizeof line, text, sizeof text);
    fputs(line, stderr);
    fputc('\n', stderr);
    fflush(stderr);
}

void p4_progress_start(p4_progress *progress, const char *label, const char *unit, double total)
{
    double now = p4_now_s();
    *progress = (p4_progress){.label = label, .unit = unit, .started_s = now, .shown_s = now, .total = total};
}

static void draw(p4_progress *progress, const char *note, bool terminal)
{
    double elapsed = p4_now_s() - progress->started_s;
    double rate = elapsed > 0 ? progress->done / elapsed : 0;
    double left = rate > 0 ? (progress->total - progress->done) / rate : 0;
    char tail[96] = "";
    if (note != NULL && note[0] != '\0') {
        snprintf(tail, sizeof tail, ", %s", note);
    }
    fprintf(stderr, "%s  %s %.0f/%.0f %s (%.0f %%), %.*f %s/s, %.0f s left%s%s", terminal ? "\r\033[K" : "",
            progress->label, progress->done, progress->total, progress->unit,
            progress->total > 0 ? 100.0 * progress->done / progress->total : 100.0, rate < 100 ? 2 : 0, rate,
            progress->unit, left, tail, terminal ? "" : "\n");
    fflush(stderr);
    line_open = terminal;
    progress->drawn = true;
}

void p4_progress_update(p4_progress *progress, double done, const char *note)
{
    progress->done = done;
    if (!log_speaker || log_level < P4_LOG_INFO) {
        return;
    }
    bool terminal = isatty(STDERR_FILENO) == 1;
    double now = p4_now_s();
    if (now - progress->shown_s < (terminal ? 0.1 : 5.0)) {
        return;
    }
    progress->shown_s = now;
    draw(progress, note, terminal);
}

void p4_progress_end(p4_progress *progress)
{
    (void)progress;
    if (line_open) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        line_open = false;
    }
}
