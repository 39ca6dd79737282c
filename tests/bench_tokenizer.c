/* bench_tokenizer.c - how fast one core tokenises: MB/s (10^6 bytes) of a text, repeated to at least 20 MB.
 *
 *     bench_tokenizer MODEL_DIRECTORY TEXT_FILE [MEGABYTES]
 *
 * The whole text is one document first, then every line is one. The best of three runs each, with fresh
 * scratch memory (a cold piece cache), in processor time, so that other programs on the machine do not count.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/file/files.h"
#include "io/tokenizer/tokenizer.h"

typedef struct text {
    char *data;
    size_t bytes;
} text;

static p4_rc read_repeated(text *whole, const char *path, size_t least_bytes)
{
    p4_rc rc = P4_OK;
    char *once = NULL;
    size_t bytes = 0;
    TRY(p4_file_read(&once, &bytes, path, (size_t)1 << 30));
    CHECK(bytes > 0, "%s: an empty text", path);
    size_t times = least_bytes / bytes + 1;
    whole->data = p4_alloc(times, bytes);
    if (whole->data == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    for (size_t i = 0; i < times; i++) {
        memcpy(whole->data + i * bytes, once, bytes);
    }
    whole->bytes = times * bytes;
done:
    free(once);
    return rc;
}

static double processor_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static p4_rc run(const p4_tokenizer *tokenizer, const text *whole, bool by_line, double *seconds,
                 int64_t *tokens)
{
    p4_rc rc = P4_OK;
    p4_tokenizer_scratch *scratch = NULL;
    p4_ids ids = {0};
    *tokens = 0;
    TRY(p4_tokenizer_scratch_create(&scratch, tokenizer));
    double started = processor_s();
    const char *at = whole->data, *end = whole->data + whole->bytes;
    while (at < end) {
        const char *newline = by_line ? memchr(at, '\n', (size_t)(end - at)) : NULL;
        const char *stop = newline == NULL ? end : newline + 1;
        ids.count = 0;
        TRY(p4_tokenizer_encode(tokenizer, scratch, at, (size_t)(stop - at), false, &ids, NULL));
        *tokens += ids.count;
        at = stop;
    }
    *seconds = processor_s() - started;
done:
    p4_ids_free(&ids);
    p4_tokenizer_scratch_free(scratch);
    return rc;
}

static p4_rc measure(const p4_tokenizer *tokenizer, const text *whole, bool by_line)
{
    p4_rc rc = P4_OK;
    double best = 0.0;
    int64_t tokens = 0;
    for (int i = 0; i < 3; i++) {
        double seconds;
        TRY(run(tokenizer, whole, by_line, &seconds, &tokens));
        best = i == 0 || seconds < best ? seconds : best;
    }
    printf("%-14s %8.1f MB  %10lld tokens  %7.2f MB/s  %8.2f M tokens/s\n",
           by_line ? "line by line" : "one document", 1e-6 * (double)whole->bytes, (long long)tokens,
           1e-6 * (double)whole->bytes / best, 1e-6 * (double)tokens / best);
done:
    return rc;
}

int main(int count, char **arguments)
{
    p4_rc rc = P4_OK;
    p4_tokenizer *tokenizer = NULL;
    text whole = {0};
    CHECK(count == 3 || count == 4, "usage: bench_tokenizer MODEL_DIRECTORY TEXT_FILE [MEGABYTES]");
    double started = processor_s();
    TRY(p4_tokenizer_open(&tokenizer, arguments[1]));
    printf("opened in %.1f ms\n", 1e3 * (processor_s() - started));
    TRY(read_repeated(&whole, arguments[2], (size_t)(count == 4 ? atol(arguments[3]) : 20) * 1000000));
    TRY(measure(tokenizer, &whole, false));
    TRY(measure(tokenizer, &whole, true));
done:
    if (rc != P4_OK) {
        fprintf(stderr, "bench_tokenizer: %s\n", p4_last_error());
    }
    free(whole.data);
    p4_tokenizer_close(tokenizer);
    return rc == P4_OK ? 0 : 1;
}
