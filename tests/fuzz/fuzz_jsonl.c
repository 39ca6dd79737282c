/* Documents out of foreign bytes. The first byte picks the file's name, hence its format, and whether all of
 * the file or a sample is read; the rest is the file: JSONL, text, articles, and through their magic gzip,
 * zstd, xz, bzip2 and tar. */
#include "fuzz_file.h"
#include "io/text/dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);

/* A zstd frame may ask for a window of 2 GiB. Here that fails, which must be an error like others. */
const char *__asan_default_options(void)
{
    return "max_allocation_size_mb=512:allocator_may_return_null=1";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"a.jsonl", "a.txt", "wiki.raw", "a", "a.tar"};
    p4_documents *documents = NULL;
    p4_document document = {.bytes = 0};
    if (size < 1 || !fuzz_file_fill(names, 5, data + 1, size - 1)) {
        return 0;
    }
    p4_error_clear();
    p4_rc rc = p4_documents_open(&documents, fuzz_paths[data[0] % 5]);
    if (rc == P4_OK && data[0] >= 128) {
        p4_documents_sample(documents,
                            &(p4_draw){.block_bytes = 1 + data[0] % 29, .stride = 1.0 + data[0] % 3});
    }
    uint64_t sum = 0, total = 0;
    while (rc == P4_OK && total < (16u << 20) && (rc = p4_documents_next(documents, &document)) == P4_OK &&
           document.bytes >= 0) {
        for (int64_t i = 0; i < document.bytes; i += 64) { /* touches what was handed out */
            sum += (unsigned char)document.text[i];
        }
        total += (uint64_t)document.bytes + 1;
    }
    if ((rc != P4_OK) != (p4_last_error()[0] != '\0')) {
        abort(); /* an error without a message, or a message without an error */
    }
    p4_documents_close(documents);
    return sum == UINT64_MAX;
}
