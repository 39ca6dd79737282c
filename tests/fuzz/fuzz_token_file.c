/* Token files out of foreign bytes: llm.c's by their magic, else raw uint16. The first byte picks vocabulary
 * and limit. */
#include "fuzz_file.h"
#include "io/text/dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"a.bin"};
    static const int64_t vocabs[] = {50257, 128256, 256, 65536};
    if (size < 1 || !fuzz_file_fill(names, 1, data + 1, size - 1)) {
        return 0;
    }
    int64_t vocab = vocabs[data[0] % 4], limit = data[0] / 4 % 3;
    p4_windows windows;
    p4_windowing how = {.T = 3, .vocab = vocab, .end_id = 1, .seed = data[0]};
    p4_error_clear();
    p4_rc rc = p4_windows_read(&windows, (char *[]){fuzz_paths[0]}, 1, &how, limit);
    for (int64_t i = 0; rc == P4_OK && i < 3 * windows.count; i++) {
        if (windows.ids[i] < 0 || windows.ids[i] >= vocab) {
            abort();
        }
    }
    if ((rc == P4_OK) != (p4_last_error()[0] == '\0') || (limit > 0 && windows.count > limit)) {
        abort();
    }
    p4_windows_free(&windows);
    return 0;
}
