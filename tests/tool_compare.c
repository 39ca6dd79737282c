/* tool_compare - are two runs of phase4_mpi the same? Used by job tests.
 *
 *   tool_compare RUN_A RUN_B bits|tensors|losses|final BOUND
 *
 * bits:   every tensor of both model.h5 is the same bit for bit, and the original's loss agrees within BOUND
 * (relative). tensors: the first of these alone. losses: the original's and the final loss agree within BOUND
 * (relative). final:  the loss of A's original is B's final loss within BOUND (relative): A started from what
 * B wrote. Exit status 0 when they do. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/h5/artifact.h"

static p4_rc open_run(p4_artifact_reader **reader, const char *run)
{
    char *path = p4_format("%s/model.h5", run);
    p4_rc rc = path != NULL ? p4_artifact_reader_open(reader, path) : P4_E_SYSTEM;
    free(path);
    return rc;
}

static p4_rc compare_tensor(p4_artifact_reader *a, p4_artifact_reader *b, const p4_artifact_tensor *t)
{
    p4_rc rc = P4_OK;
    size_t bytes = (size_t)(t->rows * p4_artifact_row_bytes(t)), scales = (size_t)t->rows * 2;
    const p4_artifact_tensor *other = p4_artifact_reader_find(b, t->name);
    char *in_a = p4_alloc(bytes, 1), *in_b = p4_alloc(bytes, 1);
    uint16_t *scale_a = p4_alloc(scales, 1), *scale_b = p4_alloc(scales, 1);
    TRY(in_a != NULL && in_b != NULL && scale_a != NULL && scale_b != NULL ? P4_OK : P4_E_SYSTEM);
    CHECK(other != NULL && other->rows == t->rows && other->cols == t->cols && other->ternary == t->ternary,
          "tensor %s is missing or has another shape in the second run", t->name);
    TRY(p4_artifact_read(a, t, in_a, t->ternary ? scale_a : NULL, 0, t->rows));
    TRY(p4_artifact_read(b, other, in_b, t->ternary ? scale_b : NULL, 0, t->rows));
    CHECK(memcmp(in_a, in_b, bytes) == 0, "tensor %s: the data differ", t->name);
    CHECK(!t->ternary || memcmp(scale_a, scale_b, scales) == 0, "tensor %s: the scales differ", t->name);
done:
    free(in_a);
    free(in_b);
    free(scale_a);
    free(scale_b);
    return rc;
}

static p4_rc compare_loss(p4_artifact_reader *a, const char *group_a, p4_artifact_reader *b,
                          const char *group_b, double bound)
{
    p4_rc rc = P4_OK;
    double x, y;
    TRY(p4_artifact_read_number(a, group_a, "loss", &x));
    TRY(p4_artifact_read_number(b, group_b, "loss", &y));
    printf("%s loss %.9f and %s loss %.9f, relative difference %.2e\n", group_a, x, group_b, y,
           fabs(x - y) / fabs(x));
    CHECK(fabs(x - y) <= bound * fabs(x), "%s and %s: losses %.9f and %.9f differ by more than %g", group_a,
          group_b, x, y, bound);
done:
    return rc;
}

int main(int argc, char **argv)
{
    p4_rc rc = P4_OK;
    p4_artifact_reader *a = NULL, *b = NULL;
    if (argc != 5) {
        fprintf(stderr, "usage: tool_compare RUN_A RUN_B bits|tensors|losses|final BOUND\n");
        return P4_E_INPUT;
    }
    double bound = atof(argv[4]);
    TRY(open_run(&a, argv[1]));
    TRY(open_run(&b, argv[2]));
    CHECK(p4_artifact_reader_count(a) > 0 && p4_artifact_reader_count(a) == p4_artifact_reader_count(b),
          "the runs hold different numbers of tensors");
    if (strcmp(argv[3], "final") == 0) {
        TRY(compare_loss(a, "metrics/pre", b, "metrics/final", bound));
        goto done;
    }
    TRY(strcmp(argv[3], "tensors") == 0 ? P4_OK : compare_loss(a, "metrics/pre", b, "metrics/pre", bound));
    if (strcmp(argv[3], "losses") == 0) {
        TRY(compare_loss(a, "metrics/final", b, "metrics/final", bound));
        goto done;
    }
    for (int64_t i = 0; i < p4_artifact_reader_count(a); i++) {
        TRY(compare_tensor(a, b, p4_artifact_reader_tensor(a, i)));
    }
done:
    if (rc != P4_OK) {
        fprintf(stderr, "tool_compare: %s and %s: %s\n", argv[1], argv[2], p4_last_error());
    }
    p4_artifact_reader_close(a);
    p4_artifact_reader_close(b);
    return (int)rc;
}
