#include "io/batch/journal.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/json/write.h"
#include "src/leaf/hash.h"

enum { JOURNAL_BYTES = 1 << 30, SLOTS_FIRST = 1024 };

const char *const p4_batch_event_names[P4_BATCH_EVENTS] = {[P4_BATCH_STARTED] = "started",
                                                           [P4_BATCH_DONE] = "done",
                                                           [P4_BATCH_VERDICT] = "verdict_failed",
                                                           [P4_BATCH_FAILED] = "failed",
                                                           [P4_BATCH_STOPPED] = "stopped"};

/* ---- records ---- */

typedef struct number {
    const char *key;
    size_t offset;
} number;
static const number reals[] = {{"seconds", offsetof(p4_batch_record, seconds)},
                               {"pre_perplexity", offsetof(p4_batch_record, pre_perplexity)},
                               {"perplexity", offsetof(p4_batch_record, perplexity)},
                               {"compression_ratio", offsetof(p4_batch_record, compression_ratio)},
                               {"compressed_size_mb", offsetof(p4_batch_record, compressed_mb)},
                               {"peak_memory_mb", offsetof(p4_batch_record, peak_memory_mb)},
                               {"held_memory_mb", offsetof(p4_batch_record, held_memory_mb)}};
static const number wholes[] = {{"attempt", offsetof(p4_batch_record, attempt)},
                                {"ranks", offsetof(p4_batch_record, ranks)},
                                {"first_rank", offsetof(p4_batch_record, first_rank)},
                                {"warnings", offsetof(p4_batch_record, warnings)},
                                {"status", offsetof(p4_batch_record, status)}};
enum { REALS = sizeof reals / sizeof reals[0], WHOLES = sizeof wholes / sizeof wholes[0] };

static double *real_at(const p4_batch_record *record, int i)
{
    return (double *)(void *)((char *)(uintptr_t)record + reals[i].offset);
}

static int64_t *whole_at(const p4_batch_record *record, int i)
{
    return (int64_t *)(void *)((char *)(uintptr_t)record + wholes[i].offset);
}

void p4_batch_record_init(p4_batch_record *record)
{
    *record = (p4_batch_record){.event = P4_BATCH_STARTED};
    for (int i = 0; i < REALS; i++) {
        *real_at(record, i) = NAN;
    }
}

void p4_batch_record_free(p4_batch_record *record)
{
    free(record->name);
    free(record->output_path);
    free(record->error);
    record->name = record->output_path = record->error = NULL;
}

bool p4_batch_record_put(void *object, const p4_batch_record *r)
{
    bool ok = p4_json_put_text(object, "name", r->name) &&
              p4_json_put_text(object, "event", p4_batch_event_names[r->event]) &&
              p4_json_put_text(object, "time", r->time) &&
              (r->ended[0] == '\0' || p4_json_put_text(object, "ended", r->ended));
    for (int i = 0; ok && i < WHOLES; i++) {
        ok = p4_json_put_whole(object, wholes[i].key, *whole_at(r, i));
    }
    ok = ok && p4_json_put_text(object, "output_path", r->output_path != NULL ? r->output_path : "") &&
         p4_json_put_text(object, "config_fingerprint", r->config) &&
         (r->defaults[0] == '\0' || p4_json_put_text(object, "defaults_fingerprint", r->defaults)) &&
         p4_json_put_text(object, "model_fingerprint", r->model);
    for (int i = 0; ok && i < REALS; i++) {
        const p4_json_real real = {reals[i].key, *real_at(r, i)};
        ok = !isfinite(real.value) || p4_json_put_reals(object, &real, 1);
    }
    return ok && (r->error == NULL || r->error[0] == '\0' || p4_json_put_text(object, "error", r->error));
}

static char *copy_text(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return p4_strdup(text != NULL ? text : "");
}

static void take_text(char *to, size_t room, const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    snprintf(to, room, "%s", text != NULL ? text : "");
}

/* false: the object is no event. An allocation that failed leaves a NULL. */
static bool read_record(p4_batch_record *r, const cJSON *object)
{
    const char *event = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "event"));
    int at = 0;
    p4_batch_record_init(r);
    while (at < P4_BATCH_EVENTS && (event == NULL || strcmp(event, p4_batch_event_names[at]) != 0)) {
        at++;
    }
    r->event = (p4_batch_event)at;
    for (int i = 0; i < WHOLES; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, wholes[i].key);
        *whole_at(r, i) =
            cJSON_IsNumber(item) && fabs(item->valuedouble) < 1e15 ? (int64_t)item->valuedouble : 0;
    }
    for (int i = 0; i < REALS; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, reals[i].key);
        *real_at(r, i) = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    }
    take_text(r->config, sizeof r->config, object, "config_fingerprint");
    take_text(r->defaults, sizeof r->defaults, object, "defaults_fingerprint");
    take_text(r->model, sizeof r->model, object, "model_fingerprint");
    take_text(r->time, sizeof r->time, object, "time");
    take_text(r->ended, sizeof r->ended, object, "ended");
    r->name = copy_text(object, "name");
    r->output_path = copy_text(object, "output_path");
    r->error = copy_text(object, "error");
    return at < P4_BATCH_EVENTS && r->name != NULL && r->name[0] != '\0' && r->attempt > 0;
}

