/* Names in braces in output_path. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/config.h"
#include "src/phase4/config.h"

static const char *const job_ids[] = {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", NULL};
static const char *const task_ids[] = {"SLURM_ARRAY_TASK_ID", "PBS_ARRAY_INDEX", "LSB_JOBINDEX",
                                       "SGE_TASK_ID", NULL};

static const char *first_set(const char *const *variables)
{
    for (; *variables != NULL; variables++) {
        const char *value = getenv(*variables);
        if (value != NULL && value[0] != '\0') {
            return value;
        }
    }
    return NULL;
}

const char *p4_job_id(void)
{
    return first_set(job_ids);
}

const char *p4_job_task(void)
{
    return first_set(task_ids);
}

/* The last name of model_path; of a hub cache "ORG--MODEL", also where the path leads to one of its
 * snapshots. */
static void find_model(char *value, const p4_config *config)
{
    const char *path = config->model_path, *end = path + strlen(path), *start;
    const char *snapshot = strstr(path, "/snapshots/");
    end = snapshot != NULL ? snapshot : end;
    while (end > path + 1 && end[-1] == '/') {
        end--;
    }
    for (start = end; start > path && start[-1] != '/'; start--) {
    }
    if (strncmp(start, "models--", strlen("models--")) == 0) {
        start += strlen("models--");
    }
    bool is_name =
        strncmp(start, ".", (size_t)(end - start)) != 0 && strncmp(start, "..", (size_t)(end - start)) != 0;
    snprintf(value, P4_PATH_BYTES, "%.*s", is_name ? (int)(end - start) : 0, start);
}

static void find_date(char *value, const p4_config *config)
{
    struct tm local;
    time_t now = time(NULL);
    (void)config;
    if (localtime_r(&now, &local) != NULL) {
        strftime(value, P4_PATH_BYTES, "%Y-%m-%d", &local);
    }
}

static void copy_variable(char *value, const char *found)
{
    snprintf(value, P4_PATH_BYTES, "%s", found != NULL ? found : "");
}

static void find_jobid(char *value, const p4_config *config)
{
    (void)config;
    copy_variable(value, p4_job_id());
}

static void find_taskid(char *value, const p4_config *config)
{
    (void)config;
    copy_variable(value, p4_job_task());
}

/* Fills in value [P4_PATH_BYTES]; "": there is none. */
typedef struct placeholder {
    const char *name, *missing;
    void (*find)(char *value, const p4_config *config);
} placeholder;
static const placeholder placeholders[] = {
    {"{model}", "model_path ends in no name", find_model},
    {"{date}", "the system has no local date", find_date},
    {"{jobid}", "this is no batch job: none of SLURM_JOB_ID, PBS_JOBID, LSB_JOBID and JOB_ID is set",
     find_jobid},
    {"{taskid}",
     "this is no task of a job array: none of SLURM_ARRAY_TASK_ID, "
     "PBS_ARRAY_INDEX, LSB_JOBINDEX and SGE_TASK_ID is set",
     find_taskid},
};
enum { PLACEHOLDERS = sizeof placeholders / sizeof placeholders[0] };

/* The one that stands at `at`, NULL: none. */
static const placeholder *find_placeholder(const char *at)
{
    for (int i = 0; i < PLACEHOLDERS; i++) {
        if (strncmp(at, placeholders[i].name, strlen(placeholders[i].name)) == 0) {
            return &placeholders[i];
        }
    }
    return NULL;
}

const char *p4_config_find_unknown_brace(const char *text)
{
    while ((text = strpbrk(text, "{}")) != NULL) {
        const placeholder *known = find_placeholder(text);
        if (known == NULL) {
            return text;
        }
        text += strlen(known->name);
    }
    return NULL;
}

p4_rc p4_config_expand_output_path(p4_config *config)
{
    p4_rc rc = P4_OK;
    char *expanded = p4_alloc(P4_PATH_BYTES, 1), *value = p4_alloc(P4_PATH_BYTES, 1);
    size_t used = 0;
    if (expanded == NULL || value == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    for (const char *at = config->output_path; *at != '\0';) {
        const placeholder *here = find_placeholder(at);
        value[0] = *at;
        value[1] = '\0';
        if (here != NULL) {
            value[0] = '\0';
            here->find(value, config);
            CHECK(value[0] != '\0', "key \"output_path\": found \"%s\", but %s", here->name, here->missing);
            CHECK(strchr(value, '/') == NULL,
                  "key \"output_path\": \"%s\" is \"%s\", expected a name without \"/\"", here->name, value);
        }
        CHECK(used + strlen(value) < P4_PATH_BYTES,
              "key \"output_path\": is longer than %d bytes with its names in braces replaced",
              P4_PATH_BYTES - 1);
        memcpy(expanded + used, value, strlen(value));
        used += strlen(value);
        at += here != NULL ? strlen(here->name) : 1;
    }
    memset(config->output_path, 0, sizeof config->output_path);
    memcpy(config->output_path, expanded, used);
done:
    free(expanded);
    free(value);
    return rc;
}
