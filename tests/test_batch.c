/* The schedule of a batch: in its order, no rank idle that a model could use, no model overtaken for ever,
 * nodes with room; and which events of a journal count. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "io/batch/defaults.h"
#include "io/batch/outcome.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/out/report.h"
#include "jobs/batch/batch.h"

#define HOLDS(ok) EXPECT(ok, "expected to hold")

enum { MOST = 64 };

/* A batch of models with one number of ranks each, of planned seconds; ratio: of the time on twice the ranks.
 */
typedef struct world {
    p4_batch batch;
    p4_queue_entry given[MOST];
    p4_batch_model models[MOST];
    int64_t order[MOST];
    p4_batch_rank rank[MOST];
    p4_batch_node node[MOST];
    p4_batch_model *running[MOST];
} world;

static void make_world(world *w, int ranks, int ranks_per_node)
{
    *w = (world){.batch = {.ranks = ranks, .nodes = ranks / ranks_per_node}};
    w->batch.models = w->models;
    w->batch.order = w->order;
    w->batch.running = w->running;
    w->batch.rank = w->rank;
    w->batch.node = w->node;
    for (int r = 0; r < ranks; r++) {
        w->rank[r] = (p4_batch_rank){.node = r / ranks_per_node, .model = -1};
    }
}

/* In the order of their lengths, which the caller keeps. */
static void add_model(world *w, int least, double seconds, double ratio)
{
    int64_t i = w->batch.count++;
    p4_batch_model *m = &w->models[i];
    m->given = &w->given[i];
    m->plan = (p4_batch_plan){.known = true, .least = least};
    for (int ranks = least; ranks <= w->batch.ranks; ranks *= 2) {
        m->plan.seconds[m->plan.widths++] = seconds;
        seconds *= ratio;
    }
    w->order[i] = i;
    w->batch.counts[P4_STATE_WAITING]++;
}

static int64_t start(world *w, int *idle, double now_s)
{
    p4_batch_start next = p4_batch_next(&w->batch, *idle, now_s);
    if (next.model >= 0) {
        *idle -= next.ranks;
        p4_batch_begin(&w->batch, &w->models[next.model], next.ranks, now_s);
    }
    return next.model;
}

static void in_order_and_no_rank_idle(void)
{
    static world w;
    int idle = 8;
    make_world(&w, 8, 4);
    for (int i = 0; i < 3; i++) {
        add_model(&w, 1, 100 - 10 * i, 0.5);
    }
    /* Three models on eight ranks: all ranks work, and the last that starts gets what is left. */
    HOLDS(start(&w, &idle, 0) == 0 && w.models[0].ranks == 2);
    HOLDS(start(&w, &idle, 0) == 1 && w.models[1].ranks == 2);
    HOLDS(start(&w, &idle, 0) == 2 && w.models[2].ranks == 4);
    HOLDS(idle == 0 && start(&w, &idle, 0) == -1);
}

static void wider_only_where_it_helps(void)
{
    static world w;
    int idle = 8;
    make_world(&w, 8, 8);
    add_model(&w, 1, 100, 0.9);
    add_model(&w, 1, 50, 0.6);
    HOLDS(start(&w, &idle, 0) == 0 && w.models[0].ranks == 1); /* a tenth is not worth twice the ranks */
    w.given[1].max_ranks = 2;
    HOLDS(start(&w, &idle, 0) == 1 && w.models[1].ranks == 2);
    make_world(&w, 8, 8);
    add_model(&w, 2, 100, 0.5);
    w.given[0].ranks = 3; /* exactly */
    idle = 8;
    HOLDS(start(&w, &idle, 0) == 0 && w.models[0].ranks == 3);
}

static void large_ones_are_not_starved(void)
{
    static world w;
    int idle = 4;
    make_world(&w, 4, 4);
    add_model(&w, 2, 100, 1);
    add_model(&w, 4, 90, 1); /* needs all ranks */
    add_model(&w, 1, 60, 1); /* through before the first ends */
    add_model(&w, 1, 120, 1);
    HOLDS(start(&w, &idle, 0) == 0);
    HOLDS(start(&w, &idle, 0) == 2);  /* beside it */
    HOLDS(start(&w, &idle, 0) == -1); /* the other would still run when all ranks could be free */
    p4_batch_end(&w.batch, &w.models[2], P4_STATE_DONE);
    idle++;
    HOLDS(start(&w, &idle, 60) == -1);
    p4_batch_end(&w.batch, &w.models[0], P4_STATE_DONE);
    idle += 2;
    HOLDS(idle == 4 && start(&w, &idle, 100) == 1 && w.models[1].ranks == 4);
}

