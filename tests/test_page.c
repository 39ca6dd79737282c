/* report.html (io/page/): foreign text stays text, the markup is balanced, and what a run lacks is left out.
 */
#include <time.h>

#include "io/out/outputs.h"
#include "io/page/html.h"
#include "page_world.h"

/* What the writer makes of a text. */
static void expect_escaped(const char *text, const char *want)
{
    char *got = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&got, &bytes);
    p4_html_text(to, text);
    fclose(to);
    EXPECT(strcmp(got, want) == 0, "got %s, want %s", got, want);
    free(got);
}

static void test_text(void)
{
    expect_escaped("a<b> & \"c\" 'd'", "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;");
    expect_escaped("\x01\x1b[0m\x7f\n\t", "\xEF\xBF\xBD\xEF\xBF\xBD[0m\xEF\xBF\xBD\n\t");
    expect_escaped("\xC3\xA9\xFFz\xE2\x82", "\xC3\xA9\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD");
}

/* A run of a model of 32 layers, with markup in each text that may come from outside. */
static void put_large_run(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    fputs("{\"tensors\": [", to);
    for (int layer = 0; layer < 32; layer++) {
        for (int k = 0; k < 7; k++) {
            fprintf(
                to,
                "%s{\"name\": \"model.layers.%d.mlp.<img src=x>%d_proj.weight\", \"layer\": %d, \"rows\": 4, "
                "\"cols\": 8, \"ternary\": true, \"bytes\": 100, \"relative_error\": 0.%d, \"sparsity\": "
                "0.4, \"scale_min\": 0.1, \"scale_mean\": 0.2, \"scale_max\": 0.3}",
                layer + k > 0 ? ", " : "", layer, k, layer, 10 + layer + k);
        }
    }
    fputs("], \"activations\": [{\"name\": \"model.layers.0.mlp.up_proj\", \"mean\": 0, \"std\": 1, \"min\": "
          "-7, "
          "\"max\": 2, \"input_peak\": 3}], \"ranks\": [{\"rank\": 0, \"peak_memory_mb\": 9, \"stages\": "
          "[{\"stage\": \"load\", \"started_s\": 0, \"seconds\": 2, \"cpu_s\": 1, \"waited_s\": 1}]}]}",
          to);
    fclose(to);
    put_file("details.json", text);
    free(text);
    to = open_memstream(&text, &bytes);
    for (int step = 1; step <= 5000; step++) {
        fprintf(to, "{\"kind\":\"train\",\"step\":%d,\"loss\":%g,\"grad_norm\":1,\"tokens_per_s\":5}\n", step,
                5.0 / step + (step % 7) * 0.01);
    }
    fputs("{\"kind\":\"evaluation\",\"stage\":\"fine_tune\",\"step\":5000,\"loss\":1.5,\"perplexity\":4.4}\n"
          "{\"kind\":\"tra",
          to);
    fclose(to);
    put_file("metrics.jsonl", text);
    free(text);
    put_file(
        "phase4_config.json",
        "{\"model_path\": \"/m/<script>alert(1)</script>\", \"recipe\": \"quality\", "
        "\"eval_files\": [\"a&b\"], \"seed\": 42, \"calibration_samples\": 64, \"train_files\": [\"c\"], "
        "\"enable_fine_tuning\": true, \"fine_tune_max_steps\": 100}");
    put_file("samples.json",
             "{\"samples\": [{\"prompt\": \" <b>\", \"original\": \"</p>\", \"ternary\": \"&amp;\"}]}");
    put_file("results.json",
             "{\"success\": true, \"phase\": \"phase4_bitnet\", \"error\": null, \"model_type\": \"llama\", "
             "\"pre_compression\": {\"loss\": 1, \"perplexity\": 2.7, \"tokens\": 10}, \"final\": "
             "{\"perplexity\": 2.8}, "
             "\"quality\": {\"passed\": true, \"degradation_ratio\": 0.037, \"max_accuracy_drop\": 0.1}, "
             "\"metrics\": {\"original_size_mb\": 10, \"compressed_size_mb\": 1, \"ternary_mb\": 1, "
             "\"total_params\": 7}, "
             "\"timing\": {\"load\": 1, \"export\": 2, \"total\": 3}, \"fine_tuning\": {\"steps\": 5000, "
             "\"training_history\": []}}");
}

