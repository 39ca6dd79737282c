/* What two results differ in: codes and scales of each tensor, and the configurations. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/inspect.h"
#include "jobs/inspect_tensor.h"
#include "jobs/model_file.h"

typedef struct side {
    char path[P4_PATH_BYTES];
    p4_artifact_reader *reader;
} side;

static p4_rc open_side(side *s, const char *path)
{
    p4_rc rc = P4_OK;
    TRY(p4_model_file_find(s->path, path));
    TRY(p4_artifact_reader_open(&s->reader, s->path));
done:
    return rc;
}

/* ---- elements ---- */

static unsigned code_at(const uint8_t *codes, int64_t c)
{
    return codes[c / 4] >> 2 * (c % 4) & 3;
}

static void compare_codes(p4_tensor_difference *d, const uint8_t *a, const uint8_t *b, int64_t cols)
{
    for (int64_t c = 0; c < cols; c++) {
        if (c % 4 == 0 && a[c / 4] == b[c / 4]) { /* most bytes are equal */
            c += 3;
            continue;
        }
        unsigned in_a = code_at(a, c), in_b = code_at(b, c);
        d->flipped += in_a != in_b;
        d->to_zero += in_a != in_b && in_b == 1;
        d->from_zero += in_a != in_b && in_a == 1;
        d->signs += in_a != in_b && in_a != 1 && in_b != 1;
    }
}

static void compare_scale(p4_tensor_difference *d, uint16_t bits_a, uint16_t bits_b)
{
    double a = (double)p4_f16_to_f32(bits_a), b = (double)p4_f16_to_f32(bits_b);
    d->scales++;
    if (bits_a != bits_b) {
        double change = a != 0 ? fabs(b - a) / fabs(a) : 0;
        d->scales_changed++;
        d->scale_change_max = fmax(d->scale_change_max, change);
        d->scale_change_mean += change; /* divided at the end */
    }
}

static void compare_halves(p4_tensor_difference *d, const uint16_t *a, const uint16_t *b, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (a[i] != b[i]) {
            d->flipped++;
            d->largest_change =
                fmax(d->largest_change, fabs((double)p4_f16_to_f32(b[i]) - (double)p4_f16_to_f32(a[i])));
        }
    }
}

static void compare_blocks(p4_tensor_difference *d, const p4_tensor_block *a, const p4_tensor_block *b)
{
    int64_t cols = a->tensor->cols, row_bytes = p4_code_row_bytes(cols);
    if (!a->tensor->ternary) {
        compare_halves(d, a->weight.data, b->weight.data, a->rows * cols);
        return;
    }
    for (int64_t r = 0; r < a->rows; r++) {
        compare_codes(d, (const uint8_t *)a->weight.data + r * row_bytes,
                      (const uint8_t *)b->weight.data + r * row_bytes, cols);
    }
    int64_t scales = p4_artifact_scales(a->tensor, a->rows),
            all = p4_artifact_scales(a->tensor, a->tensor->rows);
    for (int64_t i = 0; i < scales && d->scales < all; i++) { /* one scale comes with every block */
        compare_scale(d, a->scale[i], b->scale[i]);
    }
}

/* ---- tensors ---- */

static p4_rc compare_tensor(p4_tensor_difference *d, const side sides[2], const p4_artifact_tensor *a,
                            const p4_artifact_tensor *b, p4_device *host)
{
    p4_rc rc = P4_OK;
    p4_tensor_block blocks[2] = {{.block = 0}, {.block = 0}};
    bool same_form = a->ternary == b->ternary, same_shape = a->rows == b->rows && a->cols == b->cols;
    bool same_scales = a->scale_group == b->scale_group;
    d->kind = !same_form     ? "ternary in one, fp16 in the other"
              : !same_shape  ? "of another shape"
              : !same_scales ? "with another scale_granularity"
              : a->ternary   ? "ternary"
                             : "fp16";
    if (!same_form || !same_shape || !same_scales) {
        return P4_OK;
    }
    d->elements = a->rows * a->cols;
    TRY(p4_tensor_block_open(&blocks[0], a));
    TRY(p4_tensor_block_open(&blocks[1], b));
    /* The encodings may differ, and so the rows that fit. */
    blocks[0].block = blocks[1].block = p4_min_i64(blocks[0].block, blocks[1].block);
    for (int64_t row = 0; row < a->rows; row += blocks[0].rows) {
        TRY(p4_tensor_block_read(&blocks[0], sides[0].reader, host, row));
        TRY(p4_tensor_block_read(&blocks[1], sides[1].reader, host, row));
        compare_blocks(d, &blocks[0], &blocks[1]);
    }
    d->scale_change_mean /= (double)p4_max_i64(1, d->scales_changed);
done:
    p4_tensor_block_close(&blocks[0]);
    p4_tensor_block_close(&blocks[1]);
    return rc;
}