static void nodes_with_room(void)
{
    static world w;
    int at[MOST];
    make_world(&w, 8, 4);
    w.rank[4].model = 0; /* node 1 has three idle ranks */
    HOLDS(p4_batch_pick_ranks(&w.batch, 3, 0, at) && at[0] == 5 &&
          at[2] == 7); /* the tightest that holds them */
    HOLDS(p4_batch_pick_ranks(&w.batch, 4, 0, at) && at[0] == 0 && at[3] == 3);
    HOLDS(p4_batch_pick_ranks(&w.batch, 7, 0, at) && at[0] == 0 && at[6] == 7);
    HOLDS(!p4_batch_pick_ranks(&w.batch, 8, 0, at));
    w.node[1] = (p4_batch_node){.room_bytes = 100, .used_bytes = 50};
    w.node[0].room_bytes = 100;
    HOLDS(p4_batch_pick_ranks(&w.batch, 1, 50, at) && at[0] == 5);
    HOLDS(p4_batch_pick_ranks(&w.batch, 1, 60, at) && at[0] == 0); /* node 1 has no room for it */
    HOLDS(p4_batch_pick_ranks(&w.batch, 4, 60, at)); /* a node that is free: the run checks it, with advice */
    HOLDS(!p4_batch_pick_ranks(&w.batch, 5, 60, at));
}

static void forecasts(void)
{
    static world w;
    double seconds = 0;
    make_world(&w, 2, 2);
    for (int i = 0; i < 5; i++) {
        add_model(&w, 1, 10, 1);
    }
    EXPECT_OK(p4_batch_forecast(&w.batch, 0, &seconds));
    EXPECT_NEAR(seconds, 30, 1e-9);
    HOLDS(w.models[0].state == P4_STATE_WAITING);
}

/* ---- the journal ---- */

static void append(p4_journal *journal, const char *name, p4_batch_event event, int64_t attempt)
{
    p4_batch_record r;
    p4_batch_record_init(&r);
    r.name = p4_strdup(name);
    r.event = event;
    r.attempt = attempt;
    EXPECT_OK(p4_journal_append(journal, &r));
    p4_batch_record_free(&r);
}

static p4_batch_event event_of(const p4_journal_state *state, const char *name)
{
    const p4_batch_record *found = p4_journal_find(state, name);
    return found != NULL ? found->event : P4_BATCH_EVENTS;
}

static void newest_attempts_count(void)
{
    char folder[] = "/tmp/p4_batch_XXXXXX", *task = NULL, *path = NULL;
    p4_journal *journal, *second;
    p4_journal_state *state;
    HOLDS(mkdtemp(folder) != NULL);
    task = p4_format("%s/task-3", folder);
    EXPECT_OK(p4_journal_open(&journal, folder));
    HOLDS(p4_journal_open(&second, folder) == P4_E_INPUT &&
          strstr(p4_last_error(), "a batch's state directory") != NULL);
    p4_error_clear();
    append(journal, "a", P4_BATCH_STARTED, 1);
    append(journal, "a", P4_BATCH_STARTED, 2);
    append(journal, "a", P4_BATCH_DONE, 2);
    append(journal, "a", P4_BATCH_FAILED, 1); /* stale */
    append(journal, "a", P4_BATCH_FAILED, 2); /* a second end */
    append(journal, "b", P4_BATCH_STARTED, 1);
    p4_journal_close(journal);
    EXPECT_OK(p4_journal_open(&journal, task));
    append(journal, "b", P4_BATCH_STOPPED, 2);
    for (int i = 0; i < 1200; i++) { /* the table of names grows */
        char name[32];
        snprintf(name, sizeof name, "model %d", i % 600);
        append(journal, name, i < 600 ? P4_BATCH_STARTED : P4_BATCH_DONE, 1);
    }
    p4_journal_close(journal);
    EXPECT_OK(p4_journal_read(&state, folder));
    HOLDS(event_of(state, "a") == P4_BATCH_DONE && event_of(state, "b") == P4_BATCH_STOPPED);
    HOLDS(event_of(state, "model 0") == P4_BATCH_DONE && event_of(state, "model 599") == P4_BATCH_DONE);
    HOLDS(p4_journal_find(state, "c") == NULL);
    p4_journal_state_free(state);
    for (int i = 0; i < 2; i++) {
        path = p4_format("%s/" P4_JOURNAL_FILE, i == 0 ? task : folder);
        HOLDS(unlink(path) == 0 && rmdir(i == 0 ? task : folder) == 0);
        free(path);
    }
    free(task);
}

