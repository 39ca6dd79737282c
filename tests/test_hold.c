/* One directory, one run: with locks, without them, and where each machine has locks of its own. fcntl below
 * stands in for the file system. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/out/hold.h"
#include "src/phase4/types.h"

enum { RUNS = 8, OFD_GETLK = 36, OFD_SETLK = 37 };
static const double BEAT_S = 0.05;
/* Where a refusal depends on how recent a sign of life is: no busy machine is this slow. */
static const double SLOW_BEAT_S = 5.0;
static char directory[P4_PATH_BYTES], file[P4_PATH_BYTES + 32];
static int lock_error; /* what the file system answers to a request for a lock; 0: it has locks */

int fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if ((command == OFD_SETLK || command == OFD_GETLK) && lock_error != 0) {
        errno = lock_error;
        return -1;
    }
    return (int)syscall(SYS_fcntl, fd, command, argument);
}

static bool is_there(void)
{
    struct stat status;
    return lstat(file, &status) == 0;
}

static void put(const char *text)
{
    EXPECT_OK(p4_atomic_write_all(file, text, strlen(text)));
}

/* The file's last sign of life, seconds ago. */
static void age(double seconds)
{
    struct timespec then[2];
    clock_gettime(CLOCK_REALTIME, &then[0]);
    then[0].tv_sec -= (time_t)seconds;
    then[1] = then[0];
    EXPECT(utimensat(AT_FDCWD, file, then, 0) == 0, "utimensat");
}

/* A process that holds the directory until it is killed; it has it when this returns. */
static pid_t start_holder(void)
{
    int ready[2];
    char byte;
    EXPECT(pipe(ready) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        p4_hold *hold;
        if (p4_hold_take(&hold, directory, BEAT_S) == P4_OK && write(ready[1], "x", 1) == 1) {
            pause();
        }
        _exit(1);
    }
    close(ready[1]);
    EXPECT(read(ready[0], &byte, 1) == 1, "the holder did not start");
    close(ready[0]);
    return child;
}

static void end_holder(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void test_one_holder(void)
{
    p4_hold *hold, *second;
    char who[128];
    setenv("SLURM_JOB_ID", "4711", 1);
    setenv("SLURM_ARRAY_TASK_ID", "3", 1);
    EXPECT_OK(p4_hold_take(&hold, directory, BEAT_S));
    EXPECT_OK(p4_hold_check(hold));
    snprintf(who, sizeof who, ", process %ld, job 4711, task 3, since 20", (long)getpid());
    EXPECT_REFUSED(p4_hold_take(&second, directory, BEAT_S), who);
    EXPECT(second == NULL, "a refused hold is there");
    unsetenv("SLURM_JOB_ID");
    unsetenv("SLURM_ARRAY_TASK_ID");
    p4_hold_release(hold);
    EXPECT(!is_there(), "the file stays");
    EXPECT_OK(p4_hold_take(&hold, directory, BEAT_S));
    /* Taken away: the run must not write any more, nor remove what is not its own. */
    put("{\"host\": \"other\"}");
    EXPECT(p4_hold_check(hold) == P4_E_HOLD &&
               strstr(p4_last_error(), "another run took it over: host other, process -1") != NULL,
           "message: %s", p4_last_error());
    p4_error_clear();
    p4_hold_release(hold);
    EXPECT(is_there(), "another run's file was removed");
    EXPECT(unlink(file) == 0, "unlink");
    p4_hold_release(NULL);
}

/* Killed: free at once, whatever it wrote. */
static void test_killed(void)
{
    p4_hold *hold;
    pid_t child = start_holder();
    EXPECT_REFUSED(p4_hold_take(&hold, directory, BEAT_S),
                   "another run is using this output directory: host ");
    end_holder(child);
    EXPECT(is_there(), "the killed run's file is gone");
    EXPECT_OK(p4_hold_take(&hold, directory, BEAT_S));
    p4_hold_release(hold);
}

/* What a process of the race does: it says whether it holds the directory, and does so until it is killed. */
static void compete(int go, int done)
{
    char byte;
    p4_hold *hold;
    bool started = read(go, &byte, 1) == 0; /* all at the same end of the pipe */
    const char *word = started && p4_hold_take(&hold, directory, 1.0) == P4_OK ? "h" : "r";
    while (write(done, word, 1) == 1) {
        pause();
    }
}

/* Of many that start at once, or find a dead run's file at once, one holds. */
static void test_race(bool dead_before)
{
    pid_t children[RUNS];
    int go[2], done[2], held = 0;
    if (dead_before) {
        end_holder(start_holder());
    }
    EXPECT(pipe(go) == 0 && pipe(done) == 0, "pipe");
    for (int i = 0; i < RUNS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            close(go[1]);
            compete(go[0], done[1]);
            _exit(1);
        }
    }
    close(go[0]);
    close(go[1]);
    for (int i = 0; i < RUNS; i++) {
        char word = 0;
        EXPECT(read(done[0], &word, 1) == 1, "a run ended without a word");
        held += word == 'h';
    }
    for (int i = 0; i < RUNS; i++) {
        end_holder(children[i]);
    }
    close(done[0]);
    close(done[1]);
    EXPECT(held == 1, "%d of %d hold the directory (locks answer %d)", held, (int)RUNS, lock_error);
    unlink(file);
}

