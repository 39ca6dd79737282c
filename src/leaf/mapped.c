#include "src/leaf/mapped.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/leaf/escape.h"

/* The mappings of this process, for the signal handler, which may neither lock nor allocate: an entry is in
 * use while `first` is not 0, and is filled in before. Mappings beyond the table are not named in the
 * message. */
enum { ENTRIES = 1024, NAME_BYTES = 1024 };
static struct entry {
    atomic_uintptr_t first, end;
    char name[NAME_BYTES];
} table[ENTRIES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction other_action; /* what was installed before */
static bool installed;

static void put(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0) {
        return; /* nowhere to say it */
    }
}

/* What stands at an address that is none of ours is left to whoever handled the signal before. */
static void lost_page(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    uintptr_t at = (uintptr_t)info->si_addr;
    for (int i = 0; i < ENTRIES; i++) {
        uintptr_t first = atomic_load(&table[i].first);
        if (first != 0 && at >= first && at < atomic_load(&table[i].end)) {
            put("phase4: error: ");
            put(table[i].name);
            put(": a part of the file is gone while the run reads it: it was shortened, or its disk "
                "failed\n");
            _exit(P4_E_INPUT);
        }
    }
    sigaction(signal_number, &other_action, NULL); /* the access is repeated on return */
}

static void add_entry(void *mapping, uint64_t bytes, const char *path)
{
    pthread_mutex_lock(&lock);
    if (!installed) {
        struct sigaction action = {.sa_sigaction = lost_page, .sa_flags = SA_SIGINFO};
        sigemptyset(&action.sa_mask);
        installed = sigaction(SIGBUS, &action, &other_action) == 0;
    }
    for (int i = 0; i < ENTRIES; i++) {
        if (atomic_load(&table[i].first) == 0) {
            (void)p4_escape(table[i].name, NAME_BYTES, path, strlen(path));
            atomic_store(&table[i].end, (uintptr_t)mapping + bytes);
            atomic_store(&table[i].first, (uintptr_t)mapping);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
}

p4_rc p4_map_file(void **mapping, int fd, uint64_t bytes, const char *path)
{
    *mapping = mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (*mapping == MAP_FAILED) {
        *mapping = NULL;
        return FAIL("%s: cannot map %llu bytes: %s", path, (unsigned long long)bytes, strerror(errno));
    }
    add_entry(*mapping, bytes, path);
    return P4_OK;
}

void p4_unmap_file(void *mapping, uint64_t bytes)
{
    if (mapping == NULL) {
        return;
    }
    pthread_mutex_lock(&lock);
    for (int i = 0; i < ENTRIES; i++) {
        if (atomic_load(&table[i].first) == (uintptr_t)mapping) {
            atomic_store(&table[i].first, 0);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    munmap(mapping, (size_t)bytes);
}
