#include "io/text/training_set.h"

#include "io/text/token_file.h"
#include "io/text/token_stream.h"
#include "io/text/training_layout.h"
#include "io/text/window_parts.h"
#include "src/leaf/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum {
    BLOCK_BYTES = 4 << 20, /* of steps that rank 0 sends at a time, unless one step is more */
    CHUNK_BYTES = 1 << 20, /* of one message, unless one window is more */
    FINGERPRINT_TOKENS = 1 << 26,
};

struct p4_training_set {
    p4_group *group; /* NULL: the windows are in memory */
    p4_training_layout layout;
    p4_token_file *files; /* [layout.file_count], mapped; NULL: this rank gets its tokens from rank 0 */
    p4_token_stream stream;
    char *temporary;  /* rank 0: a file that is removed at the end, or NULL */
    int64_t count;    /* windows that are trained on */
    int64_t unmapped; /* ranks that get their tokens from rank 0 */
    /* the schedule */
    uint64_t seed;
    int64_t sequences, low, high, steps_per_epoch;
    uint32_t *order;        /* [count] the windows of order_epoch, in their order */
    p4_mixed_windows mixed; /* of those that are trained on */
    uint32_t *work;         /* [2 * count], if they are mixed */
    int64_t order_epoch, step;
    /* what rank 0 sends: the sequences of `block_steps` steps, from step `block` times that on */
    int64_t block_steps, block;
    int32_t *held;  /* [block_steps][high - low][T] this rank's, if it has no files */
    int32_t *chunk; /* [chunk_windows][T] */
    int64_t chunk_windows;
};

/* ---- files ---- */

static p4_rc map_file(p4_training_set *set, int64_t i)
{
    p4_rc rc = P4_OK;
    const p4_training_file *file = &set->layout.files[i];
    const char *path = set->layout.names + file->path_at;
    char fingerprint[P4_FINGERPRINT_BYTES];
    TRY(p4_fingerprint_file(fingerprint, path));
    CHECK(strcmp(fingerprint, file->fingerprint) == 0, "%s: is another file here (%s) than on rank 0 (%s)",
          path, fingerprint, file->fingerprint);
    TRY(p4_token_file_map(&set->files[i], path, file->form, file->ids_at, (int)file->id_bytes, file->count));
done:
    return rc;
}

static void unmap(p4_training_set *set)
{
    for (int64_t i = 0; set->files != NULL && i < set->layout.file_count; i++) {
        p4_token_file_close(&set->files[i]);
    }
    free(set->files);
    set->files = NULL;
    p4_token_stream_free(&set->stream);
}

/* Maps all files, or none. Local. */
static p4_rc map(p4_training_set *set)
{
    p4_rc rc = P4_OK;
    const p4_training_layout *layout = &set->layout;
    set->files = p4_alloc((size_t)layout->file_count, sizeof *set->files);
    TRY(set->files != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < layout->file_count; i++) {
        TRY(map_file(set, i));
    }
    for (int64_t i = 0; i < layout->part_count; i++) {
        const p4_training_part *part = &layout->parts[i];
        const p4_token_file *file = &set->files[part->file];
        TRY(p4_token_stream_add(&set->stream, (const char *)file->ids + part->first * file->id_bytes,
                                file->id_bytes, part->count));
    }
done:
    if (rc != P4_OK) {
        unmap(set);
    }
    return rc;
}

/* Every rank maps the files if it can; the log says why the first that cannot does not. *mapped: how many do,
 * *place: how many before this one do. Collective. */
static p4_rc map_all(p4_training_set *set, int64_t *mapped, int64_t *place)
{
    p4_rc rc = P4_OK;
    p4_group *group = set->group;
    double *maps = p4_alloc((size_t)group->ranks, sizeof *maps);
    TRY_ALL(group, maps != NULL ? P4_OK : P4_E_SYSTEM);
    p4_rc here = map(set);
    maps[group->rank] = here == P4_OK;
    TRY_ROOT(group, here);
    bool all = p4_consult(group, here) == P4_OK;
    p4_group_sum_f64(group, maps, group->ranks);
    *mapped = *place = 0;
    for (int rank = 0; rank < group->ranks; rank++) {
        *mapped += maps[rank] > 0;
        *place += maps[rank] > 0 && rank < group->rank;
    }
    set->unmapped = group->ranks - *mapped;
    if (!all) {
        WARN("warning: %lld of %d ranks cannot read the files of training tokens, and get them from rank 0: "
             "%s",
             (long long)set->unmapped, group->ranks, p4_last_error());
        p4_error_clear();
    }
done:
    free(maps);
    return rc;
}

