#include "io/out/holder.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "io/json/write.h"
#include "src/config.h"

enum { FILE_BYTES = 4096 };

/* The beginning of a small file, without the newline at its end; "" where there is none. */
static void read_line(char *line, size_t room, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, line, room - 1) : 0;
    if (fd >= 0) {
        close(fd);
    }
    line[got > 0 ? got : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
}

/* boot_bytes: how much of it is the machine's part. */
static void find_place(char place[160], size_t *boot_bytes)
{
    char boot[64], numbers[64] = "";
    read_line(boot, sizeof boot, "/proc/sys/kernel/random/boot_id");
    ssize_t length = readlink("/proc/self/ns/pid", numbers, sizeof numbers - 1);
    numbers[length > 0 ? length : 0] = '\0';
    *boot_bytes = strlen(boot) + 1;
    snprintf(place, 160, "%s/%s", boot, numbers);
}

/* -1: there is no such process, or no /proc. Field 22 of its stat; the second one, a name in parentheses, may
 * hold anything. */
static int64_t birth_of(int64_t process)
{
    char path[64], line[1024];
    unsigned long long born = 0;
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)process);
    read_line(line, sizeof line, path);
    const char *end = strrchr(line, ')');
    if (end == NULL ||
        sscanf(end + 1, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
               &born) != 1) {
        return -1;
    }
    return (int64_t)born;
}

/* "42", or "42, task 3" of a job array; "" outside of a job. */
static void find_job(char job[64])
{
    const char *id = p4_job_id(), *task = p4_job_task();
    snprintf(job, 64, "%.40s%s%.12s", id != NULL ? id : "", task != NULL ? ", task " : "",
             task != NULL ? task : "");
}

char *p4_holder_self_text(void)
{
    char host[64] = "unknown", place[160], job[64], since[40] = "";
    size_t boot_bytes;
    struct tm local;
    time_t now = time(NULL);
    (void)gethostname(host, sizeof host - 1);
    find_place(place, &boot_bytes);
    find_job(job);
    if (localtime_r(&now, &local) != NULL) {
        strftime(since, sizeof since, "%Y-%m-%d %H:%M:%S %z", &local);
    }
    cJSON *root = cJSON_CreateObject();
    bool ok = p4_json_put_text(root, "host", host) && p4_json_put_whole(root, "process", (int64_t)getpid()) &&
              p4_json_put_text(root, "job", job) && p4_json_put_text(root, "since", since) &&
              p4_json_put_text(root, "place", place) &&
              p4_json_put_whole(root, "born", birth_of((int64_t)getpid()));
    return p4_json_print(root, ok, false);
}

static void take_text(char *to, size_t room, const cJSON *root, const char *key)
{
    char excerpt[80];
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, key));
    if (text != NULL) {
        snprintf(to, room, "%s", room <= 80 ? p4_config_format_excerpt(excerpt, text, strlen(text)) : text);
    }
}

static int64_t take_number(const cJSON *root, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, key);
    return cJSON_IsNumber(item) ? (int64_t)item->valuedouble : -1;
}

void p4_holder_read(p4_holder *holder, int fd)
{
    char text[FILE_BYTES];
    ssize_t got = pread(fd, text, sizeof text, 0);
    cJSON *root = got > 0 ? cJSON_ParseWithLength(text, (size_t)got) : NULL;
    *holder = (p4_holder){.empty = root == NULL, .process = -1, .born = -1};
    take_text(holder->host, sizeof holder->host, root, "host");
    take_text(holder->job, sizeof holder->job, root, "job");
    take_text(holder->since, sizeof holder->since, root, "since");
    take_text(holder->place, sizeof holder->place, root, "place");
    holder->process = take_number(root, "process");
    holder->born = take_number(root, "born");
    cJSON_Delete(root);
}

p4_life p4_holder_life(const p4_holder *holder)
{
    char here[160];
    size_t boot_bytes;
    find_place(here, &boot_bytes);
    if (boot_bytes == 1 || strncmp(here, holder->place, boot_bytes) != 0) {
        return P4_LIFE_ELSEWHERE;
    }
    if (strcmp(here, holder->place) != 0 || holder->process <= 0) {
        return P4_LIFE_HERE;
    }
    if (kill((pid_t)holder->process, 0) != 0 && errno == ESRCH) {
        return P4_LIFE_ENDED;
    }
    int64_t born = birth_of(holder->process);
    return born < 0 || holder->born < 0 ? P4_LIFE_HERE
                                        : (born == holder->born ? P4_LIFE_RUNS : P4_LIFE_ENDED);
}

char *p4_holder_describe(char text[P4_HOLDER_TEXT_BYTES], const p4_holder *holder)
{
    if (holder->empty) {
        snprintf(text, P4_HOLDER_TEXT_BYTES, "a process that has not written its name");
    } else {
        snprintf(text, P4_HOLDER_TEXT_BYTES, "host %s, process %lld%s%s, since %s", holder->host,
                 (long long)holder->process, holder->job[0] != '\0' ? ", job " : "", holder->job,
                 holder->since);
    }
    return text;
}
