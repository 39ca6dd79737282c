#include "jobs/train/windows.h"

static p4_rc publish_parts(p4_group *group, p4_windows *windows)
{
    p4_rc rc = P4_OK;
    int64_t header[2] = {windows->part_count, windows->part_documents};
    p4_group_bcast(group, header, sizeof header, 0);
    if (group->rank != 0) {
        windows->part_count = header[0];
        windows->part_documents = header[1];
        windows->parts = header[0] > 0 ? p4_alloc((size_t)header[0], sizeof *windows->parts) : NULL;
        windows->texts = header[1] > 0 ? p4_alloc((size_t)header[1], sizeof *windows->texts) : NULL;
    }
    TRY_ALL(group,
            (windows->parts != NULL && windows->texts != NULL) || header[0] == 0 ? P4_OK : P4_E_SYSTEM);
    p4_group_bcast(group, windows->parts, header[0] * (int64_t)sizeof *windows->parts, 0);
    p4_group_bcast(group, windows->texts, header[1] * (int64_t)sizeof *windows->texts, 0);
done:
    return rc;
}

p4_rc p4_windows_publish(p4_group *group, p4_windows *windows)
{
    p4_rc rc = P4_OK;
    int64_t header[5] = {windows->count, windows->T, windows->tokens_total, windows->stride,
                         windows->begins_stream};
    p4_group_bcast(group, header, sizeof header, 0);
    if (group->rank != 0) {
        *windows = (p4_windows){.count = header[0],
                                .T = header[1],
                                .tokens_total = header[2],
                                .stride = header[3],
                                .begins_stream = header[4] != 0};
        windows->ids = header[0] > 0 ? p4_alloc((size_t)(header[0] * header[1]), sizeof *windows->ids) : NULL;
    }
    TRY_ALL(group, windows->ids != NULL || header[0] == 0 ? P4_OK : P4_E_SYSTEM);
    p4_group_bcast(group, windows->ids, header[0] * header[1] * (int64_t)sizeof *windows->ids, 0);
    TRY(publish_parts(group, windows));
done:
    return rc;
}
