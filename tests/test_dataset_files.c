/* Which files a split reads: named data sets in their forms on disk, and the files of the configuration
 * (io/text/dataset.h). */
#include "dataset_world.h"
#include "src/config.h"
#include "src/phase4/config.h"

static p4_config config;

static void set_list(p4_list *list, const char *first, const char *second)
{
    memset(list, 0, sizeof *list);
    if (first != NULL) {
        p4_list_append(list, first);
    }
    if (second != NULL) {
        p4_list_append(list, second);
    }
}

static void begin(p4_dataset dataset, const char *root)
{
    p4_config_default(&config);
    config.calibration_dataset = dataset;
    snprintf(config.dataset_root, sizeof config.dataset_root, "%s", root != NULL ? at(root) : "");
}

/* The split reads exactly the files `names` (under `root`, separated by spaces), in this order. */
static void expect_files(p4_split split, const char *root, const char *names, bool expected_held_out)
{
    p4_split_files files;
    char got[4096] = "";
    const char *prefix = at(root);
    EXPECT_OK(p4_dataset_files(&files, &config, split));
    for (int64_t i = 0; i < files.count; i++) {
        size_t used = strlen(got), length = strlen(prefix);
        bool below = strncmp(files.paths[i], prefix, length) == 0;
        EXPECT(below, "%s is not in %s", files.paths[i], prefix);
        snprintf(got + used, sizeof got - used, "%s%s", i > 0 ? " " : "",
                 files.paths[i] + (below ? length + 1 : 0));
    }
    EXPECT(strcmp(got, names) == 0, "split %d reads \"%s\", expected \"%s\"", (int)split, got, names);
    EXPECT(files.held_out == expected_held_out, "split %d: held out %d", (int)split, files.held_out);
    p4_split_files_free(&files);
}

static void expect_none(p4_split split, const char *part)
{
    p4_split_files files;
    EXPECT_REFUSED(p4_dataset_files(&files, &config, split), part);
    p4_split_files_free(&files);
}

static void c4_is_found(void)
{
    put_text("c4root/c4/en/c4-train.00001-of-01024.json.gz", "");
    put_text("c4root/c4/en/c4-train.00000-of-01024.json.gz", "");
    put_text("c4root/c4/en/c4-train.00000-of-01024.json", "");
    put_text("c4root/c4/en/other.json.gz", "");
    begin(P4_DATASET_C4, "c4root");
    const char *train = "c4/en/c4-train.00000-of-01024.json c4/en/c4-train.00001-of-01024.json.gz";
    expect_files(P4_SPLIT_CALIBRATION, "c4root", train, false);
    expect_files(P4_SPLIT_TRAIN, "c4root", train, false);
    expect_files(P4_SPLIT_EVAL, "c4root", train, true);
    put_text("c4root/c4/en/c4-validation.00000-of-00008.json.gz", "");
    expect_files(P4_SPLIT_EVAL, "c4root", "c4/en/c4-validation.00000-of-00008.json.gz", false);
    begin(P4_DATASET_C4, "c4root/c4"); /* the folder above en, and en itself */
    expect_files(P4_SPLIT_EVAL, "c4root", "c4/en/c4-validation.00000-of-00008.json.gz", false);
    begin(P4_DATASET_C4, "c4root/c4/en/");
    expect_files(P4_SPLIT_EVAL, "c4root/c4/en", "c4-validation.00000-of-00008.json.gz", false);
    put_text("c4[1]/c4/c4-train.00000-of-01024.json.gz", ""); /* a folder whose name is a pattern */
    begin(P4_DATASET_C4, "c4[1]");
    expect_files(P4_SPLIT_TRAIN, "c4[1]", "c4/c4-train.00000-of-01024.json.gz", false);
    put_text("validation_only/c4-validation.00000-of-00008.json.gz", "");
    begin(P4_DATASET_C4, "validation_only");
    expect_files(P4_SPLIT_EVAL, "validation_only", "c4-validation.00000-of-00008.json.gz", false);
    expect_none(P4_SPLIT_TRAIN,
                "holds no data set c4; looked for c4-train.*.json, c4-train.*.json.gz in its folders "
                "c4/en, c4, en, itself");
}

static void wikitext_is_found(void)
{
    put_text("wiki/wikitext-2-raw/wiki.train.raw", "");
    put_text("wiki/wikitext-2-raw/wiki.test.raw", "");
    begin(P4_DATASET_WIKITEXT, "wiki");
    expect_files(P4_SPLIT_TRAIN, "wiki", "wikitext-2-raw/wiki.train.raw", false);
    expect_files(P4_SPLIT_EVAL, "wiki", "wikitext-2-raw/wiki.test.raw", false);
    put_text("wiki/wikitext-2-raw/wiki.valid.raw", "");
    expect_files(P4_SPLIT_EVAL, "wiki", "wikitext-2-raw/wiki.valid.raw", false);
    begin(P4_DATASET_WIKITEXT, "wiki/wikitext-2-raw");
    expect_files(P4_SPLIT_CALIBRATION, "wiki", "wikitext-2-raw/wiki.train.raw", false);
    put_text("wiki/wikitext-103/wiki.train.tokens", "");
    begin(P4_DATASET_WIKITEXT, "wiki");
    expect_none(P4_SPLIT_TRAIN, "wikitext-103 hold a wikitext; name one of them as dataset_root");
    begin(P4_DATASET_WIKITEXT, "wiki/wikitext-103");
    expect_files(P4_SPLIT_EVAL, "wiki", "wikitext-103/wiki.train.tokens", true);
    put_text("wiki_parquet/wikitext-2-raw-v1/train-00000-of-00001.parquet", "PAR1");
    begin(P4_DATASET_WIKITEXT, "wiki_parquet");
    expect_none(P4_SPLIT_TRAIN, "train-00000-of-00001.parquet: Parquet files are not read; convert it once");
}

