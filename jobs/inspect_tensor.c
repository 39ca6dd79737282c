#include "jobs/inspect_tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/leaf/parallel.h"

enum {
    BLOCK_BYTES = 16 << 20, /* stored, read at a time: HDF5 reads in chunks of 1 MiB */
    PIECE_ELEMENTS = 1 << 18,
};

p4_rc p4_tensor_block_open(p4_tensor_block *b, const p4_artifact_tensor *tensor)
{
    int64_t row_bytes = p4_artifact_row_bytes(tensor);
    *b = (p4_tensor_block){.tensor = tensor,
                           .block = p4_min_i64(tensor->rows, p4_max_i64(1, BLOCK_BYTES / row_bytes))};
    b->stored = p4_alloc((size_t)b->block, (size_t)row_bytes);
    b->codes = p4_alloc((size_t)b->block, (size_t)p4_code_row_bytes(tensor->cols));
    b->scale = p4_alloc((size_t)p4_artifact_scales(tensor, b->block), sizeof *b->scale);
    return b->stored != NULL && b->codes != NULL && b->scale != NULL ? P4_OK : P4_E_SYSTEM;
}

void p4_tensor_block_close(p4_tensor_block *b)
{
    free(b->stored);
    free(b->codes);
    free(b->scale);
    *b = (p4_tensor_block){.block = 0};
}

p4_rc p4_tensor_block_read(p4_tensor_block *b, p4_artifact_reader *reader, p4_device *host, int64_t first_row)
{
    p4_rc rc = P4_OK;
    const p4_artifact_tensor *t = b->tensor;
    b->first_row = first_row;
    b->rows = p4_min_i64(b->block, t->rows - first_row);
    b->weight = (p4_weight){
        .dtype = t->ternary ? P4_TERNARY : P4_F16, .rows = b->rows, .cols = t->cols, .data = b->stored};
    TRY(p4_artifact_read(reader, t, b->stored, t->ternary ? b->scale : NULL, first_row, b->rows));
    if (t->ternary) {
        b->weight.scale = b->scale;
        b->weight.scale_group = t->scale_group;
        b->weight.data = t->encoding == P4_PACKING_BASE3X5 ? b->codes : b->stored;
        if (t->encoding == P4_PACKING_BASE3X5) {
            p4_ops_find("cpu")->unpack_base3(host, b->codes, b->stored, b->rows, t->cols);
        }
    }
done:
    return rc;
}

/* ---- counting ---- */

typedef struct counting {
    const p4_tensor_block *block;
    const p4_weight *fp16;
    int64_t piece_rows;
    p4_tensor_count *pieces;
    uint16_t *rows; /* a row a worker, of what a ternary row stands for */
} counting;

static void count_codes(p4_tensor_count *n, const uint8_t *codes, int64_t cols)
{
    for (int64_t c = 0; c < cols; c += 4) {
        unsigned byte = codes[c / 4];
        for (int64_t k = c; k < p4_min_i64(c + 4, cols); k++, byte >>= 2) {
            n->zeros += (byte & 3) == 1;
            n->positive += (byte & 3) == 2;
        }
    }
}

static void count_halves(p4_tensor_count *n, const uint16_t *halves, int64_t cols)
{
    uint16_t largest = 0; /* magnitudes of finite halves are ordered as their bits are */
    for (int64_t c = 0; c < cols; c++) {
        uint16_t magnitude = halves[c] & 0x7fffu;
        n->nonfinite += magnitude >= 0x7c00u;
        largest = magnitude < 0x7c00u && magnitude > largest ? magnitude : largest;
    }
    n->largest = fmax(n->largest, (double)p4_f16_to_f32(largest));
}

/* Row `row` of the matrix, [cols] halves, against what the directory has. */
static void compare_row(p4_tensor_count *n, const uint16_t *expected, const p4_weight *fp16, int64_t row)
{
    const uint8_t *data = fp16->data;
    int64_t cols = fp16->cols, step = fp16->transposed ? fp16->rows : 1,
            start = fp16->transposed ? row : row * cols;
    if (!fp16->transposed && memcmp(data + 2 * start, expected, 2 * (size_t)cols) == 0) {
        return;
    }
    for (int64_t c = 0; c < cols; c++) {
        uint16_t found;
        memcpy(&found, data + 2 * (start + c * step), sizeof found); /* a mapped file need not be aligned */
        if (found != expected[c]) {
            if (n->differing == 0) {
                n->row = row, n->col = c, n->expected = expected[c], n->found = found;
            }
            n->differing++;
        }
    }
}

static p4_rc count_piece(void *user, int64_t item, int worker)
{
    counting *c = user;
    const p4_tensor_block *b = c->block;
    const p4_weight *w = &b->weight;
    p4_tensor_count *n = &c->pieces[item];
    int64_t first = item * c->piece_rows, end = p4_min_i64(first + c->piece_rows, b->rows);
    uint16_t *row = c->rows + worker * w->cols;
    for (int64_t r = first; r < end; r++) {
        const uint16_t *expected = row;
        if (w->dtype == P4_TERNARY) {
            count_codes(n, (const uint8_t *)w->data + r * p4_code_row_bytes(w->cols), w->cols);
            if (c->fp16 != NULL) {
                p4_ternary_row_f16(row, w, r);
            }
        } else {
            expected = (const uint16_t *)w->data + r * w->cols;
            count_halves(n, expected, w->cols);
        }
        if (c->fp16 != NULL) {
            compare_row(n, expected, c->fp16, b->first_row + r);
        }
    }
    return P4_OK;
}

static void add_count(p4_tensor_count *sum, const p4_tensor_count *n)
{
    if (sum->differing == 0 && n->differing > 0) {
        sum->row = n->row, sum->col = n->col, sum->expected = n->expected, sum->found = n->found;
    }
    sum->zeros += n->zeros;
    sum->positive += n->positive;
    sum->nonfinite += n->nonfinite;
    sum->differing += n->differing;
    sum->largest = fmax(sum->largest, n->largest);
}

p4_rc p4_tensor_block_count(p4_tensor_count *count, const p4_tensor_block *b, const p4_weight *fp16,
                            int threads)
{
    p4_rc rc = P4_OK;
    counting c = {.block = b, .fp16 = fp16, .piece_rows = p4_max_i64(1, PIECE_ELEMENTS / b->weight.cols)};
    int64_t pieces = p4_ceil_div(b->rows, c.piece_rows);
    int workers = (int)p4_max_i64(1, p4_min_i64(threads, pieces));
    c.pieces = p4_alloc((size_t)pieces, sizeof *c.pieces);
    c.rows = p4_alloc((size_t)workers, (size_t)b->weight.cols * sizeof *c.rows);
    TRY(c.pieces != NULL && c.rows != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_parallel(workers, pieces, count_piece, NULL, &c));
    for (int64_t i = 0; i < pieces; i++) {
        add_count(count, &c.pieces[i]);
    }
done:
    free(c.pieces);
    free(c.rows);
    return rc;
}
