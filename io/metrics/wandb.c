#include "io/metrics/wandb.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <wandb.pb-c.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/metrics/times.h"
#include "io/metrics/wandb_log.h"
#include "src/leaf/hash.h"
#include "src/phase4.h"

enum { ID_BYTES = 8, KEY_BYTES = 96, VALUE_BYTES = 40, LAST_VALUES = 64 + 16 * P4_SETS_MAX };

typedef struct value {
    char key[KEY_BYTES], json[VALUE_BYTES];
} value;

struct p4_wandb {
    p4_wandb_log log;
    char *directory;
    char id[ID_BYTES + 1];
    int64_t records, step; /* written so far; of the next line of the history */
    double started;        /* Unix seconds */
    value last[LAST_VALUES];
    int last_count;
};

/* ---- records ---- */

/* Numbers the record, writes it. */
static p4_rc put_record(p4_wandb *w, P4Wandb__Record *record)
{
    record->has_num = true;
    record->num = ++w->records;
    size_t bytes = p4_wandb__record__get_packed_size(record);
    uint8_t *packed = p4_alloc(bytes, 1);
    if (packed == NULL) {
        return P4_E_SYSTEM;
    }
    p4_wandb__record__pack(record, packed);
    p4_rc rc = p4_wandb_log_write(&w->log, packed, bytes);
    free(packed);
    return rc;
}

/* Items in growing lists: keys and values are the caller's. */
typedef struct items {
    P4Wandb__Item *items, **list; /* heap */
    size_t count, capacity;
} items;

static p4_rc items_init(items *i, size_t capacity)
{
    *i = (items){.capacity = capacity};
    i->items = p4_alloc(capacity, sizeof *i->items);
    i->list = p4_alloc(capacity, sizeof *i->list);
    return i->items != NULL && i->list != NULL ? P4_OK : P4_E_SYSTEM;
}

static void items_add(items *i, char *key, char *json)
{
    P4Wandb__Item *item = &i->items[i->count];
    p4_wandb__item__init(item);
    item->key = key;
    item->value_json = json;
    i->list[i->count++] = item;
}

static void items_free(items *i)
{
    free(i->items);
    free(i->list);
}