/* ---- reading ---- */

/* What is known of one model. Without a name in `newest`: a free slot. */
typedef struct known_model {
    p4_batch_record newest; /* of the newest attempt */
    p4_batch_record done;   /* of the newest attempt that was completed; without a name: none was */
} known_model;

struct p4_journal_state {
    int64_t count, slots; /* slots: a power of two, at least twice the count */
    known_model *at;      /* [slots] */
};

static known_model *find_slot(const p4_journal_state *state, const char *name)
{
    uint64_t hash = p4_hash(P4_HASH_START, name, strlen(name));
    int64_t i = (int64_t)(hash & (uint64_t)(state->slots - 1));
    while (state->at[i].newest.name != NULL && strcmp(state->at[i].newest.name, name) != 0) {
        i = (i + 1) & (state->slots - 1);
    }
    return &state->at[i];
}

static p4_rc grow(p4_journal_state *state)
{
    p4_journal_state larger = {.count = state->count,
                               .slots = state->slots > 0 ? 2 * state->slots : SLOTS_FIRST};
    larger.at = p4_alloc((size_t)larger.slots, sizeof *larger.at);
    if (larger.at == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < state->slots; i++) {
        if (state->at[i].newest.name != NULL) {
            *find_slot(&larger, state->at[i].newest.name) = state->at[i];
        }
    }
    free(state->at);
    *state = larger;
    return P4_OK;
}

static bool is_completed(const p4_batch_record *record)
{
    return record->event == P4_BATCH_DONE || record->event == P4_BATCH_VERDICT;
}

/* A copy with texts of its own. */
static p4_rc copy_record(p4_batch_record *to, const p4_batch_record *from)
{
    p4_rc rc = P4_OK;
    p4_batch_record made = *from;
    made.name = p4_strdup(from->name);
    made.output_path = p4_strdup(from->output_path != NULL ? from->output_path : "");
    made.error = p4_strdup(from->error != NULL ? from->error : "");
    if (made.name == NULL || made.output_path == NULL || made.error == NULL) {
        p4_batch_record_free(&made);
        rc = P4_E_SYSTEM;
    } else {
        p4_batch_record_free(to);
        *to = made;
    }
    return rc;
}

/* Takes the record over. An older attempt's event, or a second end of the same one, does not count. */
static p4_rc take_record(p4_journal_state *state, p4_batch_record *record)
{
    p4_rc rc = P4_OK;
    TRY(2 * (state->count + 1) > state->slots ? grow(state) : P4_OK);
    known_model *known = find_slot(state, record->name);
    const p4_batch_record *newest = &known->newest;
    bool newer = newest->name == NULL || record->attempt > newest->attempt ||
                 (record->attempt == newest->attempt && newest->event == P4_BATCH_STARTED);
    if (newer) {
        TRY(is_completed(record) ? copy_record(&known->done, record) : P4_OK);
        state->count += newest->name == NULL;
        p4_batch_record_free(&known->newest);
        known->newest = *record;
        return P4_OK;
    }
done:
    p4_batch_record_free(record);
    return rc;
}

static p4_rc read_lines(p4_journal_state *state, const char *text, const char *path)
{
    p4_rc rc = P4_OK;
    int64_t line = 1;
    const char *end;
    for (const char *at = text; (end = strchr(at, '\n')) != NULL; at = end + 1, line++) {
        p4_batch_record record;
        cJSON *object = cJSON_ParseWithLength(at, (size_t)(end - at));
        bool is_event = object != NULL && read_record(&record, object);
        if (!is_event && object != NULL) {
            p4_batch_record_free(&record);
        }
        cJSON_Delete(object);
        CHECK(is_event,
              "%s:%lld: is no event of a batch: expected a JSON object with event, name and attempt", path,
              (long long)line);
        TRY(take_record(state, &record));
    }
done:
    return rc;
}

/* Bytes that are in no line yet are an unfinished write. */
static p4_rc read_file(p4_journal_state *state, const char *directory, const char *task)
{
    p4_rc rc = P4_OK;
    char *text = NULL,
         *path = p4_format("%s/%s%s" P4_JOURNAL_FILE, directory, task, task[0] != '\0' ? "/" : "");
    size_t bytes = 0;
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    if (p4_file_exists(path)) {
        TRY(p4_file_read(&text, &bytes, path, JOURNAL_BYTES));
        TRY(read_lines(state, text, path));
    }
done:
    free(text);
    free(path);
    return rc;
}

