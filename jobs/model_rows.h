/* model_rows.h - the weights of a model.h5 in rows, for who needs each once and none for long. */
#ifndef P4_MODEL_ROWS_H
#define P4_MODEL_ROWS_H

#include "io/export/source.h"
#include "io/h5/artifact.h"
#include "src/model.h"

typedef struct p4_model_rows {
    p4_artifact_reader *reader;
    const p4_artifact_tensor **tensors; /* [params_count] of the model */
    p4_weight *weights;                 /* [params_count]: scales, and no data */
    uint16_t *scales;                   /* of all of them */
    p4_export_rows rows;                /* of them */
} p4_model_rows;

/* Reads the scales. `made` must stay where it is; reader and model outlive it. The caller closes, after an
 * error too. Local; as with io/h5, one thread at a time. */
p4_rc p4_model_rows_open(p4_model_rows *made, p4_artifact_reader *reader, const p4_model *model);
void p4_model_rows_close(p4_model_rows *made);

/* Rows of a tensor as codes or halves, in `to`, or (to NULL) at *rows in memory of `space` until its next
 * use. Several threads at once, each with its own space. Local. */
p4_rc p4_model_rows_read(p4_artifact_reader *reader, const p4_artifact_tensor *tensor, p4_export_space *space,
                         void *to, const void **rows, int64_t first, int64_t count);

#endif
