/* tool_write DIRECTORY - writes one small file of each kind that phase4 writes: HDF5 with every sort of
 * object, a part of a checkpoint straight and through an image, a plain file, and publishes a directory. Used
 * by job_write_faults.sh, which makes its calls fail one by one. Exit status 0: everything is there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "io/h5/arrays.h"
#include "io/h5/write.h"
#include "jobs/process.h"

enum { ROWS = 40, COLS = 25 };
static float values[ROWS * COLS];

static p4_rc put_objects(p4_h5_file *file)
{
    p4_rc rc = P4_OK;
    const int64_t shape[2] = {ROWS, COLS};
    p4_h5_rows rows;
    TRY(p4_h5_put_text_attr(file, "/", "format", "a test"));
    TRY(p4_h5_group(file, "metrics/pre"));
    TRY(p4_h5_put_f64_attr(file, "metrics/pre", "loss", 1.5));
    TRY(p4_h5_put_text(file, "config/json", "{\"key\": \"value\"}"));
    TRY(p4_h5_put_vector(file, "metrics/loss", P4_H5_F32, values, COLS));
    TRY(p4_h5_rows_create(&rows, file, "tensors/a/data", P4_H5_F32, 2, shape));
    rc = p4_h5_rows_append(&rows, values, ROWS);
    p4_rc closed = p4_h5_rows_close(&rows);
    rc = rc != P4_OK ? rc : closed;
done:
    return rc;
}

static p4_rc write_h5(const char *path)
{
    p4_atomic_file atomic;
    p4_h5_file file = {.id = -1};
    p4_rc rc = p4_atomic_open(&atomic, path);
    if (rc == P4_OK) {
        rc = p4_h5_create(&file, &atomic);
        rc = rc == P4_OK ? put_objects(&file) : rc;
        p4_rc closed = p4_h5_close(&file, rc == P4_OK);
        rc = rc != P4_OK ? rc : closed;
        closed = p4_atomic_close(&atomic, rc == P4_OK);
        rc = rc != P4_OK ? rc : closed;
    }
    return rc;
}

static p4_rc write_part(const char *path, const char *image_path)
{
    p4_rc rc = P4_OK;
    p4_arrays_writer *w = NULL;
    const void *bytes;
    int64_t count;
    TRY(p4_arrays_create(&w, path));
    rc = p4_arrays_put(w, "tensors/a/master", P4_H5_F32, ROWS, COLS, values);
    p4_rc closed = p4_arrays_finish(w, rc == P4_OK);
    w = NULL;
    TRY(rc != P4_OK ? rc : closed);
    TRY(p4_arrays_create_image(&w, image_path));
    TRY(p4_arrays_put(w, "tensors/a/master", P4_H5_F32, ROWS, COLS, values));
    TRY(p4_arrays_image(w, &bytes, &count));
    TRY(p4_atomic_write_all(image_path, bytes, (size_t)count));
done:
    closed = p4_arrays_finish(w, rc == P4_OK);
    return rc != P4_OK ? rc : closed;
}

static p4_rc write_all(const char *directory)
{
    p4_rc rc = P4_OK;
    char *temporary = p4_temp_path(directory), *h5 = p4_format("%s/a.h5", temporary),
         *part = p4_format("%s/part.h5", temporary), *image = p4_format("%s/image.h5", temporary);
    TRY(temporary != NULL && h5 != NULL && part != NULL && image != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_remove_tree(temporary));
    TRY(p4_make_directories(temporary));
    TRY(write_h5(h5));
    TRY(write_part(part, image));
    TRY(p4_publish_directory(temporary, directory));
done:
    free(temporary);
    free(h5);
    free(part);
    free(image);
    return rc;
}

int main(int argc, char **argv)
{
    p4_process_start();
    for (int i = 0; i < ROWS * COLS; i++) {
        values[i] = (float)(i + 1) * 0.5f;
    }
    p4_rc rc = argc == 2 ? write_all(argv[1]) : FAIL("usage: tool_write DIRECTORY");
    if (rc != P4_OK) {
        fprintf(stderr, "phase4: error: %s\n", p4_last_error());
    }
    return p4_process_end((int)rc);
}
