/* fault_injector - a library for LD_PRELOAD (tests/soak.sh) that makes the file system fail, or the process
 * die, at the n-th call of one rank that changes something below a directory. HDF5's calls are seen too.
 * It can also hold a process up behind a write: what a test does there need not be quick.
 *
 *   P4_FAULT=RANK,CALL,KIND   RANK of the launcher (0 without one); CALL from 1
 *   P4_FAULT_UNDER=TEXT       calls count on paths that contain TEXT
 *   P4_FAULT_COUNT=PATH       PATH.RANK gets the number of calls when the process exits
 *   P4_NO_STAT=COUNT,TEXT     stat of a path that ends with TEXT fails with EIO from the COUNT-th call on
 *   P4_PACE_MS=COUNT          each write sleeps so long when it has written
 *   P4_HOLD=COUNT,TEXT        the process waits, once, when a file that it wrote to has TEXT in COUNT lines;
 *                             with no TEXT behind the COUNT-th write
 *   P4_HOLD_FILE=PATH         it makes PATH.held then, and waits until PATH is there or PATH.held is gone
 *   P4_HOLD_SIGNAL=1          or until it has handled SIGTERM, SIGUSR1 or SIGINT
 *
 * KIND: full      the disk is full from here on: the first write is a short one
 *       error     this call fails with EIO, the later ones work
 *       readonly  from here on no file can be created, opened for writing, renamed or removed (EROFS)
 *       kill      SIGKILL before the call; of a write, after half of it
 *       stop      SIGUSR1 before the call, which works */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum kind { NO_FAULT, FULL, ERROR, READONLY, KILL, STOP };
enum effect { NAMES, SPACE, SYNC }; /* what a call needs: a directory that can change, room, or neither */

static enum kind kind;
static long fault_at;
static long pace_ms, hold_at;
static const char *hold_text, *hold_file;
static bool hold_signal;
static _Atomic long writes_seen;
static _Atomic bool was_held;
static _Atomic long signals_seen;
static void (*handlers[NSIG])(int);
static const char *under;
static _Atomic long calls;

static const char *rank_text(void)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    return rank != NULL ? rank : "0";
}

__attribute__((constructor)) static void read_environment(void)
{
    static const char *const kinds[] = {"", "full", "error", "readonly", "kill", "stop"};
    const char *fault = getenv("P4_FAULT");
    char name[16] = "";
    int rank = 0;
    long at = 0;
    under = getenv("P4_FAULT_UNDER");
    pace_ms = getenv("P4_PACE_MS") != NULL ? atol(getenv("P4_PACE_MS")) : 0;
    const char *hold = getenv("P4_HOLD");
    hold_file = getenv("P4_HOLD_FILE");
    hold_signal = getenv("P4_HOLD_SIGNAL") != NULL;
    if (hold != NULL && hold_file != NULL && strchr(hold, ',') != NULL) {
        hold_at = atol(hold);
        hold_text = strchr(hold, ',') + 1;
    }
    if (fault == NULL || sscanf(fault, "%d,%ld,%15s", &rank, &at, name) != 3 || rank != atoi(rank_text())) {
        return;
    }
    for (int i = FULL; i <= STOP; i++) {
        if (strcmp(name, kinds[i]) == 0) {
            kind = (enum kind)i;
        }
    }
    fault_at = at;
}

__attribute__((destructor)) static void write_count(void)
{
    char path[PATH_MAX];
    const char *to = getenv("P4_FAULT_COUNT");
    if (to == NULL || under == NULL || calls == 0) {
        return;
    }
    snprintf(path, sizeof path, "%s.%s", to, rank_text());
    FILE *file = fopen(path, "w");
    if (file != NULL) {
        fprintf(file, "%ld\n", (long)calls);
        fclose(file);
    }
}

static bool is_under(const char *path)
{
    return under != NULL && path != NULL && strstr(path, under) != NULL;
}

static bool fd_is_under(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = under != NULL ? readlink(link, path, sizeof path - 1) : -1;
    path[bytes > 0 ? bytes : 0] = '\0';
    return bytes > 0 && is_under(path);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;) {
        pause();
    }
}

/* Counts a call; 0, or the errno that it fails with. -1: a call with `writing`, which dies by itself, is to
 * die. */
static int fails(enum effect effect, bool writing)
{
    long n = ++calls;
    if (kind == NO_FAULT || n < fault_at) {
        return 0;
    }
    if (n == fault_at) {
        static const char notice[] = "fault_injector: here\n";
        (void)!syscall(SYS_write, STDERR_FILENO, notice, sizeof notice - 1);
    }
    switch (kind) {
    case FULL:
        return effect == SPACE ? ENOSPC : 0;
    case READONLY:
        return effect == NAMES || (effect == SPACE && !writing) ? EROFS : 0;
    case ERROR:
        return n == fault_at ? EIO : 0;
    case STOP:
        return n == fault_at ? raise(SIGUSR1) : 0;
    default:
        if (!writing) {
            die();
        }
        return -1;
    }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL_IF(condition, effect)                            \
    do {                                                      \
        int reason_ = (condition) ? fails(effect, false) : 0; \
        if (reason_ != 0) {                                   \
            errno = reason_;                                  \
            return -1;                                        \
        }                                                     \
    } while (0)

/* ---- names ---- */

static bool writes(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT) != 0;
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    FAIL_IF(writes(flags) && is_under(path), SPACE);
    return REAL(open)(path, flags, mode);
}

FILE *fopen(const char *path, const char *mode)
{
    int reason = is_under(path) && mode[0] != 'r' ? fails(SPACE, false) : 0;
    if (reason != 0) {
        errno = reason;
        return NULL;
    }
    return REAL(fopen)(path, mode);
}