/* This rank's share of looking at every id of the token files. ends [file_count] is added to. Local. */
static p4_rc check_share(const p4_training_set *set, int64_t mapped, int64_t place, double *ends)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; set->files != NULL && i < set->layout.file_count; i++) {
        const p4_token_file *file = &set->files[i];
        int64_t first = file->count / mapped * place, found = 0;
        int64_t end = place + 1 < mapped ? first + file->count / mapped : file->count;
        if (file->form[0] != '\0') {
            TRY(p4_token_file_check(file, first, end - first, set->layout.vocab, (int32_t)set->layout.end_id,
                                    &found));
        }
        ends[i] += (double)found;
    }
done:
    return rc;
}

/* The ranks that map the files share the work. Collective. */
static p4_rc check_ids(p4_training_set *set, int64_t mapped, int64_t place)
{
    p4_rc rc = P4_OK;
    p4_group *group = set->group;
    double *ends = p4_alloc((size_t)set->layout.file_count, sizeof *ends);
    TRY_ALL(group, ends != NULL ? P4_OK : P4_E_SYSTEM);
    TRY_ALL(group, check_share(set, mapped, place, ends));
    p4_group_sum_f64(group, ends, set->layout.file_count);
    for (int64_t i = 0; group->rank == 0 && i < set->layout.file_count; i++) {
        if (set->files[i].form[0] != '\0') {
            p4_token_file_warn_of_ends(&set->files[i], (int32_t)set->layout.end_id, (int64_t)ends[i],
                                       set->files[i].count);
        }
    }
done:
    free(ends);
    return rc;
}

/* Local. */
static p4_rc read_aside(const p4_training_set *set, p4_windows *aside)
{
    const p4_training_layout *layout = &set->layout;
    if (aside == NULL) {
        return P4_OK;
    }
    *aside = (p4_windows){
        .count = layout->aside_count, .T = layout->T, .tokens_total = layout->aside_count * layout->T};
    aside->ids = p4_alloc((size_t)(aside->count * aside->T), sizeof *aside->ids);
    if (aside->ids == NULL) {
        return P4_E_SYSTEM;
    }
    int64_t *begins = p4_alloc((size_t)aside->count, sizeof *begins);
    if (begins == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < aside->count; i++) {
        begins[i] = layout->aside[i] * aside->T;
        p4_token_stream_read(&set->stream, aside->ids + i * aside->T, begins[i], aside->T);
    }
    const p4_document_map map = {.stream = &set->stream, .end_id = (int32_t)layout->end_id};
    p4_rc rc = p4_window_parts_find(aside, &map, begins);
    free(begins);
    return rc;
}

/* ---- opening ---- */

/* What of each source of a mixture is trained on: a source that is all set aside is an error. The same on
 * every rank. Local. */
static p4_rc mix_trained(p4_training_set *set)
{
    p4_rc rc = P4_OK;
    const p4_training_layout *layout = &set->layout;
    int64_t before = 0, aside = 0;
    set->mixed = layout->mixed;
    for (int64_t s = 0; s < set->mixed.source_count; s++) {
        while (aside < layout->aside_count && layout->aside[aside] < layout->mixed.end[s]) {
            aside++;
        }
        set->mixed.end[s] -= aside;
        CHECK(set->mixed.end[s] > before,
              "training data: all windows of entry %lld of the files, which has a weight, are set aside for "
              "evaluation; give eval_files",
              (long long)s + 1);
        before = set->mixed.end[s];
    }
done:
    return rc;
}

