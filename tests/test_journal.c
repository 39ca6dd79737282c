/* The journal of a batch on a disk that takes a part of a line: what is left of it is removed at once, and
 * where that fails too, no line is written behind it until the journal is opened again. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "io/batch/journal.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "src/phase4/types.h"

static char folder[P4_PATH_BYTES], path[2 * P4_PATH_BYTES];
static bool truncates = true;

/* In place of the C library's; of other files it is the same. */
int ftruncate(int fd, off_t length)
{
    struct stat journal, file;
    bool is_journal = stat(path, &journal) == 0 && fstat(fd, &file) == 0 && journal.st_ino == file.st_ino;
    if (is_journal && !truncates) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_ftruncate, fd, length);
}

static p4_rc append(p4_journal *journal, const char *name)
{
    p4_batch_record r;
    p4_batch_record_init(&r);
    r.event = P4_BATCH_STARTED;
    r.attempt = 1;
    r.name = p4_strdup(name);
    r.output_path = p4_strdup("out");
    p4_rc rc = p4_journal_append(journal, &r);
    p4_batch_record_free(&r);
    return rc;
}

static off_t size(void)
{
    struct stat there;
    EXPECT(stat(path, &there) == 0, "%s: %s", path, strerror(errno));
    return there.st_size;
}

/* A limit on the size of a file stands for a disk with so much room. */
static void limit(rlim_t bytes)
{
    struct rlimit now;
    EXPECT(getrlimit(RLIMIT_FSIZE, &now) == 0, "%s", strerror(errno));
    now.rlim_cur = bytes;
    EXPECT(setrlimit(RLIMIT_FSIZE, &now) == 0, "%s", strerror(errno));
}

static bool knows(const char *name)
{
    p4_journal_state *state = NULL;
    EXPECT_OK(p4_journal_read(&state, folder));
    bool found = state != NULL && p4_journal_find(state, name) != NULL;
    p4_journal_state_free(state);
    return found;
}

/* A journal larger than the other file of the directory, which holds it: the limit is for the journal. */
static p4_journal *open_filled(void)
{
    enum { LINES = 64 };
    p4_journal *journal = NULL;
    char name[32];
    EXPECT_OK(p4_journal_open(&journal, folder));
    for (int i = 0; journal != NULL && i < LINES; i++) {
        snprintf(name, sizeof name, "model-%d", i);
        EXPECT_OK(append(journal, name));
    }
    return journal;
}

static void test_part_is_removed(void)
{
    p4_journal *journal = open_filled();
    off_t whole = size();
    limit((rlim_t)whole + 20);
    EXPECT_REFUSED(append(journal, "a"), "journal.jsonl: cannot be written: File too large");
    EXPECT(size() == whole, "%lld bytes of %lld", (long long)size(), (long long)whole);
    limit(RLIM_INFINITY);
    EXPECT_OK(append(journal, "b"));
    p4_journal_close(journal);
    EXPECT(!knows("a") && knows("b") && knows("model-63"), "the journal has other models");
}

static void test_part_stays(void)
{
    enum { PART = 20 };
    p4_journal *journal = open_filled();
    off_t whole = size();
    limit((rlim_t)whole + PART);
    truncates = false;
    EXPECT_REFUSED(append(journal, "c"), "journal.jsonl: cannot be written: File too large");
    limit(RLIM_INFINITY);
    EXPECT(size() == whole + PART, "%lld bytes behind %lld", (long long)(size() - whole), (long long)whole);
    for (int again = 0; again < 2; again++) { /* the line would become one with the part */
        EXPECT_REFUSED(append(journal, "d"),
                       "ends in a part of a line, which could not be removed; the next");
    }
    EXPECT(size() == whole + PART, "%lld bytes behind %lld", (long long)(size() - whole), (long long)whole);
    EXPECT(!knows("c") && !knows("d") && knows("model-63"), "the journal has other models");
    p4_journal_close(journal);

    EXPECT_REFUSED(p4_journal_open(&journal, folder),
                   "journal.jsonl: cannot be shortened: Input/output error");
    truncates = true;
    EXPECT_OK(p4_journal_open(&journal, folder));
    EXPECT(size() == whole, "%lld bytes behind %lld", (long long)(size() - whole), (long long)whole);
    EXPECT_OK(append(journal, "d"));
    p4_journal_close(journal);
    EXPECT(!knows("c") && knows("d"), "the journal has other models");
}

int main(void)
{
    signal(SIGXFSZ, SIG_IGN);
    snprintf(folder, sizeof folder, "%s/phase4_journal_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    EXPECT(mkdtemp(folder) != NULL, "mkdtemp: %s", strerror(errno));
    snprintf(path, sizeof path, "%s/" P4_JOURNAL_FILE, folder);
    test_part_is_removed();
    test_part_stays();
    EXPECT_OK(p4_remove_tree(folder));
    return TEST_END();
}