static void test_large_run(void)
{
    put_large_run();
    clock_t started = clock();
    make();
    double seconds = (double)(clock() - started) / CLOCKS_PER_SEC;
    printf("report of 32 layers: %zu bytes, %.3f s\n", strlen(report), seconds);
    EXPECT(strlen(report) < 1 << 20, "the report has %zu bytes", strlen(report));
    EXPECT(seconds < 2, "it took %.1f s", seconds);
    expect_in_page("> Passed</h2>", true);
    expect_in_page("rose by <strong>3.7&nbsp;%</strong>", true);
    expect_in_page("&lt;script&gt;alert(1)", true);
    expect_in_page("<script", false);
    expect_in_page("<img", false);
    expect_in_page("<span class=\"prompt\">&lt;b&gt;</span>&lt;/p&gt;</p>", true);
    static const char *const sections[] = {"quality",     "samples", "training",      "model",
                                           "activations", "size",    "configuration", "time"};
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        char heading[64];
        snprintf(heading, sizeof heading, "<section id=\"%s\"", sections[i]);
        expect_in_page(heading, true);
    }
    expect_in_page("<th scope=\"row\">Load the model and the text</th>", true);
    expect_in_page("Against the stored files", false); /* earlier versions did not measure it */
    expect_in_page("What to try next", false);
}

/* A run whose verdict is a failure, with what the page has of it: next steps, sizes of files, blocks from 1
 * as in the log, one form of minus signs. */
static void test_failed_verdict(void)
{
    put_file("results.json",
             "{\"success\": true, \"phase\": \"phase4_bitnet\", \"error\": null, "
             "\"pre_compression\": {\"loss\": 1, \"perplexity\": 2.7, \"tokens\": 10}, "
             "\"post_compression\": {\"perplexity\": 2.0, \"degradation_low\": -0.42, "
             "\"degradation_high\": -0.1}, \"final\": {\"perplexity\": 3.8}, "
             "\"quality\": {\"passed\": false, \"degradation_ratio\": 0.4, \"degradation_low\": -0.25, "
             "\"degradation_high\": 0.5, \"max_accuracy_drop\": 0.1}, "
             "\"metrics\": {\"original_size_mb\": 10, \"compressed_size_mb\": 1, \"stored_files_mb\": 5, "
             "\"packed_file_mb\": 2, \"stored_files_ratio\": 2.5, \"compression_ratio\": 10, "
             "\"target_compression_ratio\": 8, \"total_params\": 7}, "
             "\"reconstruction\": {\"losses\": [{\"first_block\": 0, \"blocks\": 2, \"loss_before\": 1, "
             "\"loss_after\": 0.5}, {\"first_block\": 2, \"blocks\": 1, \"loss_before\": 1, "
             "\"loss_after\": 0.5}]}}");
    make();
    expect_in_page("> Failed</h2>", true);
    expect_in_page(
        "What to try next: more calibration_samples (now 64), more text in train_files (now 1 entry), "
        "a longer fine-tuning: fine_tune_max_steps (now 100);",
        true);
    expect_in_page("<dt>Against the stored files</dt><dd>2.50&times;<small>5.00&nbsp;MiB to 2.00&nbsp;MiB, "
                   "model.h5</small>",
                   true);
    expect_in_page("model.h5 holds 1.00&nbsp;MiB beside the packed model", true);
    expect_in_page("<th scope=\"row\" class=\"n\">1&ndash;2</th>", true);
    expect_in_page("<th scope=\"row\" class=\"n\">3</th>", true);
    expect_in_page("\xE2\x88\x92"
                   "25.0 to +50.0&nbsp;%",
                   true);
    expect_in_page("\xE2\x88\x92"
                   "42.0 to \xE2\x88\x92"
                   "10.0&nbsp;%",
                   true);
    expect_in_page(">-", false);
    expect_in_page("to -", false);
}

/* A directory with the results of a failed run alone. */
static void test_failed_run(void)
{
    static const char *const others[] = {"details.json", "metrics.jsonl", "phase4_config.json",
                                         "samples.json"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char path[2 * P4_PATH_BYTES];
        snprintf(path, sizeof path, "%s/%s", directory, others[i]);
        EXPECT_OK(p4_remove_tree(path));
    }
    put_file("results.json",
             "{\"success\": false, \"phase\": \"phase4_bitnet\", \"error\": \"disk <full>\"}");
    make();
    expect_in_page("The run did not complete", true);
    expect_in_page("disk &lt;full&gt;", true);
    expect_in_page("<section id=\"quality\"", false);
    put_file("results.json", "{\"phase\": \"phase4_bitnet\", \"timing\": [1, 2], \"metrics\": [1], "
                             "\"provenance\": {\"hosts\": 1}, \"reconstruction\": {\"losses\": [1]}}");
    make(); /* members of other types are as if they were not there */
}