/* ---- the configuration of the journal ---- */

static void write_file(const char *folder, const char *name, const char *text)
{
    char *path = p4_format("%s/%s", folder, name), *end = strrchr(path, '/');
    *end = '\0';
    EXPECT_OK(p4_make_directories(path));
    *end = '/';
    EXPECT_OK(p4_atomic_write_all(path, text, strlen(text)));
    free(path);
}

static const char tiny_model[] =
    "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":32,"
    "\"intermediate_size\":64,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
    "\"vocab_size\":64,\"max_position_embeddings\":1024,\"rms_norm_eps\":1e-6}";

/* Of queue.json and the journal in the folder `state`. */
static void prepare(p4_batch *batch, const char *folder)
{
    char *queue = p4_format("%s/queue.json", folder);
    const p4_batch_options options = {.queue_path = queue};
    *batch = (p4_batch){.directory = p4_format("%s/state", folder)};
    EXPECT_OK(p4_batch_prepare(batch, &options, 1, 1, 1));
    batch->options = NULL;
    free(queue);
}

static p4_batch_state state_in(const char *folder)
{
    p4_batch batch;
    prepare(&batch, folder);
    p4_batch_state state = batch.models[0].state;
    p4_batch_free(&batch);
    return state;
}

/* A journal whose writer knew no keys but those that its queue sets. A value that is the default, or a key of
 * where the results lie, may be given or not. */
static void keys_that_came_later(void)
{
    char folder[] = "/tmp/p4_batch_XXXXXX", fingerprint[P4_FINGERPRINT_BYTES];
    HOLDS(mkdtemp(folder) != NULL);
    char *chosen = p4_format("{\"calibration_dataset\":\"custom\",\"calibration_files\":[\"%s/text\"],"
                             "\"init\":\"random\",\"model_path\":\"%s/model\",\"recipe\":\"quality\","
                             "\"seed\":7}\n",
                             folder, folder);
    p4_fingerprint_text(fingerprint, chosen);
    *strrchr(chosen, '}') = '\0';
    char *same =
             p4_format("[%s,\"output_path\":\"%s/out\",\"name\":\"a\",\"gradient_clip\":1}]", chosen, folder),
         *other =
             p4_format("[%s,\"output_path\":\"%s/out\",\"name\":\"a\",\"gradient_clip\":2}]", chosen, folder),
         *line = p4_format("{\"name\":\"a\",\"event\":\"done\",\"attempt\":1,\"ranks\":1,"
                           "\"output_path\":\"%s/out\",\"config_fingerprint\":\"%s\"}\n",
                           folder, fingerprint);
    write_file(folder, "text", "a\n");
    write_file(folder, "model/config.json", tiny_model);
    write_file(folder, "out/results.json", "{}");
    write_file(folder, "state/journal.jsonl", line);
    write_file(folder, "queue.json", same);
    HOLDS(state_in(folder) == P4_STATE_DONE);
    write_file(folder, "queue.json", other);
    HOLDS(state_in(folder) == P4_STATE_WAITING);
    EXPECT_OK(p4_remove_tree(folder));
    free(chosen);
    free(same);
    free(other);
    free(line);
}

/* The first occurrence of a text in the defaults of each recipe, replaced. Heap; frees `json`. */
static char *replace(char *json, const char *from, const char *to)
{
    char *at = json;
    for (int i = 0; i < 2; i++) {
        at = strstr(at, from);
        HOLDS(at != NULL);
        if (at == NULL) {
            return json;
        }
        char *made = p4_format("%.*s%s%s", (int)(at - json), json, to, at + strlen(from));
        at = made + (at - json) + strlen(to);
        free(json);
        json = made;
    }
    return json;
}

/* A journal of a version with other defaults: gradient_clip was 5, and eval_stride is younger, as "gone" is a
 * key that this version has no more. What counts is what the keys meant to that version. */
