#include "jobs/export_result.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/export/writers.h"
#include "io/file/files.h"
#include "io/out/directory.h"
#include "jobs/findings.h"
#include "jobs/model_file.h"
#include "jobs/model_rows.h"
#include "src/config.h"
#include "src/exports.h"

static const p4_option options[] = {
    {"--to", NULL, "FORMAT", "The first format; others may follow as further arguments."},
    {"--overwrite", NULL, NULL, "Replace exports that are there."},
    {"--quiet", "-q", NULL, "Print only warnings and errors."},
    {NULL},
};

static const p4_exit_status statuses[] = {
    {"0", "everything is written"},
    {"1", "system failure: memory, or standard output that cannot be written"},
    {"2", "bad input: the command line, the result, a format that cannot hold the model, or the disk"},
    {NULL},
};

const p4_program p4_export_program = {
    .name = "phase4_export",
    .usage = "[options] DIR --to FORMAT...",
    .purpose = "write a result of phase4_mpi in formats of other programs",
    .description =
        "Writes the packed model of DIR, the output directory of a run, in the formats of the key exports:\n"
        "gguf (or gguf:q2_0, gguf:tq1_0, gguf:tq2_0, gguf:i2_s), compressed_tensors, mlx, bitnet, and says "
        "of\n"
        "each what is in it and its size. The tokenizer comes from dequantized_fp16 in DIR. What a format's\n"
        "reader would compute in another way is refused. It is one process and needs no MPI.\n",
    .options = options,
    .statuses = statuses,
};

enum { THREADS_MAX = 4 }; /* they make bytes several times as fast as one file takes them */

/* A packed model with what the writers need of it. */
typedef struct result {
    p4_artifact_reader *reader;
    p4_hf_model hf;
    p4_model_rows rows;
    p4_tokenizer *tokenizer;
    int threads;
} result;

static void close_result(result *r)
{
    p4_tokenizer_close(r->tokenizer);
    p4_model_rows_close(&r->rows);
    p4_hf_model_close(&r->hf);
    p4_artifact_reader_close(r->reader);
}

static p4_rc open_result(result *r, const char *directory)
{
    p4_rc rc = P4_OK;
    char file[P4_PATH_BYTES];
    char *beside = p4_format("%s/dequantized_fp16", directory);
    TRY(beside != NULL ? P4_OK : P4_E_SYSTEM);
    CHECK(p4_directory_exists(directory), "%s: is not a directory, expected the output directory of a run",
          directory);
    TRY(p4_model_file_find(file, directory));
    CHECK(p4_directory_exists(beside), "%s: is not there; the tokenizer of the exports comes from it",
          beside);
    TRY(p4_artifact_reader_open(&r->reader, file));
    TRY(p4_model_file_table(&r->hf, r->reader, file));
    TRY(p4_model_rows_open(&r->rows, r->reader, &r->hf.model));
    free(r->hf.path);
    r->hf.path = beside;
    beside = NULL;
    TRY(p4_tokenizer_present(r->hf.path) ? p4_tokenizer_open(&r->tokenizer, r->hf.path) : P4_OK);
done:
    free(beside);
    return rc;
}

static const p4_writer *writer_of(const char *entry)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)p4_exports_name_bytes(entry), entry);
    return p4_writer_find(name);
}

static p4_export_source source_of(const result *r, const char *entry)
{
    return (p4_export_source){.hf = &r->hf,
                              .tokenizer = r->tokenizer,
                              .option = p4_exports_option(entry),
                              .weights = r->rows.weights,
                              .rows = &r->rows.rows,
                              .threads = r->threads};
}

static p4_rc check_formats(const p4_list *formats)
{
    p4_rc rc = P4_OK;
    char known[256];
    for (const char *entry = p4_list_next(formats, NULL); entry != NULL;
         entry = p4_list_next(formats, entry)) {
        CHECK(p4_exports_is_known(entry), "--to: found \"%.60s\", expected some of %s", entry,
              p4_exports_known(known));
        CHECK(p4_exports_find(formats, writer_of(entry)->name) == entry,
              "--to: found \"%.60s\" after another %s", entry, writer_of(entry)->name);
    }
done:
    return rc;
}

/* All at once: formats that cannot hold the model, exports that are in the way. */
static p4_rc check_exports(const result *r, const char *directory, const p4_list *formats, bool overwrite)
{
    p4_findings f = {.worst = P4_OK};
    for (const char *entry = p4_list_next(formats, NULL); entry != NULL;
         entry = p4_list_next(formats, entry)) {
        const p4_export_source source = source_of(r, entry);
        struct stat there;
        char *path = p4_format("%s/%s", directory, writer_of(entry)->output);
        p4_findings_add(&f, path == NULL ? P4_E_SYSTEM : writer_of(entry)->check(&source));
        if (path != NULL && !overwrite && lstat(path, &there) == 0) {
            p4_findings_add(&f, FAIL("%s: is there already; --overwrite replaces it", path));
        }
        free(path);
    }
    return f.errors > 0 ? p4_fail_lines(f.worst, f.text) : P4_OK;
}

static p4_rc write_exports(const result *r, const char *directory, const p4_list *formats)
{
    p4_rc rc = P4_OK;
    char *path = NULL, what[P4_WRITER_TEXT_BYTES], size[32];
    double bytes;
    for (const char *entry = p4_list_next(formats, NULL); entry != NULL;
         entry = p4_list_next(formats, entry)) {
        const p4_export_source source = source_of(r, entry);
        free(path);
        path = p4_format("%s/%s", directory, writer_of(entry)->output);
        TRY(path != NULL ? writer_of(entry)->write(&source, path) : P4_E_SYSTEM);
        TRY(writer_of(entry)->describe(&source, what));
        TRY(p4_path_bytes(&bytes, path));
        INFO("%s: %s; %s", path, what, p4_format_bytes(size, bytes));
    }
done:
    free(path);
    return rc;
}

p4_rc p4_export_result(const char *directory, const p4_list *formats, bool overwrite)
{
    p4_rc rc = P4_OK;
    p4_hold *hold = NULL;
    result r = {.threads = (int)p4_min_i64(p4_max_i64(1, sysconf(_SC_NPROCESSORS_ONLN)), THREADS_MAX)};
    TRY(check_formats(formats));
    TRY(open_result(&r, directory));
    TRY(check_exports(&r, directory, formats, overwrite));
    TRY(p4_output_borrow(&hold, directory));
    TRY(write_exports(&r, directory, formats));
done:
    p4_output_leave(hold, directory, true);
    close_result(&r);
    return rc;
}
