#define _GNU_SOURCE /* F_OFD_SETLK */
#include "io/out/hold.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/out/holder.h"
#include "src/leaf/thread.h"

enum { TRIES = 100 };
static const double POLL_S = 0.05;

struct p4_hold {
    char *path;
    double beat_s;
    int fd;      /* of path; -1: not held */
    bool locked; /* fd has the file's lock: the file system has locks */
    struct stat file;
    bool lost, ending; /* with `lock` */
    bool beating;      /* the thread must be joined */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t end;
};

static void sleep_s(double seconds)
{
    struct timespec time = {.tv_sec = (time_t)seconds};
    time.tv_nsec = (long)((seconds - (double)time.tv_sec) * 1e9);
    nanosleep(&time, NULL);
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static double modified_s(const struct stat *file)
{
    return (double)file->st_mtim.tv_sec + 1e-9 * (double)file->st_mtim.tv_nsec;
}

/* ---- is the holder alive? ---- */

/* A holder writes its name a moment after it has the lock, or has created the file where there are no locks.
 */
static void read_holder(p4_holder *holder, int fd)
{
    for (int tries = 0; tries < TRIES / 5; tries++) {
        p4_holder_read(holder, fd);
        if (!holder->empty) {
            return;
        }
        sleep_s(POLL_S);
    }
}

static p4_rc refuse(const p4_hold *hold, const p4_holder *holder, double silent_s)
{
    char who[P4_HOLDER_TEXT_BYTES], silence[120] = "";
    if (silent_s >= 0) {
        snprintf(silence, sizeof silence,
                 ", last sign of life %.0f s ago (without one for %.0f s it counts as dead)", silent_s,
                 P4_HOLD_STALE_BEATS * hold->beat_s);
    }
    return FAIL("%.*s: another run is using this output directory: %s%s; wait for its end or choose another "
                "output_path",
                (int)(strlen(hold->path) - strlen("/" P4_HOLD_FILE)), hold->path,
                p4_holder_describe(who, holder), silence);
}

/* How long ago the file was renewed, by the clock of the file system that renewed it: clocks of machines
 * differ. */
static p4_rc silence_of(const p4_hold *hold, const struct stat *file, double *silent_s)
{
    p4_rc rc = P4_OK;
    struct stat now;
    int fd = -1;
    char *probe = p4_format("%s.%ld.XXXXXX", hold->path, (long)getpid());
    TRY(probe != NULL ? P4_OK : P4_E_SYSTEM);
    fd = mkstemp(probe);
    if (fd < 0 || fstat(fd, &now) != 0) {
        rc = p4_fail_errno(probe, "create the file");
        goto done;
    }
    *silent_s = fmax(0.0, modified_s(&now) - modified_s(file));
done:
    if (fd >= 0) {
        close(fd);
        unlink(probe);
    }
    free(probe);
    return rc;
}

/* The file as it is now; a fresh open, because network file systems keep attributes of open files for a
 * while. */
static bool look(const char *path, struct stat *file)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool found = fd >= 0 && fstat(fd, file) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return found;
}

/* Whether somebody renews the file in the next P4_HOLD_WATCH_BEATS beats. */
static bool is_renewed(const p4_hold *hold, const struct stat *before)
{
    struct stat now;
    double started_s = p4_now_s(), watch_s = P4_HOLD_WATCH_BEATS * hold->beat_s;
    while (p4_now_s() - started_s < watch_s) {
        sleep_s(fmin(POLL_S, hold->beat_s));
        if (look(hold->path, &now) && modified_s(&now) != modified_s(before)) {
            return true;
        }
    }
    return false;
}

/* P4_OK: who wrote the file is dead. has_lock: this process holds the file's lock, so no process of this
 * machine has it, and none of another machine where locks are shared. */