p4_rc p4_training_set_open(p4_training_set **set, p4_group *group, const p4_training_source *source,
                           p4_windows *aside)
{
    p4_rc rc = P4_OK;
    int64_t mapped = 0, place = 0;
    p4_training_set *made = *set = p4_alloc(1, sizeof *made);
    TRY_ALL(group, made != NULL ? P4_OK : P4_E_SYSTEM);
    made->group = group;
    TRY_ROOT(group, p4_training_layout_make(&made->layout, source, &made->temporary));
    TRY(p4_training_layout_share(&made->layout, group));
    made->count = made->layout.windows - made->layout.aside_count;
    TRY_ALL(group, mix_trained(made));
    TRY(map_all(made, &mapped, &place));
    TRY(check_ids(made, mapped, place));
    TRY_ROOT(group, read_aside(made, aside));
done:
    if (rc != P4_OK) {
        p4_training_set_close(made);
        *set = NULL;
    }
    return rc;
}

p4_rc p4_training_set_of_windows(p4_training_set **set, const p4_windows *windows)
{
    p4_training_set *made = *set = p4_alloc(1, sizeof *made);
    if (made == NULL) {
        return P4_E_SYSTEM;
    }
    made->layout.T = windows->T;
    made->layout.windows = made->count = windows->count;
    p4_rc rc = p4_token_stream_add(&made->stream, windows->ids, (int)sizeof *windows->ids,
                                   windows->count * windows->T);
    if (rc != P4_OK) {
        p4_training_set_close(made);
        *set = NULL;
    }
    return rc;
}

void p4_training_set_close(p4_training_set *set)
{
    if (set != NULL) {
        unmap(set);
        if (set->temporary != NULL) {
            unlink(set->temporary);
        }
        p4_training_layout_free(&set->layout);
        free(set->temporary);
        free(set->order);
        free(set->work);
        free(set->held);
        free(set->chunk);
        free(set);
    }
}

int64_t p4_training_set_count(const p4_training_set *set)
{
    return set->count;
}

int64_t p4_training_set_length(const p4_training_set *set)
{
    return set->layout.T;
}

/* ---- drawing ---- */

p4_rc p4_training_set_schedule(p4_training_set *set, uint64_t seed, int64_t sequences, int64_t low,
                               int64_t high)
{
    p4_rc rc = P4_OK;
    const int64_t T = set->layout.T, window_bytes = T * (int64_t)sizeof *set->held;
    CHECK(sequences >= 1 && sequences <= set->count && low >= 0 && low <= high && high <= sequences,
          "sequences %lld to %lld of %lld a step, of %lld windows: out of range", (long long)low,
          (long long)high, (long long)sequences, (long long)set->count);
    CHECK(set->count <= UINT32_MAX, "%lld training windows, expected at most %lld", (long long)set->count,
          (long long)UINT32_MAX);
    set->seed = seed;
    set->sequences = sequences;
    set->low = low;
    set->high = high;
    set->steps_per_epoch = set->count / sequences;
    set->order_epoch = set->block = set->step = -1;
    free(set->order);
    set->order = p4_alloc((size_t)set->count, sizeof *set->order);
    TRY(set->order != NULL ? P4_OK : P4_E_SYSTEM);
    if (set->mixed.source_count > 0) {
        free(set->work);
        set->work = p4_alloc(2 * (size_t)set->count, sizeof *set->work);
        TRY(set->work != NULL ? P4_OK : P4_E_SYSTEM);
    }
    if (set->unmapped > 0) {
        set->block_steps = p4_max_i64(1, BLOCK_BYTES / (sequences * window_bytes));
        set->chunk_windows = p4_max_i64(1, CHUNK_BYTES / window_bytes);
        free(set->held);
        free(set->chunk);
        set->held = set->files == NULL
                        ? p4_alloc((size_t)(set->block_steps * (high - low) * T), sizeof *set->held)
                        : NULL;
        set->chunk = p4_alloc((size_t)(set->chunk_windows * T), sizeof *set->chunk);
        TRY(set->chunk != NULL && (set->held != NULL || set->files != NULL) ? P4_OK : P4_E_SYSTEM);
    }
done:
    return rc;
}

