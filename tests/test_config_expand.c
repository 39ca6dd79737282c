/* {model}, {date}, {jobid} and {taskid} in output_path. */
#include <stdlib.h>
#include <time.h>

#include "check.h"
#include "src/config.h"
#include "src/phase4.h"

static p4_config config;

static p4_rc expand(const char *model_path, const char *output_path)
{
    p4_config_default(&config);
    snprintf(config.model_path, sizeof config.model_path, "%s", model_path);
    snprintf(config.output_path, sizeof config.output_path, "%s", output_path);
    return p4_config_expand_output_path(&config);
}

static void expect(const char *model_path, const char *output_path, const char *want)
{
    EXPECT_OK(expand(model_path, output_path));
    EXPECT(strcmp(config.output_path, want) == 0, "%s of %s is %s, expected %s", output_path, model_path,
           config.output_path, want);
}

/* Today, or the day that it has become meanwhile. */
static void test_date(void)
{
    char before[32] = "", after[32] = "";
    struct tm local;
    time_t now = time(NULL);
    EXPECT(localtime_r(&now, &local) != NULL && strftime(before, sizeof before, "runs-%Y-%m-%d", &local) > 0,
           "date");
    EXPECT_OK(expand("m", "runs-{date}"));
    now = time(NULL);
    EXPECT(localtime_r(&now, &local) != NULL && strftime(after, sizeof after, "runs-%Y-%m-%d", &local) > 0,
           "date");
    EXPECT(strcmp(config.output_path, before) == 0 || strcmp(config.output_path, after) == 0,
           "found %s, expected %s", config.output_path, before);
}

static void clear_job(void)
{
    static const char *const variables[] = {"SLURM_JOB_ID", "PBS_JOBID",           "LSB_JOBID",
                                            "JOB_ID",       "SLURM_ARRAY_TASK_ID", "PBS_ARRAY_INDEX",
                                            "LSB_JOBINDEX", "SGE_TASK_ID"};
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        unsetenv(variables[i]);
    }
}

static void test_values(void)
{
    clear_job();
    expect("m", "plain/out", "plain/out");
    expect("models/llama-1B//", "out/{model}", "out/llama-1B");
    expect("m", "{model}{model}", "mm");
    expect("cache/models--org--name", "{model}", "org--name");
    expect("cache/models--org--name/snapshots/0123abc", "a/{model}/b", "a/org--name/b");
    EXPECT_REFUSED(expand("m", "{jobid}"),
                   "found \"{jobid}\", but this is no batch job: none of SLURM_JOB_ID");
    EXPECT_REFUSED(expand("m", "{taskid}"), "found \"{taskid}\", but this is no task of a job array");
    EXPECT_REFUSED(expand("..", "{model}"), "model_path ends in no name");
    EXPECT_REFUSED(expand("./", "{model}"), "model_path ends in no name");
    setenv("SLURM_JOB_ID", "17", 1);
    setenv("SLURM_ARRAY_TASK_ID", "4", 1);
    expect("m", "o/{jobid}_{taskid}", "o/17_4");
    setenv("SLURM_JOB_ID", "../17", 1);
    EXPECT_REFUSED(expand("m", "{jobid}"), "expected a name without \"/\"");
    clear_job();
    setenv("PBS_JOBID", "9.server", 1);
    expect("m", "{jobid}", "9.server");
    clear_job();
    char path[P4_PATH_BYTES];
    memset(path, 'x', sizeof path);
    snprintf(path + P4_PATH_BYTES - 8, 8, "{model}");
    EXPECT_REFUSED(expand("a-long-name", path), "longer than 4095 bytes");
}

static void test_names(void)
{
    p4_config_default(&config);
    config.calibration_samples = config.eval_samples = 0;
    config.enable_fine_tuning = false;
    snprintf(config.model_path, sizeof config.model_path, "m");
    snprintf(config.output_path, sizeof config.output_path, "{model}/{date}-{jobid}-{taskid}");
    EXPECT_OK(p4_config_validate_job(&config));
    static const char *const wrong[] = {"out/{modle}", "{", "a}b", "{model", "{{model}}", "{Date}"};
    static const char *const found[] = {"\"{modle}\"", "\"{\"",        "\"}\"",
                                        "\"{model\"",  "\"{{model}\"", "\"{Date}\""};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(config.output_path, sizeof config.output_path, "%s", wrong[i]);
        EXPECT_REFUSED(p4_config_validate_job(&config), found[i]);
        EXPECT_REFUSED(p4_config_validate_job(&config), "expected {model}, {date}, {jobid} or {taskid}");
    }
}

int main(void)
{
    test_date();
    test_values();
    test_names();
    return TEST_END();
}