p4_rc p4_journal_read(p4_journal_state **made, const char *directory)
{
    p4_rc rc = P4_OK;
    char **names = NULL;
    int64_t count = 0;
    p4_journal_state *state = *made = p4_alloc(1, sizeof *state);
    TRY(state != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(grow(state));
    if (p4_directory_exists(directory)) {
        TRY(read_file(state, directory, ""));
        TRY(p4_dir_list(&names, &count, directory));
    }
    for (int64_t i = 0; i < count; i++) {
        TRY(strncmp(names[i], "task-", 5) == 0 ? read_file(state, directory, names[i]) : P4_OK);
    }
done:
    p4_names_free(names, count);
    if (rc != P4_OK) {
        p4_journal_state_free(state);
        *made = NULL;
    }
    return rc;
}

void p4_journal_state_free(p4_journal_state *state)
{
    for (int64_t i = 0; state != NULL && i < state->slots; i++) {
        p4_batch_record_free(&state->at[i].newest);
        p4_batch_record_free(&state->at[i].done);
    }
    if (state != NULL) {
        free(state->at);
    }
    free(state);
}

const p4_batch_record *p4_journal_find(const p4_journal_state *state, const char *name)
{
    const p4_batch_record *found = &find_slot(state, name)->newest;
    return found->name != NULL ? found : NULL;
}

const p4_batch_record *p4_journal_find_done(const p4_journal_state *state, const char *name)
{
    const p4_batch_record *found = &find_slot(state, name)->done;
    return found->name != NULL ? found : NULL;
}

/* ---- writing ---- */

struct p4_journal {
    p4_hold *hold;
    int fd;
    bool damaged; /* a part of a line is at the end: another line would become one with it */
    char *path;
};

/* Removes what is behind the last newline. */
static p4_rc trim(const p4_journal *journal)
{
    p4_rc rc = P4_OK;
    struct stat status;
    char last = '\n';
    CHECK(fstat(journal->fd, &status) == 0, "%s: cannot be examined: %s", journal->path, strerror(errno));
    off_t bytes = status.st_size;
    for (; bytes > 0; bytes--) {
        CHECK(pread(journal->fd, &last, 1, bytes - 1) == 1, "%s: cannot be read: %s", journal->path,
              strerror(errno));
        if (last == '\n') {
            break;
        }
    }
    CHECK(bytes == status.st_size || ftruncate(journal->fd, bytes) == 0, "%s: cannot be shortened: %s",
          journal->path, strerror(errno));
done:
    return rc;
}

/* The hold speaks of runs; always an error. */
static p4_rc explain_hold(void)
{
    p4_rc rc = P4_E_SYSTEM;
    char *text = p4_strdup(p4_last_error());
    if (text != NULL) {
        p4_error_clear();
        rc = FAIL("%s (this is a batch's state directory, and only one batch may use it at a time; choose "
                  "another with --state)",
                  text);
    }
    free(text);
    return rc;
}

p4_rc p4_journal_open(p4_journal **made, const char *directory)
{
    p4_rc rc = P4_OK;
    p4_journal *journal = *made = p4_alloc(1, sizeof *journal);
    TRY(journal != NULL ? P4_OK : P4_E_SYSTEM);
    journal->fd = -1;
    journal->path = p4_format("%s/" P4_JOURNAL_FILE, directory);
    TRY(journal->path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_make_directories(directory));
    rc = p4_hold_take(&journal->hold, directory, P4_HOLD_BEAT_S);
    if (rc == P4_E_INPUT) {
        TRY(explain_hold());
    }
    TRY(rc);
    journal->fd = open(journal->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    CHECK(journal->fd >= 0, "%s: cannot be opened for writing: %s", journal->path, strerror(errno));
    TRY(trim(journal));
done:
    if (rc != P4_OK) {
        p4_journal_close(journal);
        *made = NULL;
    }
    return rc;
}

void p4_journal_close(p4_journal *journal)
{
    if (journal == NULL) {
        return;
    }
    if (journal->fd >= 0) {
        close(journal->fd);
    }
    p4_hold_release(journal->hold);
    free(journal->path);
    free(journal);
}

p4_rc p4_journal_append(p4_journal *journal, const p4_batch_record *record)
{
    p4_rc rc = P4_OK;
    char *line = NULL;
    CHECK(!journal->damaged,
          "%s: ends in a part of a line, which could not be removed; the next batch removes it",
          journal->path);
    cJSON *object = cJSON_CreateObject();
    line = p4_json_print(object, object != NULL && p4_batch_record_put(object, record), false);
    TRY(line != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_hold_check(journal->hold));
    size_t bytes = strlen(line), put = 0;
    ssize_t written = 1;
    while (put < bytes && (written = write(journal->fd, line + put, bytes - put)) > 0) {
        put += (size_t)written; /* a disk that is nearly full takes a part, and then says why not more */
    }
    if (put < bytes || fsync(journal->fd) != 0) {
        rc = p4_fail_errno(journal->path, "be written");
        journal->damaged = trim(journal) != P4_OK;
    }
done:
    free(line);
    return rc;
}