/* A run that is under way is no failed one, and shows what it has measured. */
static void test_run_under_way(void)
{
    put_file("results.json",
             "{\"success\": false, \"phase\": \"phase4_bitnet\", \"error\": \"" P4_UNFINISHED_ERROR
             "\", \"metrics\": {\"total_params\": null}, \"timing\": {\"total\": 0}}");
    make();
    expect_in_page("</span> Under way: Load the model and the text</h2>", true);
    expect_in_page("<section id=\"time\"", false);
    expect_in_page("<dl class=\"tiles\"></dl>", true);
    /* The stage that the run names counts, also where the log has no line of it yet. */
    put_file("results.json",
             "{\"success\": false, \"phase\": \"phase4_bitnet\", \"error\": \"" P4_UNFINISHED_ERROR
                 P4_UNFINISHED_STAGE "Reconstruct blocks\"}");
    put_file("metrics.jsonl",
             "{\"kind\":\"evaluation\",\"stage\":\"pre\",\"step\":0,\"loss\":1,\"perplexity\":2.72}\n");
    make();
    expect_in_page("</span> Under way: Reconstruct blocks</h2>", true);
    put_file("results.json",
             "{\"success\": false, \"phase\": \"phase4_bitnet\", \"error\": \"" P4_UNFINISHED_ERROR
             "\", \"metrics\": {\"total_params\": null}}");
    put_file("metrics.jsonl",
             "{\"kind\":\"evaluation\",\"stage\":\"pre\",\"step\":0,\"loss\":1,\"perplexity\":2.72}\n"
             "{\"kind\":\"evaluation\",\"stage\":\"post\",\"step\":0,\"loss\":2,\"perplexity\":7.39}\n"
             "{\"kind\":\"train\",\"step\":30,\"loss\":1.625,\"grad_norm\":1,\"tokens_per_s\":5}\n");
    make();
    expect_in_page("<section id=\"verdict\" class=\"verdict way\"", true);
    expect_in_page("</span> Under way: Fine-tune</h2>", true);
    expect_in_page("1.6250<small>at step 30</small>", true);
    expect_in_page("7.39<small>original 2.72</small>", true);
    expect_in_page("did not complete", false);
    expect_in_page(">Size<", false);
    expect_in_page(" parameters", false);
}

/* Nor is one that was asked to stop. */
static void test_stopped_run(void)
{
    put_file("results.json",
             "{\"success\": false, \"phase\": \"phase4_bitnet\", \"error\": \"" P4_STOPPED_ERROR
             "by SIGTERM; the same command continues it\"}");
    make();
    expect_in_page("<section id=\"verdict\" class=\"verdict way\"", true);
    expect_in_page("</span> Stopped</h2>", true);
    expect_in_page("by SIGTERM; the same command continues it", true);
}

static void test_refused(void)
{
    p4_page_run run;
    put_file("results.json", "{\"success\": true}");
    EXPECT_REFUSED(p4_page_run_read(&run, directory, NULL), "expected \"phase4_bitnet\"");
    p4_page_run_free(&run);
    put_file("results.json", "{\"phase\": \"phase4_bitnet\"}");
    put_file("metrics.jsonl", "[\n");
    EXPECT_REFUSED(p4_page_run_read(&run, directory, NULL), "metrics.jsonl: line 1: not a JSON object");
    p4_page_run_free(&run);
}

/* Calls `check` with what each rule of the style sheet says of a class alone, in whatever width of the
 * window. */
static int each_rule(const char *selector, void (*check)(const char *text))
{
    int count = 0;
    char open[64], text[512];
    snprintf(open, sizeof open, "%s {", selector);
    for (const char *p = strstr(report, open); p != NULL; p = strstr(p + 1, open)) {
        const char *from = p + strlen(open);
        snprintf(text, sizeof text, "%.*s", (int)strcspn(from, "}"), from);
        check(text);
        count++;
    }
    return count;
}

/* Columns would be as narrow as they are told to be, and what is wider is cut off: the list hides it. */
static void expect_no_columns(const char *text)
{
    EXPECT(strstr(text, "grid") == NULL, "tiles have columns: %s", text);
}

static void expect_room(const char *text)
{
    EXPECT(strstr(text, "min-width") == NULL && strstr(text, "overflow:") == NULL &&
               strstr(text, "anywhere") == NULL && strstr(text, "; width:") == NULL,
           "a tile may be narrower than its figure: %s", text);
}

/* However wide the window is: a row of tiles ends where the next one does not fit as wide as its figure. */
static void test_tiles(void)
{
    make();
    EXPECT(each_rule(".tiles", expect_no_columns) >= 2, "no rules for the tiles");
    EXPECT(each_rule(".tile", expect_room) >= 2, "no rules for a tile");
    expect_in_page(".tiles { display: flex; flex-wrap: wrap;", true);
    expect_in_page(".tile { flex: 1 1 max(150px, 22%); max-width: 100%;", true);
}

int main(void)
{
    make_directory();
    test_text();
    test_large_run();
    test_tiles();
    test_failed_verdict();
    test_failed_run();
    test_run_under_way();
    test_stopped_run();
    test_refused();
    remove_directory();
    return TEST_END();
}