static void defaults_that_changed(void)
{
    char folder[] = "/tmp/p4_batch_XXXXXX", config[P4_FINGERPRINT_BYTES], version[P4_FINGERPRINT_BYTES],
         *defaults;
    HOLDS(mkdtemp(folder) != NULL);
    EXPECT_OK(p4_config_print_defaults(&defaults));
    defaults = replace(replace(defaults, "\"gradient_clip\":\t\"1\"", "\"gradient_clip\":\t\"5\""),
                       "\"eval_stride\"", "\"gone\"");
    p4_fingerprint_text(version, defaults);
    char *file = p4_format("state/defaults-%s.json", version), *at = file;
    while ((at = strchr(at, ':')) != NULL) {
        *at = '-';
    }
    char *chosen = p4_format("{\"calibration_dataset\":\"custom\",\"calibration_files\":[\"%s/text\"],"
                             "\"init\":\"random\",\"model_path\":\"%s/model\",\"recipe\":\"quality\"}\n",
                             folder, folder);
    p4_fingerprint_text(config, chosen);
    *strrchr(chosen, '}') = '\0';
    char *line =
        p4_format("{\"name\":\"a\",\"event\":\"done\",\"attempt\":1,\"ranks\":1,\"output_path\":\"%s/out\","
                  "\"config_fingerprint\":\"%s\",\"defaults_fingerprint\":\"%s\"}\n",
                  folder, config, version);
    write_file(folder, "text", "a\n");
    write_file(folder, "model/config.json", tiny_model);
    write_file(folder, "out/results.json", "{}");
    write_file(folder, "state/journal.jsonl", line);
    write_file(folder, file, defaults);
    static const struct {
        const char *keys;
        p4_batch_state state;
    } cases[] = {{"", P4_STATE_WAITING}, /* it had 5, and would have 1 */
                 {",\"gradient_clip\":5", P4_STATE_DONE},
                 {",\"gradient_clip\":5,\"eval_stride\":0", P4_STATE_DONE},
                 {",\"gradient_clip\":5,\"eval_stride\":3", P4_STATE_WAITING},
                 {",\"gradient_clip\":2", P4_STATE_WAITING}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *queue =
            p4_format("[%s%s,\"output_path\":\"%s/out\",\"name\":\"a\"}]", chosen, cases[i].keys, folder);
        write_file(folder, "queue.json", queue);
        p4_batch_state state = state_in(folder);
        EXPECT(state == cases[i].state, "\"%s\": %s", cases[i].keys, p4_batch_state_names[state]);
        free(queue);
    }
    /* This version's are kept and read back; those of a version whose file is lost are asked for by name. */
    p4_config_defaults *kept, *lost;
    EXPECT_OK(p4_batch_defaults_keep(version, folder));
    EXPECT_OK(p4_batch_defaults_read(&kept, folder, version));
    EXPECT_REFUSED(p4_batch_defaults_read(&lost, folder, "crc32:0:0"), "defaults-crc32-0-0.json");
    p4_config_free_defaults(kept);
    p4_config_free_defaults(lost);
    EXPECT_OK(p4_remove_tree(folder));
    free(defaults);
    free(file);
    free(chosen);
    free(line);
}

static void model_that_ends_jobs_starts_last(void)
{
    char folder[] = "/tmp/p4_batch_XXXXXX", *state;
    p4_batch batch;
    p4_journal *journal;
    HOLDS(mkdtemp(folder) != NULL);
    char *queue = p4_format("{\"models\":\"%s/models\",\"template\":{\"calibration_dataset\":\"custom\","
                            "\"calibration_files\":[\"%s/text\"],\"init\":\"random\","
                            "\"output_path\":\"%s/out\"}}",
                            folder, folder, folder);
    write_file(folder, "text", "a\n");
    write_file(folder, "models/a/config.json", tiny_model);
    write_file(folder, "models/b/config.json", tiny_model);
    write_file(folder, "queue.json", queue);
    state = p4_format("%s/state", folder);
    for (int64_t attempt = 1; attempt <= 3; attempt++) {
        prepare(&batch, folder);
        HOLDS(batch.order[0] == 0 && batch.order[1] == 1);
        batch.models[0].record.attempt = attempt; /* which its job does not survive */
        EXPECT_OK(p4_journal_open(&journal, state));
        EXPECT_OK(p4_journal_append(journal, &batch.models[0].record));
        p4_journal_close(journal);
        p4_batch_free(&batch);
    }
    prepare(&batch, folder);
    HOLDS(batch.order[0] == 1 && batch.order[1] == 0);
    p4_batch_free(&batch);
    EXPECT_OK(p4_remove_tree(folder));
    free(queue);
    free(state);
}

/* ---- verdicts ---- */

