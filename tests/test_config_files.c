/* The configuration in files: p4_config_read_file with the arguments of a command line, and the example
 * configurations in jobs/cfg/. */
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "io/json/config.h"

static p4_config config, other;

static char folder[] = "/tmp/phase4-config.XXXXXX";

static const char *write_file(const char *name, const char *text, size_t bytes)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    EXPECT(file != NULL && fwrite(text, 1, bytes, file) == bytes && fclose(file) == 0, "%s cannot be written",
           path);
    return path;
}

static void test_read_file(void)
{
    const char *text =
        "{\"model_path\": \"m\", \"seed\": 1,\n\"dataset_root\": \"d\", \"global_batch_tokens\": 4096}";
    char *overrides[] = {"seed=2", "recipe=seed", "seed=3", "calibration_sequence_length=1024",
                         "eval_files=[\"x=y\", \"z\"]"};
    char *bad[] = {"sede=2", "log_every=-1", "no-equals", "=3", "calibration_sequence_length=1000"};
    const char *path = write_file("cfg.json", text, strlen(text));
    EXPECT_OK(p4_config_read_file(&config, path, P4_RECIPE_QUALITY, NULL, 0));
    EXPECT(config.seed == 1 && config.reconstruct, "the file alone");
    EXPECT_OK(p4_config_read_file(&config, path, P4_RECIPE_QUALITY, overrides, 5));
    EXPECT(config.seed == 3 && config.optimizer == P4_OPTIMIZER_MUGROKFAST &&
               config.global_batch_tokens == 4096 && config.calibration_sequence_length == 1024 &&
               config.eval_files.count == 2,
           "overrides win, the last one first");
    memcpy(&other, &config, sizeof other);
    EXPECT_REFUSED(p4_config_read_file(&config, path, P4_RECIPE_QUALITY, bad, 5),
                   "command line: unknown key \"sede\", the nearest known key is \"seed\"\n"
                   "command line: key \"log_every\": found -1, expected a whole number in [1, 1000000000]\n"
                   "command line: found \"no-equals\", expected key=value\n"
                   "command line: found \"=3\", expected key=value\n");
    EXPECT_REFUSED(p4_config_read_file(&config, path, P4_RECIPE_QUALITY, bad, 5),
                   "cfg.json:2: key \"global_batch_tokens\": found 4096, expected a multiple of");
    EXPECT(memcmp(&config, &other, sizeof config) == 0, "a refused file changed the configuration");
    path = write_file("empty.json", "", 0);
    EXPECT_REFUSED(p4_config_read_file(&config, path, P4_RECIPE_QUALITY, NULL, 0),
                   "empty.json: is empty, expected");
    EXPECT(strchr(p4_last_error(), '\n') == NULL, "a file without keys has one error: %s", p4_last_error());
    path = write_file("job.json", "{}", 2);
    EXPECT_REFUSED(p4_config_read_file(&config, path, P4_RECIPE_QUALITY, NULL, 0),
                   "job.json: key \"model_path\": found \"\", expected the directory of a model\n");
    EXPECT_REFUSED(p4_config_read_file(&config, folder, P4_RECIPE_QUALITY, NULL, 0),
                   "is a directory, expected");
    EXPECT_REFUSED(p4_config_read_file(&config, "/nonexistent/cfg.json", P4_RECIPE_QUALITY, NULL, 0),
                   "/nonexistent/cfg.json: cannot be opened: No such file or directory");
    EXPECT_REFUSED(p4_config_read_file(&config, "/dev/zero", P4_RECIPE_QUALITY, NULL, 0),
                   "has more than 16777216 bytes");
    path = write_file("large.json", text, strlen(text));
    EXPECT(truncate(path, (16 << 20) + 1) == 0, "%s cannot be made larger", path);
    EXPECT_REFUSED(p4_config_read_file(&config, path, P4_RECIPE_QUALITY, NULL, 0),
                   "large.json: has 16777217 bytes, expected a configuration file of at most 16777216");
}

/* Files without the data set that reads them: what is missing is said, and a data set that was given is
 * named. */
static void test_calibration_files(void)
{
    static const char absent[] = "{\"model_path\": \"m\", \"calibration_files\": [\"a.txt\"]}",
                      other_set[] = "{\"model_path\": \"m\", \"calibration_files\": [\"a.txt\"], "
                                    "\"calibration_dataset\": \"openwebtext\"}";
    const char *path = write_file("absent.json", absent, strlen(absent));
    EXPECT_REFUSED(p4_config_read_file(&config, path, P4_RECIPE_QUALITY, NULL, 0),
                   "key \"calibration_files\": found 1 entry, but calibration_dataset is not given, whose "
                   "default is \"openwebtext\": set it to \"custom\", which reads them");
    path = write_file("other.json", other_set, strlen(other_set));
    EXPECT_REFUSED(p4_config_read_file(&config, path, P4_RECIPE_QUALITY, NULL, 0),
                   "found 1 entry, expected none with calibration_dataset \"openwebtext\": \"custom\" reads");
}

static void test_examples(void)
{
    static const char *const names[] = {"quality", "seed", "c4_slurm", "docs_gpu", "laptop"};
    static const p4_recipe recipes[] = {P4_RECIPE_QUALITY, P4_RECIPE_SEED, P4_RECIPE_QUALITY,
                                        P4_RECIPE_QUALITY, P4_RECIPE_QUALITY};
    for (int i = 0; i < 5; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/../../jobs/cfg/%s.json", P4_FIXTURES, names[i]);
        EXPECT_OK(p4_config_read_file(&config, path, P4_RECIPE_QUALITY, NULL, 0));
        EXPECT(config.recipe == recipes[i], "%s has recipe %d", names[i], (int)config.recipe);
    }
    /* seed.json writes the specification's defaults out: beside its paths nothing differs from them. */
    char path[512];
    snprintf(path, sizeof path, "%s/../../jobs/cfg/seed.json", P4_FIXTURES);
    EXPECT_OK(p4_config_read_file(&config, path, P4_RECIPE_QUALITY, NULL, 0));
    p4_config_default(&other);
    memcpy(other.model_path, config.model_path, sizeof other.model_path);
    memcpy(other.dataset_root, config.dataset_root, sizeof other.dataset_root);
    memcpy(other.user_set, config.user_set, sizeof other.user_set);
    EXPECT(memcmp(&config, &other, sizeof config) == 0, "seed.json is not the seed recipe");
}
int main(void)
{
    EXPECT(mkdtemp(folder) != NULL, "%s cannot be made", folder);
    test_read_file();
    test_calibration_files();
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    EXPECT(system(command) == 0, "%s", command);
    test_examples();
    return TEST_END();
}
