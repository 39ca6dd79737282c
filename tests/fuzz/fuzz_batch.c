/* The readers of a batch: the first byte picks a queue in JSON, a text file of models, or a journal; the rest
 * is the file. What is accepted must be usable, what is refused must say why. */
#include <string.h>

#include "fuzz_file.h"
#include "io/batch/journal.h"
#include "io/batch/queue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void read_queue(const char *path, const char *template_path)
{
    p4_queue queue;
    p4_rc rc = p4_queue_read(&queue, path, template_path);
    require((rc != P4_OK) == (p4_last_error()[0] != '\0'));
    for (int64_t i = 0; rc == P4_OK && i < queue.count; i++) {
        const p4_queue_entry *entry = &queue.entries[i];
        require((entry->text != NULL) != (entry->error != NULL) && entry->source != NULL &&
                entry->ranks >= 0);
        require(entry->name[0] != '\0' && strchr(entry->name, '/') == NULL);
    }
    p4_queue_free(&queue);
}

static void read_journal(const char *directory)
{
    p4_journal_state *state;
    p4_rc rc = p4_journal_read(&state, directory);
    require((rc != P4_OK) == (p4_last_error()[0] != '\0') && (rc == P4_OK) == (state != NULL));
    const p4_batch_record *found = rc == P4_OK ? p4_journal_find(state, "a") : NULL;
    require(found == NULL || (found->attempt > 0 && found->event < P4_BATCH_EVENTS));
    p4_journal_state_free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"queue.json", "models.txt", P4_JOURNAL_FILE};
    if (size < 1 || memchr(data, '*', size) != NULL || memchr(data, '?', size) != NULL) {
        return 0; /* a pattern may walk through the whole machine */
    }
    if (!fuzz_file_fill(names, 3, data + 1, size - 1)) {
        return 0;
    }
    p4_error_clear();
    if (data[0] % 3 == 2) {
        read_journal(fuzz_folder);
    } else {
        read_queue(fuzz_paths[data[0] % 3], data[0] % 3 == 1 ? fuzz_paths[0] : NULL);
    }
    return 0;
}