static void openwebtext_is_found(void)
{
    begin(P4_DATASET_OPENWEBTEXT, "owt");
    expect_none(P4_SPLIT_TRAIN, "there is no such folder");
    put_text("owt/train.bin", ""); /* of whatever else lies there */
    put_text("owt/c4/x.jsonl.gz", "");
    expect_none(P4_SPLIT_TRAIN, "holds no data set openwebtext; looked for urlsf_subset*.tar");
    put_text("owt/openwebtext/plain_text/train-00000-of-00080.parquet", "PAR1");
    expect_none(P4_SPLIT_TRAIN, "train-00000-of-00080.parquet: Parquet files are not read");
    put_text("owt/openwebtext/b/2.txt", "");
    put_text("owt/openwebtext/b/1.jsonl.zst", "");
    put_text("owt/openwebtext/README.txt", "");
    put_text("owt/openwebtext/dataset_info.json", "");
    put_text("owt/openwebtext/.hidden.txt", "");
    put_text("owt/openwebtext/a.txt.gz", "");
    const char *tree = "openwebtext/a.txt.gz openwebtext/b/1.jsonl.zst openwebtext/b/2.txt";
    expect_files(P4_SPLIT_TRAIN, "owt", tree, false);
    expect_files(P4_SPLIT_EVAL, "owt", tree, true);
    begin(P4_DATASET_OPENWEBTEXT, "owt/openwebtext");
    expect_files(P4_SPLIT_TRAIN, "owt", tree, false);
    begin(P4_DATASET_OPENWEBTEXT, "owt");
    put_text("owt/openwebtext/val.bin", "");
    put_text("owt/openwebtext/train.bin", "");
    expect_files(P4_SPLIT_CALIBRATION, "owt", "openwebtext/train.bin", false);
    expect_files(P4_SPLIT_EVAL, "owt", "openwebtext/val.bin", false);
    put_text("owt/openwebtext/urlsf_subset00-1_data.xz", "");
    expect_files(P4_SPLIT_EVAL, "owt", "openwebtext/urlsf_subset00-1_data.xz", true);
    put_text("owt/openwebtext/subsets/urlsf_subset01.tar", "");
    put_text("owt/openwebtext/subsets/urlsf_subset00.tar", "");
    expect_files(P4_SPLIT_TRAIN, "owt",
                 "openwebtext/subsets/urlsf_subset00.tar openwebtext/subsets/urlsf_subset01.tar", false);
}

static void listed_files_are_found(void)
{
    put_text("own/b.txt", "");
    put_text("own/a.txt", "");
    put_text("own/Z.txt", "");
    put_text("own/[x].txt", "");
    put_text("own/tree/deep/c.jsonl", "");
    put_text("own/tree/d.bin", "");
    put_text("own/columns/train.parquet", "");
    put_text("own/rows/train.csv.gz", "");
    put_text("own/nothing/a.png", "");
    begin(P4_DATASET_CUSTOM, NULL);
    expect_none(P4_SPLIT_TRAIN, "\"custom\" needs calibration_files");
    set_list(&config.calibration_files, at("own/*.txt"), at("own/b.txt"));
    expect_files(P4_SPLIT_CALIBRATION, "own", "Z.txt [x].txt a.txt b.txt", false);
    expect_files(P4_SPLIT_EVAL, "own", "Z.txt [x].txt a.txt b.txt", true);
    set_list(&config.eval_files, at("own/[x].txt"), NULL);
    expect_files(P4_SPLIT_EVAL, "own", "[x].txt", false);
    set_list(&config.train_files, at("own/tree"), at("own/tree/d.bin"));
    expect_files(P4_SPLIT_TRAIN, "own", "tree/deep/c.jsonl tree/d.bin", false);
    set_list(&config.train_files, at("own/tree/d.bin"), at("own/tree/*/c.jsonl"));
    expect_files(P4_SPLIT_TRAIN, "own", "tree/d.bin tree/deep/c.jsonl", false);

    set_list(&config.train_files, at("own/a.txt"), at("own/*.md"));
    expect_none(P4_SPLIT_TRAIN, "own/*.md\": no such file, and no file that matches");
    set_list(&config.train_files, at("own/columns"), NULL);
    expect_none(P4_SPLIT_TRAIN, "train.parquet: Parquet files are not read");
    set_list(&config.train_files, at("own/rows"), NULL);
    expect_none(P4_SPLIT_TRAIN, "train.csv.gz: CSV files are not read");
    set_list(&config.train_files, at("own/nothing"), NULL);
    expect_none(P4_SPLIT_TRAIN, "the folder holds no .txt");
    if (symlink(".", at("own/tree/circle")) == 0) {
        set_list(&config.train_files, at("own/tree"), NULL);
        expect_none(P4_SPLIT_TRAIN, "do links make a circle");
    }

    begin(P4_DATASET_C4, "own");
    set_list(&config.calibration_files, at("own/a.txt"), NULL);
    expect_none(P4_SPLIT_CALIBRATION, "calibration_dataset is \"c4\": set it to \"custom\"");
    begin(P4_DATASET_C4, NULL);
    expect_none(P4_SPLIT_CALIBRATION, "\"c4\" needs dataset_root");
}

int main(void)
{
    world_begin();
    c4_is_found();
    wikitext_is_found();
    openwebtext_is_found();
    listed_files_are_found();
    world_end();
    return TEST_END();
}
