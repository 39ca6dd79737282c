/* base.h - the leaf everything may use: error codes, FAIL/TRY/CHECK, checked size products, log lines.
 *
 * Callees return p4_rc and record the first message; callers pass it on with TRY; cleanup goes through one
 * `done:` label. A Collective function uses TRY_ALL (dist/group.h) between its collective parts. */
#ifndef P4_BASE_H
#define P4_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/phase4/rc.h"

#if defined(__GNUC__)
#define P4_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define P4_PRINTF(fmt, first)
#endif

/* Records the message, one line, unless one is already recorded on this thread, and returns `rc`. Whatever
 * the text came from, it is escaped (p4_escape). Local. */
p4_rc p4_fail(p4_rc rc, const char *format, ...) P4_PRINTF(2, 3);
/* The same with several lines, which the caller escaped one by one. Local. */
p4_rc p4_fail_lines(p4_rc rc, const char *lines);

/* Prints the recorded message to stderr, each of its lines behind "phase4: error: ". Local. */
void p4_error_print(void);

/* Forgets this thread's recorded message (a caller that handled the error). Local. */
void p4_error_clear(void);

/* Replaces this thread's recorded message (p4_agree uses it to hand on another rank's). Local. */
void p4_error_set(const char *message);

#define FAIL(...) p4_fail(P4_E_INPUT, __VA_ARGS__)   /* what the user gave, or a full disk: exit status 2 */
#define FAULT(...) p4_fail(P4_E_SYSTEM, __VA_ARGS__) /* memory, MPI, CUDA, a bug: exit status 1 */
#define TRY(call)                     \
    do {                              \
        if ((rc = (call)) != P4_OK) { \
            goto done;                \
        }                             \
    } while (0)
#define CHECK(ok, ...)              \
    do {                            \
        if (!(ok)) {                \
            rc = FAIL(__VA_ARGS__); \
            goto done;              \
        }                           \
    } while (0)

/* *product = a * b * c, false when it does not fit (sizes that come from files go through here). Local. */
bool p4_mul3(uint64_t *product, uint64_t a, uint64_t b, uint64_t c);

/* malloc/calloc/realloc of count * each bytes with the product checked; NULL records "out of memory" with the
 * byte count. Zeroed. The caller frees with free(). Local. */
void *p4_alloc(size_t count, size_t each_bytes);
void *p4_resize(void *old, size_t count, size_t each_bytes);
/* An array of *capacity elements, of which `count` are used, with room for one more: itself, or grown to
 * twice its capacity. NULL records "out of memory"; array and *capacity are as before. Not zeroed. Local. */
void *p4_grow(void *array, int64_t count, int64_t *capacity, size_t each_bytes);
/* As p4_alloc. The system is asked to hold it in large pages, where it has them for programs that ask: what
 * is read as fast as memory gives it then waits less for addresses. Local. */
void *p4_alloc_large(size_t bytes);
char *p4_strdup(const char *text);

/* snprintf into a heap string; NULL when memory is out. The caller frees. Local. */
char *p4_format(const char *format, ...) P4_PRINTF(1, 2);

double p4_now_s(void); /* monotonic clock, seconds */

/* The time as "2026-01-31T12:00:00Z", into a caller's buffer, which is returned; "" where the clock has none.
 */
enum { P4_TIME_BYTES = 32 };
char *p4_utc_now(char buffer[P4_TIME_BYTES]);

/* Log lines go to stderr, escaped (p4_escape), only from the rank that speaks. P4_LOG_WARN also appears under
 * --quiet. */
void p4_log_setup(p4_log_level level, bool speaker);
void p4_log(p4_log_level level, const char *format, ...) P4_PRINTF(2, 3);
#define INFO(...) p4_log(P4_LOG_INFO, __VA_ARGS__)
#define WARN(...) p4_log(P4_LOG_WARN, __VA_ARGS__)

/* From here on each line starts with the time (UTC). */
void p4_log_set_times(bool times);

/* One live progress line: done/total, rate, time left. On a terminal it is redrawn ten times a second at
 * most, in a form that fits its width; in a file it is one line every five seconds at most. Silent on ranks
 * that do not speak and under
 * --quiet. */
typedef struct p4_progress {
    const char *label, *unit;
    double started_s, shown_s, total, done;
    double from;    /* done before the line started; 0 unless the caller sets it */
    double after_s; /* p4_progress_set_after's */
    bool drawn;
} p4_progress;
/* For the lines that start from here on: the seconds that the run will take after the work that they show,
 * NAN: not known. */
void p4_progress_set_after(double seconds);
void p4_progress_start(p4_progress *progress, const char *label, const char *unit, double total);
void p4_progress_update(p4_progress *progress, double done, const char *note);
void p4_progress_end(p4_progress *progress);

/* "1.5 GB", "12 kB": into a caller's buffer of 32 bytes, which is returned. */
char *p4_format_bytes(char buffer[32], double bytes);

/* A value with its decimals, "infinite" or "not a number": into a caller's buffer, which is returned. */
enum { P4_NUMBER_BYTES = 48 };
char *p4_format_number(char buffer[P4_NUMBER_BYTES], double value, int decimals);

static inline int64_t p4_min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static inline int64_t p4_max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}
static inline int64_t p4_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}
/* The ending of a noun behind a count. */
static inline const char *p4_plural(int64_t count)
{
    return count == 1 ? "" : "s";
}

#endif
