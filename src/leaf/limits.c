#define _GNU_SOURCE /* sched_getaffinity, cpu_set_t */
#include "src/leaf/limits.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, FILE_BYTES = 16384 };
static const int64_t NO_LIMIT = (int64_t)1 << 60; /* version 1 writes the largest number of pages */

/* The beginning of DIRECTORY/NAME; false: it cannot be read. */
static bool read_file(char text[FILE_BYTES], const char *directory, const char *name)
{
    char path[PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "re");
    size_t got = file != NULL ? fread(text, 1, FILE_BYTES - 1, file) : 0;
    if (file != NULL) {
        fclose(file);
    }
    text[got] = '\0';
    return got > 0;
}

/* -1: there is none. "max" is one, too large to count. */
static int64_t read_number(const char *directory, const char *name)
{
    char text[FILE_BYTES];
    if (!read_file(text, directory, name)) {
        return -1;
    }
    return strncmp(text, "max", 3) == 0 ? NO_LIMIT : strtoll(text, NULL, 10);
}

/* The number behind a word at the beginning of a line; 0: there is none. */
static int64_t find_number(const char *text, const char *word)
{
    size_t length = strlen(word);
    for (const char *line = text; line != NULL && *line != '\0';) {
        if (strncmp(line, word, length) == 0 && (line[length] == ' ' || line[length] == ':')) {
            return strtoll(line + length + 1, NULL, 10);
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return 0;
}

static void take_cpus(p4_limits *limits, double quota, double period)
{
    if (quota > 0 && period > 0 && (limits->cpus == 0 || quota / period < limits->cpus)) {
        limits->cpus = quota / period;
    }
}

static void take_memory(p4_limits *limits, const char *directory, int64_t limit, const char *used_name,
                        const char *droppable)
{
    char text[FILE_BYTES];
    if (limit <= 0 || limit >= NO_LIMIT || (limits->memory_bytes > 0 && limit >= limits->memory_bytes)) {
        return;
    }
    int64_t used = read_number(directory, used_name);
    used -= read_file(text, directory, "memory.stat") ? find_number(text, droppable) : 0;
    limits->memory_bytes = limit;
    limits->memory_used_bytes = used > 0 ? used : 0;
}

/* What one directory of one hierarchy says. Files of the other version are not there. */
static void take_directory(p4_limits *limits, const char *directory)
{
    char text[FILE_BYTES];
    double quota, period;
    if (read_file(text, directory, "cpu.max") && sscanf(text, "%lf %lf", &quota, &period) == 2) {
        take_cpus(limits, quota, period);
    }
    take_cpus(limits, (double)read_number(directory, "cpu.cfs_quota_us"),
              (double)read_number(directory, "cpu.cfs_period_us"));
    take_memory(limits, directory, read_number(directory, "memory.max"), "memory.current", "inactive_file");
    take_memory(limits, directory, read_number(directory, "memory.limit_in_bytes"), "memory.usage_in_bytes",
                "total_inactive_file");
}

/* A group and all around it. In a container the group's path may be the host's: the mount's root is its own
 * then. */
static void take_hierarchy(p4_limits *limits, const char *mount, const char *group)
{
    char directory[PATH_BYTES];
    size_t root = strlen(mount);
    snprintf(directory, sizeof directory, "%s%s", mount, group);
    for (;;) {
        take_directory(limits, directory);
        char *slash = strrchr(directory, '/');
        if (strlen(directory) <= root || slash == NULL) {
            return;
        }
        *slash = '\0';
    }
}

p4_limits p4_limits_read(const char *root)
{
    p4_limits limits = {0};
    char text[FILE_BYTES], mount[PATH_BYTES], *rest = text;
    if (!read_file(text, root, "proc/self/cgroup")) {
        return limits;
    }
    for (char *line; (line = strtok_r(rest, "\n", &rest)) != NULL;) {
        char *controllers = strchr(line, ':'),
             *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL || strlen(group) >= PATH_BYTES / 2) {
            continue;
        }
        *group++ = '\0';
        controllers++;
        if (*controllers == '\0') { /* version 2 */
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", root);
            take_hierarchy(&limits, mount, group);
            continue;
        }
        bool counts = false; /* "cpu" of "cpu,cpuacct" */
        char *each = controllers;
        for (char *name; (name = strtok_r(each, ",", &each)) != NULL;) {
            if (!counts && (strcmp(name, "cpu") == 0 || strcmp(name, "memory") == 0)) {
                counts = true;
                snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", root, name);
            }
        }
        if (counts) {
            take_hierarchy(&limits, mount, group);
        }
    }
    return limits;
}

double p4_cores_here(void)
{
    cpu_set_t mine;
    double quota = p4_limits_read("").cpus;
    double cores = sched_getaffinity(0, sizeof mine, &mine) == 0 ? CPU_COUNT(&mine) /* fails beyond 1024 */
                                                                 : (double)sysconf(_SC_NPROCESSORS_ONLN);
    return quota > 0 && quota < cores ? quota : cores;
}

void p4_memory_read(const char *root, int64_t *total_bytes, int64_t *available_bytes)
{
    char text[FILE_BYTES];
    bool known = read_file(text, root, "proc/meminfo");
    *total_bytes = known ? 1024 * (find_number(text, "MemTotal") + find_number(text, "SwapFree")) : 0;
    *available_bytes = known ? 1024 * find_number(text, "MemAvailable") : 0;
}

int64_t p4_memory_free(const char *root)
{
    int64_t total, available;
    p4_limits limits = p4_limits_read(root);
    p4_memory_read(root, &total, &available);
    int64_t free_bytes = total > 0 ? available : INT64_MAX;
    if (limits.memory_bytes > 0) {
        free_bytes = p4_min_i64(free_bytes, p4_max_i64(0, limits.memory_bytes - limits.memory_used_bytes));
    }
    return free_bytes;
}

static double own_memory(const char *word)
{
    char text[FILE_BYTES];
    return read_file(text, "", "proc/self/status") ? 1024.0 * (double)find_number(text, word) : 0;
}

double p4_memory_anonymous(void)
{
    return own_memory("RssAnon");
}

double p4_memory_resident(void)
{
    return own_memory("VmRSS");
}
