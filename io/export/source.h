/* source.h - what the writers of io/export write: a compressed model in host memory. */
#ifndef P4_EXPORT_SOURCE_H
#define P4_EXPORT_SOURCE_H

#include "io/hf/hf_model.h"
#include "io/tokenizer/tokenizer.h"
#include "src/leaf/space.h"

/* Working memory of one reader of rows. Begins empty, {0}; p4_export_space_free. */
typedef struct p4_export_space {
    p4_space stored, decoded;
} p4_export_space;

/* Where the values of a model's weights come from if they are not in memory. */
typedef struct p4_export_rows {
    /* Rows [first, first + count) of a parameter, codes or halves as its weight says, at *rows in memory of
     * `space` until its next use. Called by several threads at once. */
    p4_rc (*read)(void *user, p4_export_space *space, const void **rows, int64_t param, int64_t first,
                  int64_t count);
    /* Pieces that begin at a multiple of these rows read nothing twice; 0: all pieces do. Called by one
     * thread. */
    p4_rc (*step)(void *user, int64_t *rows, int64_t param);
    void *user;
} p4_export_rows;

typedef struct p4_export_source {
    const p4_hf_model *hf; /* names, shapes, architecture, config.json; path: with the tokenizer's files */
    const p4_tokenizer *tokenizer; /* NULL: the model has none */
    const char *option;            /* behind the colon of the writer's name: "tq1_0"; "": none */
    /* What only writing needs; a check looks at the weights if they are there. */
    const p4_weight *weights;   /* per parameter, in logical [out, in] layout: P4_TERNARY or P4_F16 */
    const p4_export_rows *rows; /* of weights without data; NULL: they have them */
    int threads;
    p4_rc (*go_on)(void *user); /* called by `threads` threads at once; an error ends the writing */
    void *user;
} p4_export_source;

/* Neighbors in a row with one scale: a whole row, also where rows share one, or a group. */
static inline int64_t p4_export_run(int64_t scale_group, int64_t cols)
{
    return scale_group > 0 && scale_group < cols ? scale_group : cols;
}
/* The scale of element [row, col], fp16 bits. */
static inline uint16_t p4_export_scale(const p4_weight *w, int64_t row, int64_t col)
{
    return w->scale[(row * w->cols + col) / p4_scale_group(w->scale_group, w->cols)];
}

/* *view: rows [first, first + count) of a parameter's weight, from row 0 on, until the next use of `space`.
 * Several threads at once, each with a space of its own. Local. */
p4_rc p4_export_view(const p4_export_source *source, p4_export_space *space, p4_weight *view, int64_t param,
                     int64_t first, int64_t count);
/* As p4_export_rows.step. Local. */
p4_rc p4_export_step(const p4_export_source *source, int64_t *rows, int64_t param);
void p4_export_space_free(p4_export_space *space);

/* P4_E_INPUT, with its name, if a parameter of those that `is_taken` tells has more than one scale: by the
 * table of parameters, or by the weights where they are there. `writer` begins the message, `format` is what
 * takes one scale a tensor. Local. */
p4_rc p4_export_check_scales(const p4_export_source *source, bool (*is_taken)(const p4_param *p),
                             const char *writer, const char *format);

/* P4_E_INPUT, with the tensor's name, if a parameter of those that `is_taken` tells has a scale that the
 * format cannot store as a finite fp16 number. `stored` makes the number that is stored from a scale; NULL:
 * the scale itself. Without weights nothing is looked at. Local. */
p4_rc p4_export_check_range(const p4_export_source *source, bool (*is_taken)(const p4_param *p),
                            float (*stored)(float scale), const char *writer);

#endif
