/* hf_world.h - a folder of small model directories that the tests of io/hf_*.c make, and take away again. */
#ifndef P4_HF_WORLD_H
#define P4_HF_WORLD_H

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/hf/hf_model.h"

enum { WORLD_PATH_BYTES = 512, MOST_ENTRIES = 40 };

static char world[] = "/tmp/phase4-hf.XXXXXX";

/* "<world>/<name>" in one of a few buffers. */
static const char *at(const char *name)
{
    static char paths[8][2 * WORLD_PATH_BYTES];
    static int next;
    next = (next + 1) % 8;
    snprintf(paths[next], sizeof paths[next], "%s/%s", world, name);
    return paths[next];
}

static void put(const char *name, const char *text)
{
    EXPECT_OK(p4_atomic_write_all(at(name), text, strlen(text)));
}

static inline bool is_there(const char *name)
{
    struct stat status;
    return lstat(at(name), &status) == 0;
}

static const char small_config[] =
    "{\n  \"model_type\": \"llama\",\n  \"vocab_size\": 10,\n  \"hidden_size\": 4,\n  \"num_hidden_layers\": "
    "1,\n"
    "  \"num_attention_heads\": 2,\n  \"num_key_value_heads\": 1,\n  \"intermediate_size\": 6,\n"
    "  \"max_position_embeddings\": 16,\n  \"rms_norm_eps\": 1e-05,\n  \"dtype\": \"float32\"\n}\n";

static p4_model small_model; /* the table of small_config; holds the names of small_entries */

/* The tensors that small_config describes. */
static int small_entries(p4_safetensors_entry entries[MOST_ENTRIES])
{
    for (int i = 0; i < small_model.params_count; i++) {
        const p4_param *p = &small_model.params[i];
        entries[i] = (p4_safetensors_entry){.name = p->name, .dtype = P4_F32, .rank = p->vector ? 1 : 2};
        entries[i].shape[0] = p->vector ? p->cols : p->rows;
        entries[i].shape[1] = p->vector ? 0 : p->cols;
    }
    return (int)small_model.params_count;
}

/* Writes entries; element k of entry i is i + k / 64. */
static void put_weights(const char *name, const p4_safetensors_entry *entries, int count)
{
    p4_safetensors_writer *writer;
    EXPECT_OK(p4_safetensors_writer_open(&writer, at(name), entries, count));
    for (int i = 0; i < count; i++) {
        int64_t elements = 1;
        for (int d = 0; d < entries[i].rank; d++) {
            elements *= entries[i].shape[d];
        }
        for (int64_t k = 0; k < elements; k++) {
            float value = (float)i + (float)k / 64;
            EXPECT_OK(p4_safetensors_writer_append(writer, &value, sizeof value));
        }
    }
    EXPECT_OK(p4_safetensors_writer_close(writer, true));
}

/* A directory with small_config and its weights in one file. */
static void make_small(const char *name)
{
    p4_safetensors_entry entries[MOST_ENTRIES];
    char path[WORLD_PATH_BYTES];
    EXPECT_OK(p4_remove_tree(at(name)));
    EXPECT_OK(p4_make_directories(at(name)));
    snprintf(path, sizeof path, "%s/config.json", name);
    put(path, small_config);
    snprintf(path, sizeof path, "%s/model.safetensors", name);
    put_weights(path, entries, small_entries(entries));
}

static inline void make_world(void)
{
    p4_arch arch;
    EXPECT(mkdtemp(world) != NULL, "%s", world);
    EXPECT_OK(p4_hf_config_parse(&arch, small_config, strlen(small_config), "small"));
    EXPECT_OK(p4_model_init(&small_model, &arch, ""));
}

static inline int end_world(void)
{
    p4_model_close(&small_model);
    EXPECT_OK(p4_remove_tree(world));
    return TEST_END();
}

#endif
