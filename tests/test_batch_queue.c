/* What a queue says of its models, and by what a model is known again. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "io/batch/models.h"
#include "io/batch/queue.h"
#include "io/file/atomic_file.h"

#define HOLDS(ok) EXPECT(ok, "expected to hold")

static void write_file(const char *folder, const char *name, const char *text)
{
    char *path = p4_format("%s/%s", folder, name);
    EXPECT_OK(p4_atomic_write_all(path, text, strlen(text)));
    free(path);
}

/* Reads the queue `text` in a folder with the configuration files a.json and b.json. */
static p4_rc read_queue(p4_queue *queue, const char *text)
{
    char folder[] = "/tmp/p4_queue_XXXXXX", *whole = NULL, *path;
    HOLDS(mkdtemp(folder) != NULL);
    write_file(folder, "a.json", "{\"model_path\": \"models/own\"}");
    write_file(folder, "b.json", "{}");
    whole = p4_strdup("");
    for (const char *at = text; *at != '\0'; at++) { /* '@' stands for the folder */
        char *longer = *at == '@' ? p4_format("%s%s", whole, folder) : p4_format("%s%c", whole, *at);
        free(whole);
        whole = longer;
    }
    write_file(folder, "queue.json", whole);
    free(whole);
    path = p4_format("%s/queue.json", folder);
    p4_rc rc = p4_queue_read(queue, path, NULL);
    free(path);
    EXPECT_OK(p4_remove_tree(folder));
    return rc;
}

/* Each model of a configuration file has a name that tells it from the others and does not depend on them. */
static void models_of_one_file(void)
{
    static const char list[] =
        "[{\"cfg\": \"@/a.json\", \"model_path\": \"models/llama\"},"
        " {\"cfg\": \"@/a.json\", \"model_path\": \"models/gpt2/\"},"
        " {\"cfg\": \"@/b.json\", \"model_path\": \"models/llama\"},"
        " {\"cfg\": \"@/a.json\", \"seed\": 7}, \"@/b.json\","
        " {\"cfg\": {\"model_path\": \"x/one\"}, \"model_path\": \"x/two\"},"
        " {\"cfg\": {\"model_path\": \"x/one\"}},"
        " {\"cfg\": {}, \"model_path\": \"x/three\"},"
        " {\"cfg\": \"@/a.json\", \"model_path\": \"models/llama\", \"name\": \"given\"}]";
    static const char *const names[] = {"a-llama", "a-gpt2", "b-llama", "a",    "b",
                                        "two",     "one",    "three",   "given"};
    p4_queue queue;
    enum { MODELS = sizeof names / sizeof names[0] };
    EXPECT_OK(read_queue(&queue, list));
    HOLDS(queue.count == MODELS);
    for (int i = 0; i < MODELS && i < queue.count; i++) {
        EXPECT(strcmp(queue.entries[i].name, names[i]) == 0, "model %d is named %s", i + 1,
               queue.entries[i].name);
    }
    p4_queue_free(&queue);
    EXPECT_OK(read_queue(&queue, "[{\"cfg\": \"@/a.json\", \"model_path\": \"models/gpt2\"}]")); /* alone */
    HOLDS(queue.count == 1 && strcmp(queue.entries[0].name, "a-gpt2") == 0);
    p4_queue_free(&queue);
    EXPECT_REFUSED(read_queue(&queue, "[{\"cfg\": \"@/a.json\", \"model_path\": \"llama\", \"seed\": 1},"
                                      " {\"cfg\": \"@/a.json\", \"model_path\": \"llama\", \"seed\": 2}]"),
                   "both are named \"a-llama\", expected names that differ");
    p4_queue_free(&queue);
}

/* A key of the batch that is misspelled is taken for that key, and not for the key of a configuration that
 * has it in its name; it is the entry's failure. One beside "models" is named before what is missing without
 * it. */
static void misspelled_keys(void)
{
    static const struct {
        const char *entry, *error; /* NULL: the reader of configurations names it */
    } cases[] = {{"\"rank\": 1", "model 1: unknown key \"rank\", the nearest known key is \"ranks\""},
                 {"\"max_rank\": 1", "unknown key \"max_rank\", the nearest known key is \"max_ranks\""},
                 {"\"nmae\": \"a\"", "unknown key \"nmae\", the nearest known key is \"name\""},
                 {"\"seeds\": 1", NULL},
                 {"\"lr\": 1", NULL},
                 {"\"// rank\": 1, \"ranks\": 1, \"seed\": 1", NULL}};
    p4_queue queue;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = p4_format("[{\"model_path\": \"a\", %s}, {\"model_path\": \"b\"}]", cases[i].entry);
        EXPECT_OK(read_queue(&queue, text));
        const char *error = queue.count == 2 ? queue.entries[0].error : "no two models";
        bool as_expected =
            cases[i].error == NULL ? error == NULL : error != NULL && strstr(error, cases[i].error) != NULL;
        EXPECT(as_expected, "%s: %s", cases[i].entry, error != NULL ? error : "no error");
        HOLDS(queue.count == 2 && queue.entries[1].error == NULL);
        p4_queue_free(&queue);
        free(text);
    }
    EXPECT_REFUSED(read_queue(&queue, "{\"models\": \"m\", \"templat\": {}}"),
                   "unknown key \"templat\"; the keys of a queue are models, template, ranks, max_ranks");
    p4_queue_free(&queue);
    EXPECT_REFUSED(read_queue(&queue, "{\"models\": \"m\"}"), "key \"template\": expected a configuration");
    p4_queue_free(&queue);
}

/* A link to nothing is no file of the model; what cannot be examined must not make it pass for another. */
static void files_that_cannot_be_examined(void)
{
    char folder[] = "/tmp/p4_queue_XXXXXX", fingerprint[P4_FINGERPRINT_BYTES],
         with_link[P4_FINGERPRINT_BYTES], name[64];
    uint64_t shape, shape_with_link;
    HOLDS(mkdtemp(folder) != NULL);
    write_file(folder, "config.json", "{}");
    EXPECT_OK(p4_model_fingerprint(fingerprint, folder));
    EXPECT_OK(p4_model_shape(&shape, folder));
    snprintf(name, sizeof name, "%s/model.safetensors", folder);
    HOLDS(symlink("nothing", name) == 0);
    EXPECT_OK(p4_model_fingerprint(with_link, folder));
    EXPECT_OK(p4_model_shape(&shape_with_link, folder));
    HOLDS(strcmp(fingerprint, with_link) == 0 && shape == shape_with_link);
    HOLDS(unlink(name) == 0 && symlink("model.safetensors", name) == 0); /* to itself: ELOOP */
    EXPECT_REFUSED(p4_model_fingerprint(fingerprint, folder), "model.safetensors: cannot examine: ");
    EXPECT_REFUSED(p4_model_shape(&shape, folder), "model.safetensors: cannot examine: ");
    EXPECT_OK(p4_remove_tree(folder));
}

int main(void)
{
    models_of_one_file();
    misspelled_keys();
    files_that_cannot_be_examined();
    return TEST_END();
}
