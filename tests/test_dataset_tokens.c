/* Token files: llm.c's of both kinds, raw uint16, and what is wrong with one (io/text/dataset.h). */
#include "dataset_world.h"

enum { GPT2_VOCAB = 50257, LLAMA3_VOCAB = 128256, GPT2_END = 50256 };

/* An llm.c file: a header that counts `counted` tokens, then `count` ids of 2 or 4 bytes. */
static char *put_llmc(const char *name, uint32_t magic, uint32_t version, uint32_t counted,
                      const uint32_t *ids, size_t count, size_t id_bytes)
{
    unsigned char file[1024 + 64] = {0};
    const uint32_t head[] = {magic, version, counted};
    for (size_t i = 0; i < 3 * 4; i++) {
        file[i] = (unsigned char)(head[i / 4] >> 8 * (i % 4));
    }
    for (size_t i = 0; i < count * id_bytes; i++) {
        file[1024 + i] = (unsigned char)(ids[i / id_bytes] >> 8 * (i % id_bytes));
    }
    return p4_strdup(put(name, file, 1024 + count * id_bytes));
}

static void expect_ids(char *path, int64_t vocab, int32_t end_id, const uint32_t *ids, int64_t count)
{
    p4_windows windows;
    p4_windowing how = {.T = 2, .vocab = vocab, .end_id = end_id};
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, 0));
    EXPECT(windows.count == count / 2 && windows.tokens_total == count, "%lld windows of %lld tokens",
           (long long)windows.count, (long long)windows.tokens_total);
    for (int64_t i = 0; i < 2 * windows.count; i++) {
        EXPECT(windows.ids[i] == (int32_t)ids[i], "id %lld is %d", (long long)i, (int)windows.ids[i]);
    }
    p4_windows_free(&windows);
}

static void refused(char *path, int64_t vocab, const char *part)
{
    p4_windows windows;
    p4_windowing how = {.T = 1, .vocab = vocab, .end_id = -1};
    EXPECT_REFUSED(p4_windows_read(&windows, &path, 1, &how, 0), part);
    free(path);
}

static void token_files_are_read(void)
{
    static const uint32_t ids[] = {GPT2_END, 11, 65535 - 20000, 0, 13};
    static const uint32_t wide[] = {128000, 11, 128255, 65536, 7};
    char *paths[] = {put_llmc("gpt2.bin", 20240520, 1, 5, ids, 5, 2),
                     put_llmc("llama3.bin", 20240801, 7, 5, wide, 5, 4),
                     p4_strdup(put("raw.bin", "\x50\xc4\x0b\x00\x01\x00\x02\x00", 8))};
    static const uint32_t raw[] = {GPT2_END, 11, 1, 2};
    expect_ids(paths[0], GPT2_VOCAB, GPT2_END, ids, 5);
    expect_ids(paths[1], LLAMA3_VOCAB, 128000, wide, 5);
    expect_ids(paths[2], GPT2_VOCAB, GPT2_END, raw, 4);

    p4_windows windows; /* one stream over files: the second window begins in one and ends in the other */
    p4_windowing how = {.T = 3, .vocab = GPT2_VOCAB, .end_id = GPT2_END};
    EXPECT_OK(p4_windows_read(&windows, (char *[]){paths[0], paths[2]}, 2, &how, 0));
    static const int32_t both[] = {GPT2_END, 11, 45535, 0, 13, GPT2_END, 11, 1, 2};
    EXPECT(windows.count == 3 && windows.tokens_total == 9 && memcmp(windows.ids, both, sizeof both) == 0,
           "%lld tokens", (long long)windows.tokens_total);
    p4_windows_free(&windows);
    for (int i = 0; i < 3; i++) {
        free(paths[i]);
    }
}

