/* make_model - a model directory of any size with random bf16 weights, written as a stream: for measuring
 * memory and speed on models larger than one would ship.
 *
 *   make_model CONFIG_JSON DIR [shard_megabytes]
 *
 * Weights are normal with deviation 0.02, gains 1, biases 0. One shard a gigabyte unless told otherwise, with
 * an index. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/hf/hf_model.h"
#include "src/leaf/rng.h"

enum { PIECE = 1 << 16 };

/* 2^16 normal numbers, drawn once: row after row starts at another place in them. */
static uint16_t table[PIECE];

static void fill_table(void)
{
    p4_rng rng = {.seed = 7, .stream = 7};
    for (int i = 0; i < PIECE; i++) {
        table[i] = p4_f32_to_bf16((float)(0.02 * p4_rng_normal(&rng)));
    }
}

static p4_rc write_tensor(p4_safetensors_writer *writer, const p4_param *p, uint64_t salt)
{
    p4_rc rc = P4_OK;
    static uint16_t piece[PIECE];
    bool gain = strstr(p->name, "norm") != NULL || strstr(p->name, "ln_") != NULL;
    int64_t left = p->rows * p->cols;
    for (uint64_t block = 0; left > 0; block++) {
        int64_t count = p4_min_i64(left, PIECE);
        uint32_t random[4];
        p4_philox(random, 11, salt, block);
        for (int64_t i = 0; i < count; i++) {
            uint16_t drawn = table[((uint32_t)i * (random[1] | 1u) + random[0]) % PIECE];
            piece[i] = !p->vector ? drawn : p4_f32_to_bf16(gain ? 1.0f : 0.0f);
        }
        TRY(p4_safetensors_writer_append(writer, piece, (uint64_t)count * 2));
        left -= count;
    }
done:
    return rc;
}

static p4_rc write_shard(const char *dir, const p4_model *model, int64_t first, int64_t end, int64_t index,
                         int64_t shards)
{
    p4_rc rc = P4_OK;
    p4_safetensors_writer *writer = NULL;
    p4_safetensors_entry *entries = p4_alloc((size_t)(end - first), sizeof *entries);
    char *path =
        p4_format("%s/model-%05lld-of-%05lld.safetensors", dir, (long long)index + 1, (long long)shards);
    TRY(entries != NULL && path != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = first; i < end; i++) {
        const p4_param *p = &model->params[i];
        entries[i - first] =
            (p4_safetensors_entry){.name = p->name, .dtype = P4_BF16, .rank = p->vector ? 1 : 2};
        entries[i - first].shape[0] = p->vector ? p->cols : p->transposed ? p->cols : p->rows;
        entries[i - first].shape[1] = p->transposed ? p->rows : p->cols;
    }
    TRY(p4_safetensors_writer_open(&writer, path, entries, end - first));
    for (int64_t i = first; i < end; i++) {
        TRY(write_tensor(writer, &model->params[i], (uint64_t)i));
    }
done:
    if (writer != NULL) {
        p4_rc closed = p4_safetensors_writer_close(writer, rc == P4_OK);
        rc = rc != P4_OK ? rc : closed;
    }
    free(entries);
    free(path);
    return rc;
}

/* Entries [first, end) of each shard: as many as fit into `limit` bytes. starts has room for one more than
 * the shards. */
static int64_t cut(const p4_model *model, double limit, int64_t *starts)
{
    int64_t shards = 0;
    double bytes = limit + 1;
    for (int64_t i = 0; i < model->params_count; i++) {
        double more = 2.0 * (double)(model->params[i].rows * model->params[i].cols);
        if (bytes + more > limit) {
            starts[shards++] = i;
            bytes = 0;
        }
        bytes += more;
    }
    starts[shards] = model->params_count;
    return shards;
}

static p4_rc write_index(const char *dir, const p4_model *model, const int64_t *starts, int64_t shards)
{
    p4_rc rc = P4_OK;
    char *path = p4_format("%s/model.safetensors.index.json", dir);
    FILE *out = path == NULL ? NULL : fopen(path, "w");
    CHECK(out != NULL, "%s: cannot be written", dir);
    fprintf(out, "{\"metadata\":{\"total_size\":%lld},\"weight_map\":{",
            2 * (long long)p4_model_count_elements(model));
    for (int64_t s = 0; s < shards; s++) {
        for (int64_t i = starts[s]; i < starts[s + 1]; i++) {
            fprintf(out, "%s\"%s\":\"model-%05lld-of-%05lld.safetensors\"", i == 0 ? "" : ",",
                    model->params[i].name, (long long)s + 1, (long long)shards);
        }
    }
    fprintf(out, "}}\n");
    CHECK(fclose(out) == 0, "%s: cannot be written", path);
done:
    free(path);
    return rc;
}

static p4_rc make(const char *config_path, const char *dir, double shard_bytes)
{
    p4_rc rc = P4_OK;
    p4_arch arch;
    p4_model model = {0};
    char *json = NULL, *copy = p4_format("%s/config.json", dir);
    int64_t *starts = NULL;
    size_t json_bytes;
    TRY(p4_file_read(&json, &json_bytes, config_path, 1 << 20));
    TRY(p4_hf_config_parse(&arch, json, json_bytes, config_path));
    TRY(p4_model_init(&model, &arch, ""));
    TRY(p4_make_directories(dir));
    TRY(p4_file_copy(copy, config_path));
    starts = p4_alloc((size_t)model.params_count + 1, sizeof *starts);
    TRY(starts != NULL ? P4_OK : P4_E_SYSTEM);
    int64_t shards = cut(&model, shard_bytes, starts);
    fill_table();
    for (int64_t s = 0; s < shards; s++) {
        TRY(write_shard(dir, &model, starts[s], starts[s + 1], s, shards));
    }
    TRY(write_index(dir, &model, starts, shards));
    printf("%s: %.3f G parameters in %lld shards\n", dir, (double)p4_model_count_elements(&model) * 1e-9,
           (long long)shards);
done:
    p4_model_close(&model);
    free(starts);
    free(json);
    free(copy);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: make_model CONFIG_JSON DIR [shard_megabytes]\n");
        return P4_E_INPUT;
    }
    p4_rc rc = make(argv[1], argv[2], 1e6 * (argc == 4 ? atof(argv[3]) : 1000.0));
    if (rc != P4_OK) {
        fprintf(stderr, "make_model: %s\n", p4_last_error());
    }
    return (int)rc;
}