/* The format has words for what JSON has not. */
static void print_real(char json[VALUE_BYTES], double number)
{
    if (isfinite(number)) {
        snprintf(json, VALUE_BYTES, "%.9g", number);
    } else {
        snprintf(json, VALUE_BYTES, "%s", isnan(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity");
    }
}

/* ---- the beginning ---- */

static p4_rc put_header(p4_wandb *w)
{
    char producer[P4_NAME_BYTES];
    P4Wandb__VersionInfo version = P4_WANDB__VERSION_INFO__INIT;
    P4Wandb__Header header = P4_WANDB__HEADER__INIT;
    P4Wandb__Record record = P4_WANDB__RECORD__INIT;
    snprintf(producer, sizeof producer, "phase4 %s", p4_version());
    version.producer = producer;
    header.version_info = &version;
    record.header = &header;
    return put_record(w, &record);
}

static p4_rc put_run(p4_wandb *w, const p4_watched_run *run, items *config)
{
    P4Wandb__Timestamp start = P4_WANDB__TIMESTAMP__INIT;
    P4Wandb__Config record_config = P4_WANDB__CONFIG__INIT;
    P4Wandb__Run record_run = P4_WANDB__RUN__INIT;
    P4Wandb__Record record = P4_WANDB__RECORD__INIT;
    p4_rc rc = P4_OK;
    char *texts[] = {p4_strdup(run->project), p4_strdup(run->name), p4_strdup(run->host)};
    char *tags[] = {(char[]){"phase4"}};
    TRY(texts[0] != NULL && texts[1] != NULL && texts[2] != NULL ? P4_OK : P4_E_SYSTEM);
    start.has_seconds = true;
    start.seconds = (int64_t)w->started;
    record_config.n_update = config->count;
    record_config.update = config->list;
    record_run.run_id = w->id;
    record_run.project = texts[0];
    record_run.display_name = texts[1];
    record_run.host = texts[2];
    record_run.job_type = (char[]){"compress"};
    record_run.n_tags = 1;
    record_run.tags = tags;
    record_run.config = &record_config;
    record_run.start_time = &start;
    record.run = &record_run;
    TRY(put_record(w, &record));
done:
    for (int i = 0; i < 3; i++) {
        free(texts[i]);
    }
    return rc;
}

/* The configuration's keys with their values in JSON. */
static p4_rc put_run_with_config(p4_wandb *w, const p4_watched_run *run)
{
    p4_rc rc = P4_OK;
    items config = {.items = NULL};
    cJSON *item, *root = cJSON_Parse(run->config_json);
    TRY(root != NULL ? P4_OK : FAULT("out of memory while the W&B run was begun"));
    TRY(items_init(&config, (size_t)cJSON_GetArraySize(root) + 1));
    cJSON_ArrayForEach(item, root)
    {
        char *json = cJSON_PrintUnformatted(item);
        TRY(json != NULL ? P4_OK : FAULT("out of memory while the W&B run was begun"));
        items_add(&config, item->string, json);
    }
    TRY(put_run(w, run, &config));
done:
    for (size_t i = 0; i < config.count; i++) {
        cJSON_free(config.items[i].value_json);
    }
    items_free(&config);
    cJSON_Delete(root);
    return rc;
}

/* Which key the values of a group are drawn over. */
static p4_rc put_axis(p4_wandb *w, const char *glob, const char *axis)
{
    char texts[2][KEY_BYTES];
    P4Wandb__MetricOptions options = P4_WANDB__METRIC_OPTIONS__INIT;
    P4Wandb__Metric metric = P4_WANDB__METRIC__INIT;
    P4Wandb__Record record = P4_WANDB__RECORD__INIT;
    snprintf(texts[0], KEY_BYTES, "%s", glob != NULL ? glob : axis);
    snprintf(texts[1], KEY_BYTES, "%s", axis);
    options.has_step_sync = options.has_defined = true;
    options.step_sync = glob != NULL;
    options.defined = true;
    metric.name = glob == NULL ? texts[0] : NULL;
    metric.glob_name = glob != NULL ? texts[0] : NULL;
    metric.step_metric = glob != NULL ? texts[1] : NULL;
    metric.options = &options;
    record.metric = &metric;
    return put_record(w, &record);
}

static p4_rc put_axes(p4_wandb *w)
{
    p4_rc rc = P4_OK;
    TRY(put_axis(w, NULL, "train/step"));
    TRY(put_axis(w, NULL, "reconstruct/block"));
    TRY(put_axis(w, "train/*", "train/step"));
    TRY(put_axis(w, "evaluation/*", "train/step"));
    TRY(put_axis(w, "reconstruct/*", "reconstruct/block"));
done:
    return rc;
}

/* The run's name of its own: that of the directory which an earlier process of it left, or a new one. */
static void choose_id(p4_wandb *w, const char *folder, const char *stamp)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    char **names = NULL, prefix[64];
    int64_t count = 0;
    struct timespec now;
    snprintf(prefix, sizeof prefix, "offline-run-%s-", stamp);
    if (p4_dir_list(&names, &count, folder) != P4_OK) {
        p4_error_clear(); /* there is none yet */
    }
    for (int64_t i = 0; i < count && w->id[0] == '\0'; i++) {
        const char *id = names[i] + strlen(prefix);
        if (strncmp(names[i], prefix, strlen(prefix)) == 0 && strlen(id) == ID_BYTES &&
            strspn(id, digits) == ID_BYTES) {
            memcpy(w->id, id, ID_BYTES + 1);
        }
    }
    p4_names_free(names, count);
    clock_gettime(CLOCK_REALTIME, &now);
    const long parts[] = {(long)now.tv_sec, now.tv_nsec, (long)getpid()};
    uint64_t hash = p4_hash(p4_hash(P4_HASH_START, parts, sizeof parts), folder, strlen(folder));
    for (int i = 0; i < ID_BYTES && w->id[ID_BYTES - 1] == '\0'; i++, hash /= 36) {
        w->id[i] = digits[hash % 36];
    }
}

/* The directory of the run with its folder for files, and the file of records. */
static p4_rc make_directory(p4_wandb *w, const p4_watched_run *run)
{
    p4_rc rc = P4_OK;
    char stamp[P4_STAMP_BYTES], *folder = p4_format("%s/wandb", run->output_path), *files = NULL,
                                *file = NULL;
    TRY(folder != NULL ? P4_OK : P4_E_SYSTEM);
    p4_time_stamp(stamp, run->started);
    choose_id(w, folder, stamp);
    TRY(p4_remove_tree(folder));
    w->directory = p4_format("%s/offline-run-%s-%s", folder, stamp, w->id);
    TRY(w->directory != NULL ? P4_OK : P4_E_SYSTEM);
    files = p4_format("%s/files", w->directory);
    file = p4_format("%s/run-%s.wandb", w->directory, w->id);
    TRY(files != NULL && file != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_make_directories(files));
    TRY(p4_wandb_log_open(&w->log, file));
done:
    free(folder);
    free(files);
    free(file);
    return rc;
}

p4_rc p4_wandb_open(p4_wandb **wandb, const p4_watched_run *run)
{
    p4_rc rc = P4_OK;
    p4_wandb *w = *wandb = p4_alloc(1, sizeof *w);
    if (w == NULL) {
        return P4_E_SYSTEM;
    }
    w->started = p4_time_seconds(run->started);
    TRY(make_directory(w, run));
    TRY(put_header(w));
    TRY(put_run_with_config(w, run));
    TRY(put_axes(w));
done:
    if (rc != P4_OK) {
        p4_wandb_close(w);
        *wandb = NULL;
    }
    return rc;
}

/* ---- the history ---- */

/* The summary has the last value of each key. */
static void keep_last(p4_wandb *w, const value *v)
{
    int i = 0;
    while (i < w->last_count && strcmp(w->last[i].key, v->key) != 0) {
        i++;
    }
    if (i < LAST_VALUES) {
        w->last[i] = *v;
        w->last_count = i == w->last_count ? i + 1 : w->last_count;
    }
}

p4_rc p4_wandb_add(p4_wandb *w, const p4_measurement *m)
{
    enum { OWN = 4 };
    value values[P4_MEASUREMENT_METRICS + OWN];
    P4Wandb__Step step = P4_WANDB__STEP__INIT;
    P4Wandb__History history = P4_WANDB__HISTORY__INIT;
    P4Wandb__Record record = P4_WANDB__RECORD__INIT;
    size_t count = 0;
    items line;
    p4_rc rc = items_init(&line, P4_MEASUREMENT_METRICS + OWN);
    TRY(rc);
    for (size_t i = 0; i < m->count && i < P4_MEASUREMENT_METRICS; i++) {
        if (!isnan(m->metrics[i].value)) {
            snprintf(values[count].key, KEY_BYTES, "%s/%s", m->group, m->metrics[i].key);
            print_real(values[count++].json, m->metrics[i].value);
        }
    }
    bool blocks = strcmp(m->group, "reconstruct") == 0;
    snprintf(values[count].key, KEY_BYTES, "%s", blocks ? "reconstruct/block" : "train/step");
    snprintf(values[count++].json, VALUE_BYTES, "%lld", (long long)m->step);
    for (size_t i = 0; i < count; i++) {
        keep_last(w, &values[i]);
    }
    snprintf(values[count].key, KEY_BYTES, "_step");
    snprintf(values[count++].json, VALUE_BYTES, "%lld", (long long)w->step);
    snprintf(values[count].key, KEY_BYTES, "_runtime");
    print_real(values[count++].json, m->runtime_s);
    snprintf(values[count].key, KEY_BYTES, "_timestamp");
    snprintf(values[count++].json, VALUE_BYTES, "%.3f", w->started + m->runtime_s);
    for (size_t i = 0; i < count; i++) {
        items_add(&line, values[i].key, values[i].json);
    }
    step.has_num = true;
    step.num = w->step++;
    history.n_item = line.count;
    history.item = line.list;
    history.step = &step;
    record.history = &history;
    TRY(put_record(w, &record));
done:
    items_free(&line);
    return rc;
}

/* ---- the end ---- */

/* "quality/passed" for a member of a member; lists are left out. */
static p4_rc add_result(items *summary, const char *group, const cJSON *item)
{
    char *key = group != NULL ? p4_format("%s/%s", group, item->string) : p4_strdup(item->string);
    char *json = key != NULL ? cJSON_PrintUnformatted(item) : NULL;
    if (json == NULL) {
        free(key);
        return FAULT("out of memory while the W&B run was ended");
    }
    items_add(summary, key, json);
    return P4_OK;
}

static bool is_plain(const cJSON *item)
{
    return cJSON_IsNumber(item) || cJSON_IsBool(item) || cJSON_IsString(item);
}

static size_t count_results(const cJSON *root)
{
    const cJSON *item;
    size_t count = 0;
    cJSON_ArrayForEach(item, root)
    {
        count += cJSON_IsObject(item) ? (size_t)cJSON_GetArraySize(item) : 1;
    }
    return count;
}

static p4_rc add_results(items *summary, const cJSON *root)
{
    p4_rc rc = P4_OK;
    const cJSON *item, *member;
    cJSON_ArrayForEach(item, root)
    {
        TRY(is_plain(item) ? add_result(summary, NULL, item) : P4_OK);
        if (cJSON_IsObject(item)) {
            cJSON_ArrayForEach(member, item)
            {
                TRY(is_plain(member) ? add_result(summary, item->string, member) : P4_OK);
            }
        }
    }
done:
    return rc;
}

static p4_rc put_summary(p4_wandb *w, const char *results_json)
{
    p4_rc rc = P4_OK;
    items results = {.items = NULL}, all = {.items = NULL};
    P4Wandb__Summary summary = P4_WANDB__SUMMARY__INIT;
    P4Wandb__Record record = P4_WANDB__RECORD__INIT;
    cJSON *root = cJSON_Parse(results_json);
    TRY(root != NULL ? P4_OK : FAULT("out of memory while the W&B run was ended"));
    TRY(items_init(&results, count_results(root) + 1));
    TRY(add_results(&results, root));
    TRY(items_init(&all, results.count + LAST_VALUES));
    for (int i = 0; i < w->last_count; i++) {
        items_add(&all, w->last[i].key, w->last[i].json);
    }
    for (size_t i = 0; i < results.count; i++) {
        items_add(&all, results.items[i].key, results.items[i].value_json);
    }
    summary.n_update = all.count;
    summary.update = all.list;
    record.summary = &summary;
    TRY(put_record(w, &record));
done:
    for (size_t i = 0; i < results.count; i++) {
        free(results.items[i].key);
        cJSON_free(results.items[i].value_json);
    }
    items_free(&results);
    items_free(&all);
    cJSON_Delete(root);
    return rc;
}

static p4_rc put_report(p4_wandb *w, const char *report)
{
    P4Wandb__File file = P4_WANDB__FILE__INIT, *list[] = {&file};
    P4Wandb__Files files = P4_WANDB__FILES__INIT;
    P4Wandb__Record record = P4_WANDB__RECORD__INIT;
    char *copy = p4_format("%s/files/report.html", w->directory);
    p4_rc rc = copy != NULL ? p4_file_copy(copy, report) : P4_E_SYSTEM;
    free(copy);
    if (rc != P4_OK) {
        return rc;
    }
    file.path = (char[]){"report.html"};
    files.n_files = 1;
    files.files = list;
    record.files = &files;
    return put_record(w, &record);
}

/* Readers hold the exit back until they see `final`. */
static p4_rc put_exit(p4_wandb *w, bool success, double runtime_s)
{
    p4_rc rc = P4_OK;
    P4Wandb__Exit exit = P4_WANDB__EXIT__INIT;
    P4Wandb__Empty empty = P4_WANDB__EMPTY__INIT;
    P4Wandb__Record ended = P4_WANDB__RECORD__INIT, final = ended, footer = ended;
    exit.has_exit_code = exit.has_runtime = true;
    exit.exit_code = success ? 0 : 1;
    exit.runtime = (int32_t)fmin(runtime_s, INT32_MAX);
    ended.exit = &exit;
    final.final = &empty;
    footer.footer = &empty;
    TRY(put_record(w, &ended));
    TRY(put_record(w, &final));
    TRY(put_record(w, &footer));
done:
    return rc;
}

p4_rc p4_wandb_finish(p4_wandb *w, bool success, double runtime_s, const char *results_json,
                      const char *report)
{
    p4_rc rc = P4_OK;
    TRY(report != NULL && report[0] != '\0' ? put_report(w, report) : P4_OK);
    TRY(put_summary(w, results_json));
    TRY(put_exit(w, success, runtime_s));
    TRY(p4_wandb_log_close(&w->log));
done:
    return rc;
}

const char *p4_wandb_directory(const p4_wandb *w)
{
    return w->directory;
}

void p4_wandb_close(p4_wandb *w)
{
    if (w != NULL) {
        (void)p4_wandb_log_close(&w->log);
        free(w->directory);
        free(w);
    }
}