static void expect_reason(const p4_quality *quality, bool flow_failed, const char *wanted)
{
    char text[P4_VERDICT_BYTES];
    EXPECT(strcmp(p4_quality_explain_failure(text, quality, "", flow_failed), wanted) == 0,
           "found \"%s\", expected \"%s\"", text, wanted);
}

static void verdicts_say_why(void)
{
    p4_quality q = {.degradation_low = NAN, .degradation_high = NAN, .max_accuracy_drop = 0.1};
    q.degradation_ratio = 0.552;
    expect_reason(&q, false, "perplexity rose by 55.2 %, a rise of 10.0 % is allowed");
    q.degradation_ratio = 1e9;
    expect_reason(&q, false, "perplexity rose by 1e+11 %, a rise of 10.0 % is allowed");
    q.degradation_ratio = INFINITY;
    expect_reason(&q, false, "perplexity is not finite");
    q.degradation_ratio = NAN;
    expect_reason(&q, false, "perplexity is not finite");
    expect_reason(&q, true, "the gradient-flow test failed"); /* no perplexity was measured */
    q.degradation_ratio = 0.05;
    expect_reason(&q, true, "the gradient-flow test failed");
    q = (p4_quality){
        .degradation_ratio = 0.2, .degradation_low = 0.1, .degradation_high = 0.3, .max_accuracy_drop = 0.1};
    expect_reason(&q, true,
                  "perplexity rose by 20.0 % (95 % interval: +10.0 to +30.0 %), a rise of 10.0 % is allowed; "
                  "the gradient-flow test failed");
}

/* The reason of a failed verdict is the one that the run itself would have given. */
static void outcomes_say_why(void)
{
    char folder[] = "/tmp/p4_batch_XXXXXX";
    p4_batch_record r;
    HOLDS(mkdtemp(folder) != NULL);
    write_file(
        folder, "results.json",
        "{\"success\":true,\"warning_count\":37,\"provenance\":{\"ended\":\"2026-01-31T12:00:00Z\"},"
        "\"quality\":{\"passed\":false,\"degradation_ratio\":0.552,\"degradation_low\":0.5,"
        "\"degradation_high\":0.6,\"max_accuracy_drop\":0.1},\"gradient_flow_test\":{\"passed\":true}}");
    p4_batch_record_init(&r);
    HOLDS(!p4_outcome_read(&r, folder, "2026-01-31T12:00:01Z") && r.event == P4_BATCH_STARTED);
    HOLDS(p4_outcome_read(&r, folder, "2026-01-31T12:00:00Z") && r.event == P4_BATCH_VERDICT);
    HOLDS(strcmp(r.ended, "2026-01-31T12:00:00Z") == 0 && r.warnings == 37);
    const char *wanted =
        "perplexity rose by 55.2 % (95 % interval: +50.0 to +60.0 %), a rise of 10.0 % is allowed";
    EXPECT(strcmp(r.error, wanted) == 0, "found \"%s\", expected \"%s\"", r.error, wanted);
    p4_batch_record_free(&r);
    EXPECT_OK(p4_remove_tree(folder));
}

/* The journal's times are by another clock than those of results.json. */
static void results_that_stand(void)
{
    char folder[] = "/tmp/p4_batch_XXXXXX";
    p4_batch_record r = {
        .ended = "2026-01-31T12:00:00Z", .time = "2026-01-31T11:59:58Z", .output_path = folder};
    HOLDS(mkdtemp(folder) != NULL);
    write_file(folder, "results.json",
               "{\"success\":true,\"provenance\":{\"ended\":\"2026-01-31T12:00:00Z\"}}");
    HOLDS(p4_outcome_stands(&r));
    snprintf(r.ended, sizeof r.ended, "2026-01-31T12:00:01Z");
    HOLDS(!p4_outcome_stands(&r));
    r.ended[0] = '\0'; /* of an earlier version */
    HOLDS(!p4_outcome_stands(&r));
    snprintf(r.time, sizeof r.time, "2026-01-31T12:00:00Z");
    HOLDS(p4_outcome_stands(&r));
    EXPECT_OK(p4_remove_tree(folder));
}

int main(void)
{
    in_order_and_no_rank_idle();
    wider_only_where_it_helps();
    large_ones_are_not_starved();
    nodes_with_room();
    forecasts();
    newest_attempts_count();
    keys_that_came_later();
    defaults_that_changed();
    model_that_ends_jobs_starts_last();
    verdicts_say_why();
    outcomes_say_why();
    results_that_stand();
    return TEST_END();
}