int mkdir(const char *path, mode_t mode)
{
    FAIL_IF(is_under(path), SPACE);
    return REAL(mkdir)(path, mode);
}

int rename(const char *from, const char *to)
{
    FAIL_IF(is_under(to), NAMES);
    return REAL(rename)(from, to);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    FAIL_IF(is_under(to), NAMES);
    return REAL(renameat2)(from_fd, from, to_fd, to, flags);
}

int unlink(const char *path)
{
    FAIL_IF(is_under(path), NAMES);
    return REAL(unlink)(path);
}

int unlinkat(int fd, const char *path, int flags)
{
    FAIL_IF(fd_is_under(fd), NAMES);
    return REAL(unlinkat)(fd, path, flags);
}

int rmdir(const char *path)
{
    FAIL_IF(is_under(path), NAMES);
    return REAL(rmdir)(path);
}

int stat(const char *path, struct stat *status)
{
    static _Atomic long stats;
    const char *given = getenv("P4_NO_STAT"), *ending = given != NULL ? strchr(given, ',') : NULL;
    size_t bytes = strlen(path), tail = ending != NULL ? strlen(++ending) : 0;
    if (ending != NULL && bytes >= tail && strcmp(path + bytes - tail, ending) == 0 &&
        ++stats >= atol(given)) {
        errno = EIO;
        return -1;
    }
    return REAL(stat)(path, status);
}

/* ---- content ---- */

/* How many lines of the file that `fd` writes hold the text that is waited for. */
static long count_lines(int fd)
{
    char link[64], *line = NULL;
    size_t bytes = 0;
    long count = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    FILE *file = REAL(fopen)(link, "r");
    while (file != NULL && getline(&line, &bytes, file) >= 0) {
        count += strstr(line, hold_text) != NULL;
    }
    free(line);
    if (file != NULL) {
        fclose(file);
    }
    return count;
}

static void wait_for_test(void)
{
    enum { MOST = 90000 }; /* a quarter of an hour: the test is gone */
    const struct timespec pause = {0, 10000000};
    char held[PATH_MAX];
    snprintf(held, sizeof held, "%s.held", hold_file);
    int fd = REAL(open)(held, O_WRONLY | O_CREAT, 0666);
    if (fd >= 0) {
        close(fd);
    }
    for (int i = 0; i < MOST && access(hold_file, F_OK) != 0 && access(held, F_OK) == 0; i++) {
        if (hold_signal && signals_seen > 0) {
            return;
        }
        (void)nanosleep(&pause, NULL);
    }
}

static void count_signal(int number)
{
    handlers[number](number);
    signals_seen++;
}

int sigaction(int number, const struct sigaction *action, struct sigaction *before)
{
    bool counts = hold_signal && action != NULL && (action->sa_flags & SA_SIGINFO) == 0 &&
                  (number == SIGTERM || number == SIGUSR1 || number == SIGINT) &&
                  action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN;
    if (!counts) {
        return REAL(sigaction)(number, action, before);
    }
    struct sigaction counted = *action;
    handlers[number] = action->sa_handler;
    counted.sa_handler = count_signal;
    return REAL(sigaction)(number, &counted, before);
}

/* Behind a write to `fd`. */
static void hold_up(int fd)
{
    if (pace_ms > 0) {
        const struct timespec pause = {pace_ms / 1000, pace_ms % 1000 * 1000000};
        (void)nanosleep(&pause, NULL);
    }
    if (hold_at > 0 && !was_held && (hold_text[0] != '\0' ? count_lines(fd) : ++writes_seen) >= hold_at &&
        !atomic_exchange(&was_held, true)) {
        wait_for_test();
    }
}

/* How many bytes of a write go through; -1 with errno: none, and it fails. */
static ssize_t let_through(int fd, size_t bytes)
{
    if (!fd_is_under(fd)) {
        return (ssize_t)bytes;
    }
    int reason = fails(SPACE, true);
    if (reason < 0 || (reason == ENOSPC && calls == fault_at && bytes > 1)) {
        return (ssize_t)(bytes / 2);
    }
    errno = reason;
    return reason == 0 ? (ssize_t)bytes : -1;
}

static ssize_t end_write(int fd, ssize_t written, size_t asked)
{
    if (kind == KILL && written >= 0 && (size_t)written < asked) {
        die();
    }
    if (fd_is_under(fd)) {
        hold_up(fd);
    }
    return written;
}

ssize_t write(int fd, const void *from, size_t bytes)
{
    ssize_t part = let_through(fd, bytes);
    return part < 0 ? -1 : end_write(fd, REAL(write)(fd, from, (size_t)part), bytes);
}

ssize_t pwrite(int fd, const void *from, size_t bytes, off_t offset)
{
    ssize_t part = let_through(fd, bytes);
    return part < 0 ? -1 : end_write(fd, REAL(pwrite)(fd, from, (size_t)part, offset), bytes);
}

int fflush(FILE *stream)
{
    bool is_under = stream != NULL && fd_is_under(fileno(stream));
    FAIL_IF(is_under, SPACE);
    int failed = REAL(fflush)(stream);
    if (is_under) {
        hold_up(fileno(stream));
    }
    return failed;
}

int fsync(int fd)
{
    FAIL_IF(fd_is_under(fd), SYNC);
    return REAL(fsync)(fd);
}

int posix_fallocate(int fd, off_t from, off_t bytes)
{
    int reason = fd_is_under(fd) ? fails(SPACE, true) : 0;
    if (reason < 0) {
        die();
    }
    return reason != 0 ? reason : REAL(posix_fallocate)(fd, from, bytes);
}
