/* model.h5 back into memory. */
#include <stdlib.h>

#include "jobs/api/api.h"
#include "jobs/model_file.h"

/* The configuration of the run that wrote the file, on this machine's device. Local. */
static p4_rc read_config(p4_config *config, p4_artifact_reader *reader, const char *path)
{
    p4_rc rc = p4_model_file_config(config, reader, path);
    config->device = P4_DEVICE_AUTO;
    config->threads_per_rank = 0;
    return rc;
}

static p4_rc read_model(p4_compressed *c, p4_artifact_reader *reader, const char *path)
{
    p4_rc rc = P4_OK;
    TRY(p4_model_file_table(&c->original.hf, reader, path));
    TRY(p4_original_shard(&c->original, c->compute.group->ranks));
    TRY(p4_model_file_read(&c->packed, &c->config.packing, reader, &c->original.hf.model,
                           c->compute.threads));
done:
    return rc;
}

p4_rc p4_compressed_load(p4_compressed **compressed, p4_session *session, const char *path)
{
    p4_rc rc = P4_OK;
    p4_artifact_reader *reader = NULL;
    p4_group *group = &session->group;
    p4_error_clear();
    *compressed = NULL;
    p4_config *config = p4_alloc(1, sizeof *config);
    TRY_ALL(group, config != NULL ? P4_OK : P4_E_SYSTEM);
    TRY_ALL(group, p4_artifact_reader_open(&reader, path));
    TRY_ALL(group, read_config(config, reader, path));
    TRY(p4_compressed_begin(compressed, session, config));
    (*compressed)->was_loaded = true;
    TRY_ALL(group, read_model(*compressed, reader, path));
done:
    if (rc != P4_OK) {
        p4_compressed_close(*compressed);
        *compressed = NULL;
    }
    p4_artifact_reader_close(reader);
    free(config);
    return rc;
}