static void bad_token_files_are_refused(void)
{
    static const uint32_t ids[] = {1, 2, 3, 50257, 0xffffffff};
    refused(put_llmc("id.bin", 20240520, 1, 4, ids, 4, 2), GPT2_VOCAB,
            "id.bin: token 3 (llm.c GPT-2 ids) is 50257; the model's vocabulary holds 0 to 50256");
    refused(put_llmc("wide.bin", 20240801, 7, 5, ids, 5, 4), LLAMA3_VOCAB,
            "token 4 (llm.c Llama-3 ids) is 4294967295");
    refused(put_llmc("count.bin", 20240520, 1, 5, ids, 4, 2), GPT2_VOCAB,
            "the header counts 5 tokens of 2 bytes, so the file must have 1034 bytes; it has 1032");
    refused(put_llmc("more.bin", 20240801, 7, 3, ids, 4, 4), LLAMA3_VOCAB,
            "must have 1036 bytes; it has 1040");
    refused(put_llmc("huge.bin", 20240801, 7, 0xffffffff, ids, 4, 4), LLAMA3_VOCAB,
            "the header counts 4294967295 tokens");
    refused(put_llmc("old.bin", 20240520, 2, 4, ids, 4, 2), GPT2_VOCAB, "of version 2, expected version 1");
    refused(put_llmc("new.bin", 20240801, 1, 4, ids, 4, 4), LLAMA3_VOCAB, "of version 1, expected version 7");
    refused(put_llmc("choices.bin", 20240522, 1, 4, ids, 4, 2), GPT2_VOCAB, "multiple-choice file");
    refused(p4_strdup(put("short.bin", "\x88\xd8\x34\x01\x01\0\0\0", 8)), GPT2_VOCAB,
            "too few for the 1024-byte header");
    refused(p4_strdup(put("odd.bin", "abc", 3)), GPT2_VOCAB, "3 bytes, an odd number");
    refused(p4_strdup(put("raw.bin", "abcdef", 6)), 100, "token 0 (raw uint16 ids) is 25185");
    refused(p4_strdup(put("raw.bin", "abcd", 4)), LLAMA3_VOCAB,
            "uint16 token ids cannot come from this model's tokenizer");
    refused(p4_strdup(put("empty.bin", "", 0)), GPT2_VOCAB, "empty.bin: 0 tokens, less than one window");
    refused(p4_strdup(at("missing.bin")), GPT2_VOCAB, "missing.bin: cannot open: No such file");
}

/* A long file, whole and a part of its windows: those are spread over the file, in its order. */
static void long_files_are_read(void)
{
    enum { COUNT = 700001, T = 512, SOME = 600 };
    uint16_t *tokens = malloc(COUNT * sizeof *tokens);
    for (int i = 0; i < COUNT; i++) {
        tokens[i] = (uint16_t)(i / T); /* which window it is in */
    }
    char *path = p4_strdup(put("train.bin", tokens, COUNT * sizeof *tokens));
    p4_windows windows;
    p4_windowing how = {.T = T, .vocab = GPT2_VOCAB, .end_id = -1, .threads = 4, .seed = 1};
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, 0));
    EXPECT(windows.count == COUNT / T && windows.tokens_total == COUNT, "%lld windows of %lld tokens",
           (long long)windows.count, (long long)windows.tokens_total);
    for (int64_t i = 0; i < windows.count * T; i++) {
        EXPECT(windows.ids[i] == i / T, "id %lld is %d", (long long)i, (int)windows.ids[i]);
    }
    p4_windows_free(&windows);

    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, SOME));
    EXPECT(windows.count == SOME, "%lld windows", (long long)windows.count);
    for (int64_t i = 0; i < windows.count; i++) { /* window i is one of those of its stratum */
        int64_t low = i * (COUNT / T) / SOME, high = (i + 1) * (COUNT / T) / SOME;
        EXPECT(windows.ids[i * T] >= low && windows.ids[i * T] < high, "window %lld is number %d",
               (long long)i, (int)windows.ids[i * T]);
        EXPECT(windows.ids[i * T] == windows.ids[i * T + T - 1], "window %lld is cut elsewhere",
               (long long)i);
    }
    p4_windows_free(&windows);
    free(path);
    free(tokens);
}

int main(void)
{
    world_begin();
    token_files_are_read();
    bad_token_files_are_refused();
    long_files_are_read();
    world_end();
    return TEST_END();
}