static p4_rc expect_dead(const p4_hold *hold, const p4_holder *holder, const struct stat *file, bool has_lock)
{
    p4_rc rc = P4_OK;
    double silent_s = 0;
    p4_life life = p4_holder_life(holder);
    if (life == P4_LIFE_ENDED || (has_lock && (holder->empty || life != P4_LIFE_ELSEWHERE))) {
        return P4_OK;
    }
    if (life == P4_LIFE_RUNS) {
        return refuse(hold, holder, -1);
    }
    TRY(silence_of(hold, file, &silent_s));
    if (!has_lock) {
        return silent_s > P4_HOLD_STALE_BEATS * hold->beat_s ? P4_OK : refuse(hold, holder, silent_s);
    }
    if (silent_s > P4_HOLD_WATCH_BEATS * hold->beat_s) {
        return P4_OK;
    }
    INFO("%s: looking whether the run on %s that held this directory %.0f s ago still does", hold->path,
         holder->host, silent_s);
    rc = is_renewed(hold, file) ? refuse(hold, holder, -1) : P4_OK;
done:
    return rc;
}

/* The same of the file that has the name now. *there: there is one; P4_OK when there is none. */
static p4_rc judge_named(const p4_hold *hold, bool *there)
{
    p4_rc rc = P4_OK;
    p4_holder holder;
    struct stat file;
    int fd = open(hold->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    *there = fd >= 0 && fstat(fd, &file) == 0;
    if (*there) {
        read_holder(&holder, fd);
        rc = expect_dead(hold, &holder, &file, false);
    }
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

/* ---- looking ---- */

/* Does somebody have the file's lock? *locks: the file system has locks. */
static bool is_locked(int fd, bool *locks)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    *locks = fcntl(fd, F_OFD_GETLK, &all) == 0;
    return *locks && all.l_type != F_UNLCK;
}

p4_rc p4_hold_examine(const char *directory)
{
    p4_rc rc = P4_OK;
    p4_holder holder;
    struct stat file;
    bool locks;
    p4_hold hold = {.path = p4_format("%s/" P4_HOLD_FILE, directory), .beat_s = P4_HOLD_BEAT_S, .fd = -1};
    TRY(hold.path != NULL ? P4_OK : P4_E_SYSTEM);
    hold.fd = open(hold.path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (hold.fd < 0 || fstat(hold.fd, &file) != 0) {
        goto done; /* nobody holds it */
    }
    bool locked = is_locked(hold.fd, &locks);
    if (locked || !locks) {
        read_holder(&holder, hold.fd);
    } else {
        p4_holder_read(&holder, hold.fd);
    }
    p4_life life = p4_holder_life(&holder);
    double silent_s = fmax(0.0, (double)time(NULL) - modified_s(&file));
    bool away = life == P4_LIFE_ELSEWHERE || (!locks && life == P4_LIFE_HERE);
    if (locked || (!locks && life == P4_LIFE_RUNS)) {
        rc = refuse(&hold, &holder, -1);
    } else if (away && !(locks && holder.empty) && silent_s <= P4_HOLD_STALE_BEATS * hold.beat_s) {
        rc = refuse(&hold, &holder, silent_s);
    }
done:
    if (hold.fd >= 0) {
        close(hold.fd);
    }
    free(hold.path);
    return rc;
}

/* ---- taking ---- */

static void drop_file(p4_hold *hold)
{
    if (hold->fd >= 0) {
        close(hold->fd);
        hold->fd = -1;
    }
}

/* The holder writes who it is, in place: the lock is on this file and not on its name. */
static p4_rc sign(p4_hold *hold)
{
    char *text = p4_holder_self_text();
    if (text == NULL) {
        return P4_E_SYSTEM;
    }
    size_t bytes = strlen(text);
    bool ok = ftruncate(hold->fd, 0) == 0 && pwrite(hold->fd, text, bytes, 0) == (ssize_t)bytes &&
              fstat(hold->fd, &hold->file) == 0;
    free(text);
    return ok ? P4_OK : p4_fail_errno(hold->path, "write");
}

/* Opens the file, or makes it; hold->fd < 0 with P4_OK: it came or went in between. */
static p4_rc open_file(p4_hold *hold, bool *created)
{
    hold->fd = open(hold->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    *created = hold->fd < 0 && errno == ENOENT;
    if (*created) {
        hold->fd = open(hold->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (hold->fd < 0 && errno == ENOENT) { /* the directory does not take it; it is there */
            return p4_fail_errno(hold->path, "create the file");
        }
    }
    return hold->fd >= 0 || errno == EEXIST || errno == ENOENT ? P4_OK
                                                               : p4_fail_errno(hold->path, "create the file");
}

static p4_rc refuse_locked(const p4_hold *hold)
{
    p4_holder holder;
    read_holder(&holder, hold->fd);
    return refuse(hold, &holder, -1);
}

/* The lock of a file that its holder has just removed holds nothing. */
static bool is_in_place(p4_hold *hold)
{
    struct stat named;
    return fstat(hold->fd, &hold->file) == 0 && lstat(hold->path, &named) == 0 &&
           is_same_file(&hold->file, &named);
}

/* P4_OK with hold->fd < 0: there are no locks here, and the file is somebody's. */
static p4_rc take_locked(p4_hold *hold)
{
    p4_rc rc = P4_OK;
    p4_holder holder;
    for (int tries = 0; hold->fd < 0 && tries < TRIES; tries++) {
        struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        bool created;
        TRY(open_file(hold, &created));
        if (hold->fd < 0) {
            continue;
        }
        hold->locked = fcntl(hold->fd, F_OFD_SETLK, &all) == 0;
        if (!hold->locked) {
            bool no_locks = errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP || errno == EINVAL;
            if (no_locks && created) {
                break;
            }
            rc = no_locks                             ? P4_OK
                 : errno == EAGAIN || errno == EACCES ? refuse_locked(hold)
                                                      : p4_fail_errno(hold->path, "lock");
            drop_file(hold);
            goto done;
        }
        if (!is_in_place(hold)) {
            drop_file(hold);
        }
    }
    CHECK(hold->fd >= 0, "%s: is created and removed again and again by other runs", hold->path);
    if (hold->locked && hold->file.st_size > 0) { /* whose name is it? */
        p4_holder_read(&holder, hold->fd);
        TRY(expect_dead(hold, &holder, &hold->file, true));
    }
    rc = sign(hold);
done:
    if (rc != P4_OK) {
        drop_file(hold);
    }
    return rc;
}

/* Removes a dead holder's file. Of several that found it dead one may: who creates the file `guard`. It
 * judges again what it is going to remove, since a quicker one may have put its own file there. Without
 * success *removed is false, and the caller tries again. */
static p4_rc remove_dead(const p4_hold *hold, bool *removed)
{
    p4_rc rc = P4_OK;
    struct stat file;
    double silent_s = 0;
    bool there;
    char *guard = p4_format("%s.taken_over", hold->path);
    *removed = false;
    if (guard == NULL) {
        return P4_E_SYSTEM;
    }
    int fd = open(guard, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
        CHECK(errno == EEXIST, "%s: cannot create the file: %s", guard, strerror(errno));
        if (look(guard, &file)) { /* whoever created it may have been killed */
            TRY(silence_of(hold, &file, &silent_s));
            if (silent_s > P4_HOLD_STALE_BEATS * hold->beat_s) {
                unlink(guard);
            }
        }
        goto done;
    }
    close(fd);
    rc = judge_named(hold, &there);
    /* Where there was none, a file that is there now is another run's. */
    *removed = rc == P4_OK && (!there || unlink(hold->path) == 0 || errno == ENOENT);
    unlink(guard);
done:
    free(guard);
    return rc;
}

/* Without locks: who creates the file has it. */
static p4_rc take_by_name(p4_hold *hold)
{
    p4_rc rc = P4_OK;
    for (int tries = 0; hold->fd < 0 && tries < TRIES; tries++) {
        bool removed, there;
        hold->fd = open(hold->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (hold->fd >= 0) {
            break;
        }
        CHECK(errno == EEXIST, "%s: cannot create the file: %s", hold->path, strerror(errno));
        TRY(judge_named(hold, &there));
        TRY(remove_dead(hold, &removed));
        if (!removed) {
            sleep_s(POLL_S);
        }
    }
    CHECK(hold->fd >= 0, "%s: is created again and again by other runs", hold->path);
    rc = sign(hold);
    if (rc != P4_OK) {
        unlink(hold->path);
        drop_file(hold);
    }
done:
    return rc;
}

/* ---- holding ---- */

/* Whether the name still leads to this run's file. */
static bool is_ours(const p4_hold *hold)
{
    struct stat named;
    return look(hold->path, &named) && is_same_file(&named, &hold->file);
}

static void *beat(void *user)
{
    p4_hold *hold = user;
    pthread_mutex_lock(&hold->lock);
    while (!hold->ending) {
        struct timespec until;
        double wake_s;
        clock_gettime(CLOCK_MONOTONIC, &until);
        wake_s = (double)until.tv_sec + 1e-9 * (double)until.tv_nsec + hold->beat_s;
        until.tv_sec = (time_t)wake_s;
        until.tv_nsec = (long)((wake_s - (double)until.tv_sec) * 1e9);
        if (pthread_cond_timedwait(&hold->end, &hold->lock, &until) == ETIMEDOUT) {
            pthread_mutex_unlock(&hold->lock); /* a file system that hangs must not keep others waiting */
            bool ours = is_ours(hold) && futimens(hold->fd, NULL) == 0;
            pthread_mutex_lock(&hold->lock);
            hold->lost = hold->lost || !ours;
        }
    }
    pthread_mutex_unlock(&hold->lock);
    return NULL;
}

static p4_rc start_beat(p4_hold *hold)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&hold->lock, NULL);
    pthread_cond_init(&hold->end, &attributes);
    pthread_condattr_destroy(&attributes);
    int failed = p4_thread_start(&hold->thread, beat, hold);
    hold->beating = failed == 0;
    return hold->beating
               ? P4_OK
               : FAULT("the thread that keeps %s could not be started: %s", hold->path, strerror(failed));
}

p4_rc p4_hold_take(p4_hold **taken, const char *directory, double beat_s)
{
    p4_rc rc = P4_OK;
    p4_hold *hold = p4_alloc(1, sizeof *hold);
    *taken = NULL;
    if (hold == NULL) {
        return P4_E_SYSTEM;
    }
    *hold = (p4_hold){.path = p4_format("%s/%s", directory, P4_HOLD_FILE), .beat_s = beat_s, .fd = -1};
    TRY(hold->path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(take_locked(hold));
    TRY(hold->fd < 0 ? take_by_name(hold) : P4_OK);
    TRY(start_beat(hold));
    *taken = hold;
done:
    if (rc != P4_OK) {
        p4_hold_release(hold);
    }
    return rc;
}

/* Who has the directory in place of this run. */
static p4_rc name_successor(const p4_hold *hold)
{
    p4_holder holder;
    char who[P4_HOLDER_TEXT_BYTES];
    int length = (int)(strlen(hold->path) - strlen("/" P4_HOLD_FILE));
    int fd = open(hold->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return p4_fail(P4_E_HOLD,
                       "%.*s: this run no longer holds its output directory: " P4_HOLD_FILE
                       " in it was removed while the run was under way",
                       length, hold->path);
    }
    p4_holder_read(&holder, fd);
    close(fd);
    return p4_fail(P4_E_HOLD,
                   "%.*s: this run no longer holds its output directory: while it did not respond, another "
                   "run took it over: %s",
                   length, hold->path, p4_holder_describe(who, &holder));
}

p4_rc p4_hold_check(p4_hold *hold)
{
    pthread_mutex_lock(&hold->lock);
    bool lost = hold->lost;
    pthread_mutex_unlock(&hold->lock);
    return !lost && is_ours(hold) ? P4_OK : name_successor(hold);
}

void p4_hold_release(p4_hold *hold)
{
    if (hold == NULL) {
        return;
    }
    if (hold->beating) {
        pthread_mutex_lock(&hold->lock);
        hold->ending = true;
        pthread_cond_signal(&hold->end);
        pthread_mutex_unlock(&hold->lock);
        pthread_join(hold->thread, NULL);
        pthread_cond_destroy(&hold->end);
        pthread_mutex_destroy(&hold->lock);
    }
    if (hold->fd >= 0 && is_ours(hold)) {
        unlink(hold->path); /* before the lock goes with the descriptor */
    }
    drop_file(hold);
    free(hold->path);
    free(hold);
}
