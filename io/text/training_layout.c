#include "io/text/training_layout.h"

#include "io/file/atomic_file.h"
#include "io/text/dataset_parts.h"
#include "io/text/sample.h"
#include "io/text/token_cache.h"
#include "io/text/token_file.h"
#include "src/leaf/count.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is being put together. */
typedef struct work {
    p4_training_layout *layout;
    const p4_training_source *source;
    p4_texts texts;
    p4_draw *draws;
    bool has_text, has_tokens;
    char *cache_path;
    p4_token_cache cache;
    p4_text_counts counts;
} work;

/* ---- text ---- */

/* Makes the cache. In a folder that other runs use they may be making it at the same time: each writes a file
 * of its own name, and puts it in place when it is complete. */
static p4_rc make_cache(work *w, const char *key)
{
    p4_rc rc = P4_OK;
    char host[64] = "", *own = NULL;
    const bool shared = w->source->cache_folder[0] != '\0';
    (void)gethostname(host, sizeof host - 1);
    own = shared ? p4_format("%s.%s-%ld", w->cache_path, host, (long)getpid()) : p4_strdup(w->cache_path);
    TRY(own != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_token_cache_make(own, key, &w->texts, &w->source->how, &w->counts));
    if (shared && rename(own, w->cache_path) != 0) {
        rc = p4_fail_errno(w->cache_path, "put the finished file in place");
        unlink(own);
    }
done:
    free(own);
    return rc;
}

/* What messages begin with. */
static const char *what_of(const p4_training_source *source)
{
    return source->how.opt_what != NULL ? source->how.opt_what : "training data";
}

/* The cache of the texts: one that is there, or else it is made. */
static p4_rc open_cache(work *w)
{
    p4_rc rc = P4_OK;
    char count[P4_COUNT_BYTES];
    bool found = false, keeps = w->source->cache_folder[0] != '\0';
    char *key = NULL;
    if (keeps) {
        TRY(p4_token_cache_key(&key, &w->texts, &w->source->how));
    } else { /* nobody looks for it: the text is not read for fingerprints */
        key = p4_strdup("temporary\n");
        TRY(key != NULL ? P4_OK : P4_E_SYSTEM);
    }
    free(w->cache_path);
    w->cache_path =
        keeps ? p4_token_cache_path(w->source->cache_folder, key) : p4_strdup(w->source->temporary);
    TRY(w->cache_path != NULL ? P4_OK : P4_E_SYSTEM);
    if (keeps) {
        TRY(p4_make_directories(w->source->cache_folder));
        TRY(p4_token_cache_open(&w->cache, w->cache_path, key, &found));
    }
    if (!found) {
        TRY(make_cache(w, key));
        TRY(p4_token_cache_open(&w->cache, w->cache_path, key, &found));
        CHECK(found && w->cache.text_count == w->texts.count, "%s: was written and cannot be read again",
              w->cache_path);
    }
    INFO("      %s tokens of %s text %s %s", p4_format_count(count, w->cache.count),
         w->draws != NULL ? "a sample of the" : "the", w->counts.documents > 0 ? "tokenized into" : "from",
         w->cache_path);
done:
    free(key);
    return rc;
}

/* Tokenizes enough for the windows that are needed. Beside token files all is: they have all windows too. */
static p4_rc open_text(work *w)
{
    p4_rc rc = P4_OK;
    const p4_training_source *source = w->source;
    int64_t wanted = source->windows > 0 ? source->windows + source->aside : 0;
    for (int attempt = 0;; attempt++) {
        free(w->draws);
        w->draws = NULL;
        if (wanted > 0 && !w->has_tokens) {
            TRY(p4_plan_draws(&w->draws, source->paths, source->path_count, &source->how, wanted, attempt));
        }
        w->texts.draws = w->draws;
        TRY(open_cache(w));
        if (w->draws == NULL || w->cache.count / source->how.T >= wanted) {
            break;
        }
        p4_token_cache_close(&w->cache);
        unlink(w->cache_path); /* it would never be used */
    }
done:
    return rc;
}

/* ---- the layout ---- */