/* The window of the stream that is window `at` of those trained on: those set aside are passed over. */
static int64_t window_of(const p4_training_set *set, int64_t at)
{
    const int64_t *aside = set->layout.aside;
    int64_t low = 0,
            high = set->layout.aside_count; /* `low` windows are set aside before it, or up to `high` */
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (aside[middle] - middle <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return at + low;
}

void p4_training_set_window(const p4_training_set *set, int32_t *ids, int64_t at)
{
    p4_token_stream_read(&set->stream, ids, window_of(set, at) * set->layout.T, set->layout.T);
}

int64_t p4_training_set_drawn(p4_training_set *set, int64_t step, int64_t at)
{
    const int64_t epoch = step / set->steps_per_epoch;
    if (set->order_epoch != epoch && set->mixed.source_count > 0) {
        p4_mixed_order(set->order, set->work, &set->mixed, set->seed, epoch);
    } else if (set->order_epoch != epoch) {
        p4_rng_permutation(set->order, (uint32_t)set->count, set->seed, (uint64_t)epoch + 1);
    }
    set->order_epoch = epoch;
    return (int64_t)set->order[step % set->steps_per_epoch * set->sequences + at];
}

/* Sequence `at` of a step, out of the files. */
static void read_sequence(p4_training_set *set, int32_t *ids, int64_t step, int64_t at)
{
    p4_training_set_window(set, ids, p4_training_set_drawn(set, step, at));
}

p4_rc p4_training_set_fingerprint(const p4_training_set *set, char fingerprint[P4_FINGERPRINT_BYTES])
{
    const int64_t T = set->layout.T;
    int64_t looked_at = p4_max_i64(1, p4_min_i64(set->count, FINGERPRINT_TOKENS / T));
    int32_t *ids = p4_alloc((size_t)T, sizeof *ids);
    uLong crc = crc32(0, Z_NULL, 0);
    if (ids == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < looked_at; i++) {
        int64_t window = (int64_t)((double)i / (double)looked_at * (double)set->count);
        p4_token_stream_read(&set->stream, ids, window_of(set, window) * T, T);
        crc = crc32_z(crc, (const Bytef *)ids, (size_t)T * sizeof *ids);
    }
    free(ids);
    snprintf(fingerprint, P4_FINGERPRINT_BYTES, "crc32:%08lx:%lldx%lld", crc, (long long)set->count,
             (long long)T);
    return P4_OK;
}

/* Takes what of a chunk, windows [first, first + count) of a step, is this rank's. */
static void keep_own(p4_training_set *set, int64_t step, int64_t first, int64_t count)
{
    const int64_t T = set->layout.T, share = set->high - set->low;
    int64_t from = p4_max_i64(first, set->low), to = p4_min_i64(first + count, set->high);
    if (set->files == NULL && from < to) {
        memcpy(set->held + (step % set->block_steps * share + from - set->low) * T,
               set->chunk + (from - first) * T, (size_t)((to - from) * T) * sizeof *set->held);
    }
}

/* Rank 0 sends the sequences of a block of steps. Collective. */
static void send_block(p4_training_set *set, int64_t block)
{
    const int64_t T = set->layout.T;
    for (int64_t step = block * set->block_steps; step < (block + 1) * set->block_steps; step++) {
        for (int64_t first = 0; first < set->sequences; first += set->chunk_windows) {
            int64_t count = p4_min_i64(set->chunk_windows, set->sequences - first);
            for (int64_t i = 0; set->group->rank == 0 && i < count; i++) {
                read_sequence(set, set->chunk + i * T, step, first + i);
            }
            p4_group_bcast(set->group, set->chunk, count * T * (int64_t)sizeof *set->chunk, 0);
            keep_own(set, step, first, count);
        }
    }
    set->block = block;
}

void p4_training_set_step(p4_training_set *set, int64_t step)
{
    set->step = step;
    if (set->unmapped > 0 && step / set->block_steps != set->block) {
        send_block(set, step / set->block_steps);
    }
}

void p4_training_set_sequences(p4_training_set *set, int32_t *ids, int64_t from, int64_t count)
{
    const int64_t T = set->layout.T, share = set->high - set->low;
    if (set->held != NULL) {
        memcpy(ids, set->held + (set->step % set->block_steps * share + from - set->low) * T,
               (size_t)(count * T) * sizeof *ids);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        read_sequence(set, ids + i * T, set->step, from + i);
    }
}
