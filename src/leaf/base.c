#include "src/leaf/base.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "src/leaf/escape.h"

enum { MESSAGE_BYTES = 16384 };

static _Thread_local char error_text[MESSAGE_BYTES];

const char *p4_last_error(void)
{
    return error_text;
}

p4_rc p4_fail(p4_rc rc, const char *format, ...)
{
    if (error_text[0] == '\0') {
        char text[MESSAGE_BYTES];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        (void)p4_escape(error_text, sizeof error_text, text, sizeof text);
    }
    return rc;
}

p4_rc p4_fail_lines(p4_rc rc, const char *lines)
{
    if (error_text[0] == '\0') {
        p4_error_set(lines);
    }
    return rc;
}

void p4_error_print(void)
{
    const char *line = error_text;
    for (const char *end = strchr(line, '\n'); end != NULL; line = end + 1, end = strchr(line, '\n')) {
        fprintf(stderr, "phase4: error: %.*s\n", (int)(end - line), line);
    }
    fprintf(stderr, "phase4: error: %s\n", line);
}

void p4_error_clear(void)
{
    error_text[0] = '\0';
}

void p4_error_set(const char *message)
{
    snprintf(error_text, sizeof error_text, "%s", message);
}

bool p4_mul3(uint64_t *product, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t ab;
    return !__builtin_mul_overflow(a, b, &ab) && !__builtin_mul_overflow(ab, c, product);
}

static void out_of_memory(size_t count, size_t each_bytes)
{
    (void)FAULT("out of memory: %zu x %zu bytes could not be allocated", count, each_bytes);
}

void *p4_alloc(size_t count, size_t each_bytes)
{
    void *memory = calloc(count > 0 ? count : 1, each_bytes > 0 ? each_bytes : 1);
    if (memory == NULL) {
        out_of_memory(count, each_bytes);
    }
    return memory;
}

void *p4_alloc_large(size_t bytes)
{
    void *memory = p4_alloc(bytes, 1);
#ifdef MADV_HUGEPAGE
    const size_t least = (size_t)4 << 20; /* smaller blocks may hold no large page, or be part of the heap */
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)memory + page - 1) / page * page,
              end = ((uintptr_t)memory + bytes) / page * page;
    if (memory != NULL && bytes >= least) {
        (void)madvise((void *)first, end - first, MADV_HUGEPAGE); /* advice */
    }
#endif
    return memory;
}

void *p4_resize(void *old, size_t count, size_t each_bytes)
{
    size_t bytes;
    void *memory = NULL;
    if (!__builtin_mul_overflow(count, each_bytes, &bytes)) {
        memory = realloc(old, bytes > 0 ? bytes : 1);
    }
    if (memory == NULL) {
        out_of_memory(count, each_bytes);
    }
    return memory;
}

void *p4_grow(void *array, int64_t count, int64_t *capacity, size_t each_bytes)
{
    enum { FIRST = 64 };
    if (count < *capacity) {
        return array;
    }
    int64_t wanted = *capacity > 0 ? 2 * *capacity : FIRST;
    void *grown = p4_resize(array, (size_t)wanted, each_bytes);
    *capacity = grown != NULL ? wanted : *capacity;
    return grown;
}

char *p4_strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = p4_alloc(bytes, 1);
    if (copy != NULL) {
        memcpy(copy, text, bytes);
    }
    return copy;
}

char *p4_format(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = length < 0 ? NULL : p4_alloc((size_t)length + 1, 1);
    if (text != NULL) {
        va_start(args, format);
        vsnprintf(text, (size_t)length + 1, format, args);
        va_end(args);
    }
    return text;
}

double p4_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

char *p4_utc_now(char buffer[P4_TIME_BYTES])
{
    time_t now = time(NULL);
    struct tm utc;
    buffer[0] = '\0';
    if (gmtime_r(&now, &utc) != NULL) {
        strftime(buffer, P4_TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &utc);
    }
    return buffer;
}

char *p4_format_number(char buffer[P4_NUMBER_BYTES], double value, int decimals)
{
    if (isfinite(value)) {
        snprintf(buffer, P4_NUMBER_BYTES, fabs(value) < 1e15 ? "%.*f" : "%.*g",
                 fabs(value) < 1e15 ? decimals : 6, value);
    } else {
        snprintf(buffer, P4_NUMBER_BYTES, isnan(value) ? "not a number" : "infinite");
    }
    return buffer;
}

char *p4_format_bytes(char buffer[32], double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    while (bytes >= 1024.0 && unit + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1024.0;
        unit++;
    }
    snprintf(buffer, 32, unit == 0 ? "%.0f %s" : "%.2f %s", bytes, units[unit]);
    return buffer;
}