static p4_rc add_file(p4_training_layout *layout, const p4_training_file *file, const char *path)
{
    size_t bytes = strlen(path) + 1;
    char *names = p4_resize(layout->names, (size_t)layout->name_bytes + bytes, 1);
    if (names == NULL) {
        return P4_E_SYSTEM;
    }
    memcpy(names + layout->name_bytes, path, bytes);
    layout->names = names;
    layout->files[layout->file_count] = *file;
    layout->files[layout->file_count].path_at = layout->name_bytes;
    layout->name_bytes += (int64_t)bytes;
    return p4_fingerprint_file(layout->files[layout->file_count++].fingerprint, path);
}

/* A token file, as a file and as the part `part` of the stream. */
static p4_rc add_token_file(work *w, int64_t part)
{
    p4_rc rc = P4_OK;
    const char *path = w->source->paths[part];
    p4_token_file file;
    TRY(p4_token_file_open(&file, path, w->source->how.vocab));
    p4_training_file entry = {.ids_at = (const char *)file.ids - (const char *)file.mapping,
                              .id_bytes = file.id_bytes,
                              .count = file.count};
    snprintf(entry.form, sizeof entry.form, "%s", file.form);
    p4_token_file_close(&file);
    w->layout->parts[part] = (p4_training_part){w->layout->file_count, 0, entry.count};
    TRY(add_file(w->layout, &entry, path));
done:
    return rc;
}

static p4_rc add_parts(work *w)
{
    p4_rc rc = P4_OK;
    p4_training_layout *layout = w->layout;
    const int64_t count = w->source->path_count;
    int64_t text_tokens = 0;
    layout->files = p4_alloc((size_t)count + 1, sizeof *layout->files);
    layout->parts = p4_alloc((size_t)count, sizeof *layout->parts);
    TRY(layout->files != NULL && layout->parts != NULL ? P4_OK : P4_E_SYSTEM);
    layout->part_count = count;
    if (w->has_text) {
        p4_training_file entry = {
            .ids_at = w->cache.ids_at, .id_bytes = w->cache.id_bytes, .count = w->cache.count};
        TRY(add_file(layout, &entry, w->cache_path));
    }
    for (int64_t i = 0; i < count; i++) {
        if (p4_data_kind_of(w->source->paths[i]) == P4_DATA_TOKENS) {
            TRY(add_token_file(w, i));
        } else {
            layout->parts[i] = (p4_training_part){0, text_tokens, w->cache.counts[i]};
            text_tokens += w->cache.counts[i];
        }
    }
done:
    return rc;
}

/* Picks the windows that are set aside. */
static p4_rc set_aside(work *w)
{
    p4_rc rc = P4_OK;
    p4_training_layout *layout = w->layout;
    const int64_t T = layout->T, total = layout->windows;
    int64_t tokens = 0, at = 0;
    p4_window_range *ranges = NULL;
    layout->aside_count = p4_min_i64(w->source->aside, p4_max_i64(1, total / 5));
    CHECK(
        layout->aside_count < total,
        "%s: one window of %lld tokens is all there is, none is left to evaluate on; give eval_files, or set "
        "eval_samples to 0",
        what_of(w->source), (long long)T);
    ranges = p4_alloc((size_t)layout->part_count, sizeof *ranges);
    layout->aside = p4_alloc((size_t)layout->aside_count, sizeof *layout->aside);
    TRY(ranges != NULL && layout->aside != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < layout->part_count; i++) {
        tokens += layout->parts[i].count;
        int64_t end = p4_min_i64(total, p4_ceil_div(tokens, T));
        ranges[i] = (p4_window_range){.count = end - at, .weight = 1};
        at = end;
    }
    TRY(p4_pick_windows(layout->aside, layout->aside_count, ranges, layout->part_count, NULL,
                        w->source->how.seed));
done:
    free(ranges);
    return rc;
}

