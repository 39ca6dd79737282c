#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "src/leaf/base.h"
#include "src/leaf/count.h"
#include "src/leaf/escape.h"
#include "src/leaf/log_sink.h"

enum { LINE_BYTES = 16384, COLUMNS = 80 /* of a terminal that does not know its width */ };

static p4_log_level log_level = P4_LOG_INFO;
static bool log_speaker = true, log_times;
static double after_s = NAN; /* expected of the run behind the stage that works now */
static bool line_open;       /* a progress line without its newline stands on the terminal */
static FILE *log_stream;     /* NULL: stderr */
static p4_progress_observer observer;
static void *observer_user;
static pthread_mutex_t warning_lock = PTHREAD_MUTEX_INITIALIZER; /* a thread that saves may warn */
static p4_warning_observer warning_observer;
static void *warning_user;

static FILE *stream(void)
{
    return log_stream != NULL ? log_stream : stderr;
}

void p4_log_set_stream(FILE *to)
{
    log_stream = to;
}

void p4_progress_observe(p4_progress_observer sees, void *user)
{
    observer = sees;
    observer_user = user;
}

void p4_warning_observe(p4_warning_observer sees, void *user)
{
    pthread_mutex_lock(&warning_lock);
    warning_observer = sees;
    warning_user = user;
    pthread_mutex_unlock(&warning_lock);
}

static void tell_warning(const char *text)
{
    pthread_mutex_lock(&warning_lock);
    if (warning_observer != NULL) {
        warning_observer(text, warning_user);
    }
    pthread_mutex_unlock(&warning_lock);
}

void p4_log_setup(p4_log_level level, bool speaker)
{
    log_level = level;
    log_speaker = speaker;
}

void p4_log_set_times(bool times)
{
    log_times = times;
}

/* "2026-01-31T12:00:00Z " before each line that is to have it. */
static void put_time(void)
{
    char now[P4_TIME_BYTES];
    if (log_times) {
        fprintf(stream(), "%s ", p4_utc_now(now));
    }
}

void p4_log(p4_log_level level, const char *format, ...)
{
    if (!log_speaker || (level > log_level && level != P4_LOG_WARN)) {
        return;
    }
    char text[LINE_BYTES], line[LINE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)p4_escape(line, sizeof line, text, sizeof text);
    if (level == P4_LOG_WARN) { /* also one that the log does not show: results.json has it */
        tell_warning(line);
    }
    if (level > log_level) {
        return;
    }
    if (line_open) {
        fputs("\r\033[K", stream());
        line_open = false;
    }
    put_time();
    fputs(line, stream());
    fputc('\n', stream());
    fflush(stream());
}

void p4_progress_set_after(double seconds)
{
    after_s = seconds;
}

void p4_progress_start(p4_progress *progress, const char *label, const char *unit, double total)
{
    double now = p4_now_s();
    *progress = (p4_progress){
        .label = label, .unit = unit, .started_s = now, .shown_s = now, .total = total, .after_s = after_s};
}

/* The width of the terminal now, which the user may change at any time. */
static int terminal_columns(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : COLUMNS;
}

/* "40 s", "12 min", "3.5 h". */
static const char *format_left(char text[32], double seconds)
{
    if (seconds < 100.0) {
        snprintf(text, 32, "%.0f s", seconds);
    } else if (seconds < 6000.0) {
        snprintf(text, 32, "%.0f min", seconds / 60.0);
    } else {
        snprintf(text, 32, "%.1f h", seconds / 3600.0);
    }
    return text;
}

/* The line in its long form, or in one of two shorter ones, the first of which fits into `columns`. */
static void describe(char line[LINE_BYTES], const p4_progress *p, const char *note, int columns)
{
    double elapsed = p4_now_s() - p->started_s;
    double rate = elapsed > 0 ? (p->done - p->from) / elapsed : 0;
    double left = rate > 0 ? (p->total - p->done) / rate : 0;
    double percent = p->total > 0 ? 100.0 * p->done / p->total : 100.0;
    char amount[96], speed[96], times[80], left_text[32], run_text[32], done[P4_COUNT_BYTES],
        total[P4_COUNT_BYTES];
    snprintf(amount, sizeof amount, "%s/%s %s (%.0f %%)", p4_format_count(done, llround(p->done)),
             p4_format_count(total, llround(p->total)), p->unit, percent);
    if (rate < 100) {
        snprintf(speed, sizeof speed, ", %.2f %s/s", rate, p->unit);
    } else {
        snprintf(speed, sizeof speed, ", %s %s/s", p4_format_count(done, llround(rate)), p->unit);
    }
    snprintf(times, sizeof times, isnan(p->after_s) ? ", %s left" : ", %s left (run %s)",
             format_left(left_text, left), format_left(run_text, left + p->after_s));
    for (int form = 0; form < 3; form++) {
        int length = snprintf(line, LINE_BYTES, "  %s %s%s%s%s%s", p->label, amount, form < 2 ? speed : "",
                              times, note[0] != '\0' ? ", " : "", note);
        if (length < columns) {
            break;
        }
        snprintf(amount, sizeof amount, "%.0f %%", percent);
    }
}

/* On a terminal a line stays below its width: one that wraps cannot be drawn over. */
static void draw(p4_progress *progress, const char *note, bool terminal)
{
    char line[LINE_BYTES];
    int columns = terminal ? terminal_columns() : LINE_BYTES;
    describe(line, progress, note != NULL ? note : "", columns);
    if (terminal) {
        fprintf(stream(), "\r\033[K%.*s", columns - 1, line);
    } else {
        put_time();
        fprintf(stream(), "%s\n", line);
    }
    fflush(stream());
    line_open = terminal;
    progress->drawn = true;
}

void p4_progress_update(p4_progress *progress, double done, const char *note)
{
    progress->done = done;
    if (log_speaker && observer != NULL) {
        double elapsed_s = p4_now_s() - progress->started_s;
        double here = done - progress->from; /* what the elapsed time was for */
        double left_s = here > 0 ? elapsed_s * (progress->total - done) / here : NAN;
        observer(progress, left_s + (isnan(progress->after_s) ? 0 : progress->after_s), observer_user);
    }
    if (!log_speaker || log_level < P4_LOG_INFO) {
        return;
    }
    bool terminal = log_stream == NULL && isatty(STDERR_FILENO) == 1;
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
        fputs("\r\033[K", stream());
        fflush(stream());
        line_open = false;
    }
}