static p4_rc compare_tensors(p4_result_difference *d, const side sides[2], p4_device *host)
{
    p4_rc rc = P4_OK;
    int64_t in_a = p4_artifact_reader_count(sides[0].reader),
            in_b = p4_artifact_reader_count(sides[1].reader);
    d->tensors = p4_alloc((size_t)(in_a + in_b), sizeof *d->tensors);
    TRY(d->tensors != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < in_a; i++) {
        const p4_artifact_tensor *a = p4_artifact_reader_tensor(sides[0].reader, i),
                                 *b = p4_artifact_reader_find(sides[1].reader, a->name);
        p4_tensor_difference *t = &d->tensors[d->count++];
        memcpy(t->name, a->name, sizeof t->name);
        t->kind = "only in A";
        TRY(b != NULL ? compare_tensor(t, sides, a, b, host) : P4_OK);
        d->differs = d->differs || t->elements == 0 || t->flipped > 0 || t->scales_changed > 0;
    }
    for (int64_t i = 0; i < in_b; i++) {
        const p4_artifact_tensor *b = p4_artifact_reader_tensor(sides[1].reader, i);
        if (p4_artifact_reader_find(sides[0].reader, b->name) == NULL) {
            p4_tensor_difference *t = &d->tensors[d->count++];
            memcpy(t->name, b->name, sizeof t->name);
            t->kind = "only in B";
            d->differs = true;
        }
    }
done:
    return rc;
}

/* ---- texts ---- */

static p4_rc compare_texts(bool *differ, const side sides[2], const char *name)
{
    p4_rc rc = P4_OK;
    char *a = NULL, *b = NULL;
    TRY(p4_artifact_read_text(sides[0].reader, name, &a));
    TRY(p4_artifact_read_text(sides[1].reader, name, &b));
    *differ = (a == NULL) != (b == NULL) || (a != NULL && strcmp(a, b) != 0);
done:
    free(a);
    free(b);
    return rc;
}

static p4_rc compare_configurations(p4_result_difference *d, const side sides[2])
{
    p4_rc rc = P4_OK;
    char *json[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        TRY(p4_artifact_read_text(sides[i].reader, "config/phase4_json", &json[i]));
        CHECK(json[i] != NULL, "%s: has no config/phase4_json", sides[i].path);
    }
    TRY(p4_result_difference_keys(d, json[0], json[1]));
    TRY(compare_texts(&d->model_json_differs, sides, "config/model_json"));
    TRY(compare_texts(&d->tokenizer_differs, sides, "tokenizer/tokenizer_json"));
done:
    free(json[0]);
    free(json[1]);
    return rc;
}

p4_rc p4_inspect_compare(p4_result_difference *d, const char *a, const char *b, int threads)
{
    p4_rc rc = P4_OK;
    side sides[2] = {{.reader = NULL}, {.reader = NULL}};
    p4_device *host = NULL;
    *d = (p4_result_difference){.count = 0};
    TRY(open_side(&sides[0], a));
    TRY(open_side(&sides[1], b));
    snprintf(d->a, sizeof d->a, "%s", sides[0].path);
    snprintf(d->b, sizeof d->b, "%s", sides[1].path);
    TRY(p4_ops_find("cpu")->open(&host, 0, threads, false));
    TRY(compare_configurations(d, sides));
    TRY(compare_tensors(d, sides, host));
done:
    if (host != NULL) {
        p4_ops_find("cpu")->close(host);
    }
    p4_artifact_reader_close(sides[0].reader);
    p4_artifact_reader_close(sides[1].reader);
    return rc;
}