/* Which windows belong to which source of a mixture: each to that in which it begins. */
static p4_rc mix(work *w)
{
    p4_rc rc = P4_OK;
    p4_training_layout *layout = w->layout;
    const p4_mixture *mixture = w->source->how.opt_mixture;
    int64_t tokens = 0, before = 0;
    if (mixture == NULL || mixture->source_count == 0) {
        return P4_OK;
    }
    layout->mixed.source_count = mixture->source_count;
    for (int64_t i = 0; i < layout->part_count; i++) {
        tokens += layout->parts[i].count;
        layout->mixed.end[mixture->source[i]] = p4_min_i64(layout->windows, p4_ceil_div(tokens, layout->T));
    }
    for (int64_t s = 0; s < mixture->source_count; s++) {
        layout->mixed.share[s] = mixture->share[s];
        CHECK(layout->mixed.end[s] > before,
              "%s: entry %lld of the files has a weight and holds less than one window of %lld tokens",
              what_of(w->source), (long long)s + 1, (long long)layout->T);
        before = layout->mixed.end[s];
    }
done:
    return rc;
}

p4_rc p4_training_layout_make(p4_training_layout *layout, const p4_training_source *source, char **temporary)
{
    p4_rc rc = P4_OK;
    work w = {
        .layout = layout, .source = source, .texts = {.paths = source->paths, .count = source->path_count}};
    int64_t tokens = 0;
    *temporary = NULL;
    layout->T = source->how.T;
    layout->vocab = source->how.vocab;
    layout->end_id = source->how.end_id;
    for (int64_t i = 0; i < source->path_count; i++) {
        bool is_tokens = p4_data_kind_of(source->paths[i]) == P4_DATA_TOKENS;
        w.has_tokens |= is_tokens;
        w.has_text |= !is_tokens;
    }
    if (w.has_text) {
        TRY(open_text(&w));
    }
    TRY(add_parts(&w));
    for (int64_t i = 0; i < layout->part_count; i++) {
        tokens += layout->parts[i].count;
    }
    layout->windows = tokens / layout->T;
    CHECK(layout->windows > 0,
          "%s: %s: %lld token%s, less than one window of %lld tokens: give more text or a smaller "
          "calibration_sequence_length",
          what_of(source), source->path_count == 1 ? source->paths[0] : "the files of text and tokens",
          (long long)tokens, p4_plural(tokens), (long long)layout->T);
    TRY(mix(&w));
    if (source->aside > 0) {
        TRY(set_aside(&w));
    }
done:
    if (w.has_text && source->cache_folder[0] == '\0') {
        *temporary = w.cache_path;
        w.cache_path = NULL;
    }
    p4_token_cache_close(&w.cache);
    free(w.draws);
    free(w.cache_path);
    return rc;
}

/* Rank 0's array to everyone. Collective. */
static p4_rc share_array(p4_group *group, void **array, int64_t count, size_t each_bytes)
{
    p4_rc rc = P4_OK;
    if (group->rank != 0) {
        *array = p4_alloc((size_t)count, each_bytes);
    }
    TRY_ALL(group, *array != NULL || count == 0 ? P4_OK : P4_E_SYSTEM);
    p4_group_bcast(group, *array, count * (int64_t)each_bytes, 0);
done:
    return rc;
}

p4_rc p4_training_layout_share(p4_training_layout *layout, p4_group *group)
{
    p4_rc rc = P4_OK;
    p4_training_layout all = *layout; /* the counts are rank 0's, the pointers are not */
    p4_group_bcast(group, &all, sizeof all, 0);
    all.files = layout->files;
    all.parts = layout->parts;
    all.aside = layout->aside;
    all.names = layout->names;
    *layout = all;
    TRY(share_array(group, (void **)&layout->files, layout->file_count, sizeof *layout->files));
    TRY(share_array(group, (void **)&layout->parts, layout->part_count, sizeof *layout->parts));
    TRY(share_array(group, (void **)&layout->aside, layout->aside_count, sizeof *layout->aside));
    TRY(share_array(group, (void **)&layout->names, layout->name_bytes, 1));
done:
    return rc;
}

void p4_training_layout_free(p4_training_layout *layout)
{
    free(layout->files);
    free(layout->parts);
    free(layout->aside);
    free(layout->names);
    *layout = (p4_training_layout){.files = NULL};
}