/* A holder on another machine is seen by its beat alone. */
static void test_elsewhere(void)
{
    static const char other[] =
        "{\"host\": \"n7\\u001b\", \"process\": 5, \"job\": \"\", \"since\": \"then\", "
        "\"place\": \"another boot/pid:[1]\", \"born\": 7}";
    p4_hold *hold;
    const double stale_s = P4_HOLD_STALE_BEATS * BEAT_S;
    put(other);
    age(60 * stale_s);
    EXPECT_OK(p4_hold_take(&hold, directory, BEAT_S));
    p4_hold_release(hold);
    put(other);
    if (lock_error != 0) {
        EXPECT_REFUSED(p4_hold_take(&hold, directory, SLOW_BEAT_S),
                       "host n7\\x1b, process 5, since then, last sign of life");
        EXPECT(is_there(), "the other's file is gone");
    } else { /* it had the lock if it still ran: unless machines do not share locks, and then it beats */
        EXPECT_OK(p4_hold_take(&hold, directory, BEAT_S));
        p4_hold_release(hold);
        put(other);
        pid_t child = fork();
        if (child == 0) {
            for (;;) {
                usleep(10000);
                utimensat(AT_FDCWD, file, NULL, 0);
            }
        }
        EXPECT_REFUSED(p4_hold_take(&hold, directory, SLOW_BEAT_S), "host n7\\x1b, process 5, since then;");
        end_holder(child);
    }
    unlink(file);
    put(""); /* a run that has just created it */
    if (lock_error != 0) {
        EXPECT_REFUSED(p4_hold_take(&hold, directory, SLOW_BEAT_S), "has not written its name");
    }
    unlink(file);
}

/* What --check asks. A file without a name is that of a run that has just created it; where there are locks,
 * such a run would have its lock. */
static void test_examine(void)
{
    EXPECT_OK(p4_hold_examine(directory));
    put("");
    if (lock_error != 0) {
        EXPECT_REFUSED(p4_hold_examine(directory), "has not written its name, last sign of life");
        age(2 * P4_HOLD_STALE_BEATS * P4_HOLD_BEAT_S);
    }
    EXPECT_OK(p4_hold_examine(directory));
    EXPECT(is_there(), "the file was removed by a question");
    unlink(file);
    pid_t child = start_holder();
    EXPECT_REFUSED(p4_hold_examine(directory), "another run is using this output directory: host ");
    end_holder(child);
    EXPECT_OK(p4_hold_examine(directory));
    unlink(file);
}

/* The beat renews the file. */
static void test_beat(void)
{
    p4_hold *hold;
    struct stat now;
    EXPECT_OK(p4_hold_take(&hold, directory, BEAT_S));
    age(1000);
    for (int tries = 0; tries < 6000; tries++) {
        usleep(10000);
        EXPECT(stat(file, &now) == 0, "stat");
        if (now.st_mtime > time(NULL) - 500) {
            break;
        }
    }
    EXPECT(now.st_mtime > time(NULL) - 500, "no beat in a minute");
    EXPECT_OK(p4_hold_check(hold));
    p4_hold_release(hold);
}

static void test_unusable(void)
{
    p4_hold *hold;
    EXPECT(symlink("elsewhere", file) == 0, "symlink");
    EXPECT_REFUSED(p4_hold_take(&hold, directory, BEAT_S), P4_HOLD_FILE ": cannot ");
    EXPECT(unlink(file) == 0, "unlink");
    EXPECT_REFUSED(p4_hold_take(&hold, "/proc", BEAT_S), "/proc/" P4_HOLD_FILE ": cannot create the file");
}

int main(void)
{
    static const int answers[] = {0, ENOLCK, ENOSYS, EOPNOTSUPP};
    snprintf(directory, sizeof directory, "%s/phase4_hold_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    EXPECT(mkdtemp(directory) != NULL, "mkdtemp: %s", strerror(errno));
    snprintf(file, sizeof file, "%s/%s", directory, P4_HOLD_FILE);
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        lock_error = answers[i];
        test_one_holder();
        test_killed();
        test_race(false);
        test_race(true);
        test_elsewhere();
        test_examine();
        test_beat();
        test_unusable();
    }
    lock_error = EIO;
    EXPECT_REFUSED(p4_hold_take(&(p4_hold *){NULL}, directory, BEAT_S), "cannot lock: Input/output error");
    EXPECT_OK(p4_remove_tree(directory));
    return TEST_END();
}
